"""Containers as Kubernetes starts them of the image: its user, a read-only root, and volumes that may be written.

Takes root and Linux's namespaces (`tests.machines.are_possible`). The root file system is this machine's, read-only,
with /app as infra/Dockerfile makes it of the checkout and of the environment of these tests, whose editable
installation is PYTHONPATH here. There are no limits of CPU and memory.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.machines import Machine

ROOT: Final = Path(__file__).parents[1]
USER: Final = 1000
SYSTEM: Final = ("bin", "lib", "lib64", "opt", "sbin", "sys", "usr", "var")
IMAGE: Final = {
    "PATH": f"/app/.venv/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/cellnet",
    "PYTHONPATH": "/app",
    "RAY_AUTH_MODE": "token",
    "CELLNET_REGISTRY": "/app/registry",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The environment that the image has of itself."""


def copied() -> list[str]:
    """What infra/Dockerfile copies into /app."""
    page = (ROOT / "infra" / "Dockerfile").read_text(encoding="utf-8")
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", page, re.MULTILINE)
    return [name for line in lines for name in line.split()]


def root_of(root: Path, app: Mapping[str, Path], volumes: Mapping[str, Path]) -> str:
    """A script that makes the root file system of a container, for the mount namespace that it runs in.

    `app` are the files and folders of the image beside the system and Python; `volumes` are mounted as they are.
    """
    binds = {f"/{name}": Path("/", name) for name in SYSTEM if Path("/", name).is_dir()}
    binds |= {sys.base_prefix: Path(sys.base_prefix)} | dict(app)
    at = shlex.quote(str(root))
    lines = ["set -e", f"mount -t tmpfs -o mode=755 none {at}", f"mkdir -p {at}/proc {at}/dev"]
    for to, source in binds.items():
        make = f"mkdir -p {at}{to}" if source.is_dir() else f"mkdir -p {at}{Path(to).parent}; touch {at}{to}"
        lines += [make, f"mount --bind {shlex.quote(str(source))} {at}{to}", f"mount -o remount,bind,ro {at}{to}"]
    lines += [f"mount --rbind /proc {at}/proc", f"mount --rbind /dev {at}/dev"]
    users = f"root:x:0:0::/root:/bin/sh\\ncellnet:x:{USER}:{USER}::/home/cellnet:/bin/sh\\n"
    lines += [f"cp -a /etc {at}/etc", f"printf '{users}' > {at}/etc/passwd"]
    for to, folder in volumes.items():
        lines += [f"mkdir -p {at}{to}", f"mount --bind {shlex.quote(str(folder))} {at}{to}"]
    return "\n".join([*lines, f"mount -o remount,ro {at}"])


def as_user(root: Path, words: Sequence[str], *, user: int = USER) -> list[str]:
    """A command in a root file system that `root_of` made, as this user, who gains no more rights."""
    who = ["--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs"]
    rights = ["--bounding-set", "-all", "--inh-caps", "-all"]
    return ["/usr/sbin/chroot", str(root), "setpriv", *who, *rights, "sh", "-c", 'cd /app; exec "$@"', "sh", *words]


class Container:
    """A pod's one container, on a machine of its own: it sees the image's files, and writes into its volumes."""

    def __init__(
        self, machine: Machine, folder: Path, writable: Sequence[str], files: Mapping[str, Path], *, user: int = USER
    ) -> None:
        """`writable` are the folders of its own volumes, which lie in `folder`; `files` are mounted beside them."""
        self.machine = machine
        self._user = user
        self.log = folder / "log"
        self.volumes = {to: folder / to.strip("/").replace("/", "-") for to in writable}
        for one in self.volumes.values():
            one.mkdir(parents=True)
            os.chown(one, user, user)
        self._root = folder / "root"
        self._root.mkdir()
        app = {f"/app/{name}": ROOT / name for name in copied()}
        app |= {sys.prefix: Path(sys.prefix), "/app/.venv": Path(sys.prefix)}
        machine.run("bash", "-c", root_of(self._root, app, self.volumes | dict(files)))

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A command that goes on, which writes what it says into the log; it has this environment and no other."""
        self.machine.environment = IMAGE | dict(environment)
        return self.machine.start(*as_user(self._root, words, user=self._user), log=self.log)

    def run(self, *words: str, timeout_s: float = 120) -> str:
        """What a command says, in the environment of the one that was started. Raises RuntimeError where it fails."""
        return self.machine.run(*as_user(self._root, words, user=self._user), timeout_s=timeout_s)
