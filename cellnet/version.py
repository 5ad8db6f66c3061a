"""Which cellnet this is: the number in pyproject.toml and, where that is known, the commit."""

import importlib.metadata
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

COMMIT: Final = "CELLNET_COMMIT"
"""The environment's name for the commit that an image was built of, since it has no repository."""
ROOT: Final = Path(__file__).parents[1]


def number() -> str:
    """Like `0.2.0`."""
    return importlib.metadata.version("cellnet")


def code_version() -> str:
    """The number with the commit as a local version (PEP 440), like `0.2.0+g1a2b3c4`.

    It ends in `.dirty` where files of the repository differ from the commit. Where no commit is known, the number.
    """
    commit = _of_environment() or _of_repository()
    return f"{number()}+g{commit}" if commit else number()


def _of_environment() -> str | None:
    """The commit that the environment names; a dirty tree may be said too, as `git describe` does."""
    named = re.fullmatch(r"g?([0-9a-f]{7})[0-9a-f]{0,57}([.-]dirty)?", os.environ.get(COMMIT, "").strip().lower())
    return f"{named[1]}{'.dirty' if named[2] else ''}" if named else None


def _of_repository() -> str | None:
    """The commit of cellnet's own repository, if this is a checkout; not of one that cellnet was copied into."""
    if not (ROOT / ".git").exists() or not _is_cellnets(ROOT / "pyproject.toml"):
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=.dirty"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a hook
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):  # no Git here, or one that does not answer
        return None
    said = done.stdout.strip()
    return said if done.returncode == 0 and re.fullmatch(r"[0-9a-f]{7,40}(\.dirty)?", said) else None


def _is_cellnets(pyproject: Path) -> bool:
    try:
        return bool(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["name"] == "cellnet")
    except (OSError, ValueError, KeyError, TypeError):
        return False
