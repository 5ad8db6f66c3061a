"""infra/Dockerfile: what it says, and its steps as far as they run without Docker."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cellnet.version import COMMIT_FILE
from tests import pods
from tests.machines import are_possible

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, the first being what is before them all: (`RUN`, `make setup`)."""
    page = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    found: list[list[tuple[str, str]]] = [[]]
    for line in page.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest))
    return found


def runs(stage: list[tuple[str, str]]) -> list[str]:
    return [rest for word, rest in stage if word == "RUN"]


def take_the_context(folder: Path) -> None:
    """Copy what the first stage copies, as .dockerignore leaves it."""
    for word, rest in stages()[1]:
        if word == "COPY":
            *names, to = rest.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, folder / to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, folder / to)


def test_the_image_installs_as_make_does_and_copies_what_that_takes() -> None:
    ignored = (ROOT / "infra" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == set(pods.copied())
    assert "make setup" in runs(stages()[1]) and not any("pip install" in one for one in runs(stages()[1]))


def test_what_builds_stays_behind() -> None:
    _, build, final = stages()
    assert build[0] == ("FROM", "$BASE AS build") and final[0] == ("FROM", "$BASE")
    assert ("COPY", "--from=build /app /app") in final
    installed = [word for run in runs(final) if "apt-get" in run for word in shlex.split(run.replace("&&", " "))]
    assert "wget" in installed and not {"make", "gcc", "build-essential", "git"} & set(installed)


def test_the_image_is_no_roots_and_its_user_writes_but_into_the_registry() -> None:
    *_, final = stages()
    words = [word for word, _ in final]
    assert ("USER", "1000:1000") in final and words.index("USER") > max(
        number for number, word in enumerate(words) if word in ("RUN", "COPY")
    )
    assert [one for one in runs(final) if "chown" in one] == ["mkdir /app/registry && chown 1000:1000 /app/registry"]
    assert not any("--chown" in rest for word, rest in final if word == "COPY")


def test_the_image_wants_a_token_and_is_asked_how_it_is() -> None:
    *_, final = stages()
    [environment] = [rest for word, rest in final if word == "ENV"]
    assert "RAY_AUTH_MODE=token" in environment.split()
    [health] = [rest for word, rest in final if word == "HEALTHCHECK"]
    assert health.endswith("http://127.0.0.1:8000/healthz")


def test_its_labels_are_those_of_the_project() -> None:
    *_, final = stages()
    [labels] = [dict(pair.split("=", 1) for pair in shlex.split(rest)) for word, rest in final if word == "LABEL"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    at = "org.opencontainers.image."
    assert (labels[at + "version"], labels[at + "licenses"]) == (project["version"], project["license"])
    assert (labels[at + "revision"], labels[at + "base.name"]) == ("$CELLNET_COMMIT", "$BASE")
    arguments = [rest.partition("=")[0] for word, rest in final if word == "ARG"]
    assert {value.removeprefix("$") for value in labels.values() if value.startswith("$")} == set(arguments)


def test_the_base_image_can_be_pinned_by_the_command_of_the_page() -> None:
    first, *others = stages()
    assert first == [("ARG", "BASE=python:3.11-slim")] and all(one[0][1].split()[0] == "$BASE" for one in others)
    assert "--build-arg BASE=" in (ROOT / "infra" / "README.md").read_text(encoding="utf-8")
    files = [path for path in (ROOT / "infra").rglob("*") if path.is_file() and path.suffix != ".png"]
    assert not any("sha256:" in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.slow
def test_the_steps_after_the_set_up_run_in_a_folder_of_what_is_copied(tmp_path: Path) -> None:
    take_the_context(tmp_path)
    after = runs(stages()[1])[runs(stages()[1]).index("make setup") + 1 :]
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    pip = python.with_name("pip")  # whose one task there is to leave the environment smaller
    pip.write_text('#!/bin/sh\necho "$@" > asked\n', encoding="utf-8")
    pip.chmod(0o755)
    for step in after:
        subprocess.run(step, shell=True, cwd=tmp_path, env=os.environ | {"CELLNET_COMMIT": "1a2b3c4"}, check=True)
    assert (tmp_path / COMMIT_FILE).read_text(encoding="utf-8") == "1a2b3c4\n"
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "uninstall -qy uv\n"
    assert list((tmp_path / "serve" / "__pycache__").glob("app.*.pyc"))
    asked = ["make", "--dry-run", "setup"]
    told = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--editable '.'" in told and (tmp_path / "constraints.txt").exists()


@pytest.mark.whole
@pytest.mark.nodes
@pytest.mark.timeout(900)
@pytest.mark.skipif(not are_possible(), reason="a root file system of its own takes root, and Linux's unshare")
def test_all_steps_but_those_of_the_base_image_make_a_cellnet_that_its_user_runs(tmp_path: Path) -> None:
    app, root = tmp_path / "app", tmp_path / "root"
    app.mkdir()
    root.mkdir()
    take_the_context(app)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}
    for step in runs(stages()[1]):
        if "apt-get" not in step:  # of the base image
            subprocess.run(
                step,
                shell=True,
                cwd=app,
                env=kept | {"CELLNET_COMMIT": "1a2b3c4", "UV_COMPILE_BYTECODE": "1"},
                check=True,
            )
    makes = pods.root_of(root, {"/app": app, str(app): app}, {})  # also where its scripts look for their Python
    inside = ["unshare", "--mount", "--propagation=private", "bash", "-c", f'{makes}\nexec "$@"', "bash"]
    asked = [*inside, *pods.as_user(root, ["/app/.venv/bin/cellnet", "--version"])]
    told = subprocess.run(asked, env=pods.IMAGE, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "") and told.stdout.strip().endswith("+g1a2b3c4")
    assert not (app / ".venv" / "bin" / "uv").exists()
