"""Which cellnet this is: the number in pyproject.toml, where that is known the commit, and a digest of the code."""

import hashlib
import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
"""Of a checkout, or of what an image was built of."""
COMPUTES: Final = ("cellnet", "pipelines")
"""Packages that decide what comes of a bank."""
COMMIT_FILE: Final = "COMMIT"
"""Beside pyproject.toml in an image, which has no repository: the commit, as infra/Dockerfile was told it."""
COMMIT_VARIABLE: Final = "CELLNET_COMMIT"
"""The environment's name for it, for a job that has neither."""


def number() -> str:
    """Like `0.2.0`: of the code that runs, which in a Ray job may be another than the one that is installed."""
    project = _project()
    return str(project["version"]) if project else importlib.metadata.version("cellnet")


def code_version() -> str:
    """The number with the commit as a local version (PEP 440), like `0.2.0+g1a2b3c4`.

    It ends in `.dirty` where files of the repository differ from the commit. Where no commit is known, the number.
    """
    commit = (_of_repository() or _of_image() if _project() else None) or _of_environment()
    return f"{number()}+g{commit}" if commit else number()


def code_identity() -> str:
    """The number with a digest of the code that computes, like `0.3.0+code.1a2b3c4d5e6f`.

    The same wherever this code lies: in a checkout, with or without its repository, in an image, installed.
    """
    digest = hashlib.sha256()
    for path in sorted(path for room in COMPUTES for path in (ROOT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"{number()}+code.{digest.hexdigest()[:12]}"


def _project() -> dict[str, Any] | None:
    """What pyproject.toml says, if this is cellnet's own folder and not one that it was installed or copied into."""
    try:
        project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project if (project["name"], type(project["version"])) == ("cellnet", str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_repository() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a hook
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):  # no Git here, or one that does not answer
        return None
    return _commit(done.stdout) if done.returncode == 0 else None


def _of_image() -> str | None:
    try:
        return _commit((ROOT / COMMIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _of_environment() -> str | None:
    return _commit(os.environ.get(COMMIT_VARIABLE, ""))


def _commit(described: str) -> str | None:
    """What `git describe --always --dirty` says, as part of a version: at least seven digits.

    >>> _commit("1a2b3c4-dirty"), _commit("main")
    ('1a2b3c4.dirty', None)
    """
    match = re.fullmatch(r"([0-9a-f]{7,12})[0-9a-f]{0,52}(-dirty)?", described.strip())
    return f"{match[1]}{'.dirty' if match[2] else ''}" if match else None
