"""Every error that cellnet raises on purpose, and the one-line form in which a person meets it.

    CellnetError
    ├── DataError            an image, manifest or bank is not usable as it is     (HTTP 422)
    ├── ConfigError          an option or a place is not usable as it is
    └── RegistryError        a registry or object store said no
        ├── NotFoundError    nothing of that name                                  (HTTP 404)
        ├── ConflictError    somebody else was first                               (HTTP 409)
        ├── NotBetterError   an alias stays, since the challenger did not beat it
        ├── IntegrityError   stored bytes are not what their sha256 promises
        │   └── LaterError   a later cellnet wrote them
        ├── DeniedError      a store keeps one thing from these credentials
        ├── UntrustedError   a version is not signed by a key that is trusted
        └── UnavailableError a store, or a process beside this one, does not answer (HTTP 503)

Each takes one finished message, so that it survives the pickling between Ray processes. The message gives
the value seen, the value wanted and the next step, on one line.
"""

import errno
import re
from typing import Final

__all__ = [
    "CellnetError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "DeniedError",
    "IntegrityError",
    "LaterError",
    "NotBetterError",
    "NotFoundError",
    "RegistryError",
    "UnavailableError",
    "UntrustedError",
]


class CellnetError(Exception):
    """Something that the user can put right; the message says how."""


class DataError(CellnetError):
    """An image, a manifest or a bank cannot be used as it is."""


class ConfigError(CellnetError):
    """An option, a configuration file or a place cannot be used as it is."""


class RegistryError(CellnetError):
    """A registry or an object store cannot do what was asked."""


class NotFoundError(RegistryError):
    """Nothing of that name is stored there."""


class ConflictError(RegistryError):
    """Somebody else got there first."""


class NotBetterError(RegistryError):
    """A challenger is not shown to be better than what the alias points at."""


class IntegrityError(RegistryError):
    """Stored bytes do not match the sha256 that they are known by."""


class LaterError(IntegrityError):
    """A later cellnet wrote what is stored, in a form that this one does not know."""


class DeniedError(RegistryError):
    """A store keeps an object, or a prefix, from who asks; others may be had."""


class UntrustedError(RegistryError):
    """A model version is not signed by a key that is trusted."""


class UnavailableError(RegistryError):
    """An object store does not answer, or asks to be left alone for a while; or no process can be started."""


_FULL: Final = "the memory of this machine is full; end other programs, or ask for less at once"
_OF_MACHINE: Final = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "the quota of the disk is used up; make room",
    errno.EROFS: "it can only be read; choose another place",
    errno.EACCES: "there is no right to it; choose another place, or have it given",
    errno.EPERM: "there is no right to it; choose another place, or have it given",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine; end other programs",
    errno.ENOMEM: _FULL,
    errno.EIO: "the disk, or the way to it, is faulty; copy what can be read to another",
    errno.ESTALE: "the shared folder is gone; mount it again",
    errno.ENOTCONN: "the shared folder is gone; mount it again",
}


def of_machine(error: BaseException) -> CellnetError | None:
    """What the machine said no to (a full disk, a missing right, no memory), in a line; None of other errors.

    >>> str(of_machine(OSError(errno.ENOSPC, "No space left on device", "/data/bank/a.png")))
    '/data/bank/a.png: the disk is full; make room'
    """
    if isinstance(error, MemoryError):
        return CellnetError(_FULL)
    if not isinstance(error, OSError):
        return None
    number = error.errno
    if number is None and (written := re.search(r"\[[Ee]rrno (\d+)\]", str(error))):  # as pyarrow says it
        number = int(written[1])
    if number not in _OF_MACHINE:
        return None
    where = error.filename if isinstance(error.filename, str) else None
    return CellnetError(f"{where or 'a file'}: {_OF_MACHINE[number]}")


def plain(text: str, *, lines: bool = False) -> str:
    r"""Text of anybody as a terminal may show it: without the characters that command it, on one line unless `lines`.

    >>> plain("A549\x1b[2J\n")
    'A549?[2J?'
    """
    return "".join(char if char.isprintable() or (lines and char == "\n") else "?" for char in text)


def encodable(text: str) -> str:
    r"""Text that files can hold: � for bytes of a name that are no UTF-8, for half a character.

    >>> encodable("caf\udce9")
    'caf�'
    """
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
