"""Which cellnet it is: the number of pyproject.toml, and the commit where it is known."""

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import cellnet.version
from cellnet.version import COMMIT_FILE, COMMIT_VARIABLE, code_identity, code_version, number

ROOT = Path(__file__).parents[2]
with_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no Git here")
Checkout = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """`checkout(of="cellnet")`: a repository of one commit, of a project of that name, that cellnet stands in."""

    def make(*, of: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{of}"\nversion = "9.1"\n')
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
            subprocess.run(["git", *command], cwd=tmp_path, check=True)
        monkeypatch.setattr(cellnet.version, "ROOT", tmp_path)
        return tmp_path

    return make


def commit_of(folder: Path) -> str:
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return said.stdout[:7]


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    newest = re.fullmatch(r"(\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)", headings[0])
    assert newest, f"CHANGELOG.md: {headings[0]!r} is not like 0.2.0 (2026-11-27)"
    assert newest[1] == project["version"], "the newest entry of CHANGELOG.md is of another version than pyproject.toml"


@with_git
def test_a_checkout_says_its_commit_and_whether_files_differ_from_it(checkout: Checkout) -> None:
    folder = checkout(of="cellnet")
    commit = commit_of(folder)
    assert code_version() == f"9.1+g{commit}"
    (folder / "new.txt").write_text("Git does not know it")
    assert code_version() == f"9.1+g{commit}"
    (folder / "pyproject.toml").write_text('[project]\nname = "cellnet"\nversion = "9.2"\n')
    assert code_version() == f"9.2+g{commit}.dirty"
    subprocess.run(["git", "tag", "v9"], cwd=folder, check=True)
    assert code_version() == f"9.2+g{commit}.dirty"


@with_git
def test_its_own_repository_is_asked_even_in_a_hook_of_another(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkout(of="cellnet")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    said = code_version()
    monkeypatch.delenv("GIT_DIR")
    assert said == f"9.1+g{commit_of(folder)}"


@with_git
def test_the_repository_of_somebody_else_says_nothing_of_cellnet(checkout: Checkout) -> None:
    checkout(of="analysis-of-my-lab")
    assert code_version() == number()


@with_git
def test_without_git_or_with_a_damaged_repository_the_number_stands_alone(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkout(of="cellnet")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(folder))
        assert code_version() == "9.1"
    (folder / ".git/HEAD").unlink()
    assert code_version() == "9.1"
    (folder / "pyproject.toml").write_bytes(b"\xff[project")
    assert code_version() == number() == importlib.metadata.version("cellnet")


def test_installed_elsewhere_the_number_is_that_of_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cellnet.version, "ROOT", tmp_path)
    assert code_version() == number() == importlib.metadata.version("cellnet")


@with_git
def test_the_same_code_is_the_same_cellnet_with_and_without_its_repository(checkout: Checkout) -> None:
    folder = checkout(of="cellnet")
    (folder / "cellnet/bank").mkdir(parents=True)
    (folder / "cellnet/bank/bank.py").write_text("one = 1\n")
    identity = code_identity()
    assert re.fullmatch(r"9\.1\+code\.[0-9a-f]{12}", identity)
    (folder / "README.md").write_text("another paper")
    shutil.rmtree(folder / ".git")
    assert code_identity() == identity
    (folder / "cellnet/bank/bank.py").write_text("one = 2\n")
    changed = code_identity()
    (folder / "cellnet/bank/bank.py").rename(folder / "cellnet/bank/other.py")
    assert len({identity, changed, code_identity()}) == 3


TOLD = [
    ("1a2b3c4", "+g1a2b3c4"),
    ("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d\n", "+g1a2b3c4d5e6f"),
    ("1a2b3c4-dirty\n", "+g1a2b3c4.dirty"),
    ("", ""),
    ("main; rm -rf /", ""),
]


@pytest.mark.parametrize(("told", "said"), TOLD)
def test_an_image_has_its_commit_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, said: str
) -> None:
    monkeypatch.setattr(cellnet.version, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "cellnet"\nversion = "9.1"\n')
    (tmp_path / COMMIT_FILE).write_text(told)
    assert code_version() == f"9.1{said}"


@pytest.mark.parametrize(("told", "said"), TOLD)
def test_a_job_is_told_its_commit_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, said: str
) -> None:
    monkeypatch.setattr(cellnet.version, "ROOT", tmp_path)
    monkeypatch.setenv(COMMIT_VARIABLE, told)
    assert code_version() == number() + said
