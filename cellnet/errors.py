"""Every error that cellnet raises on purpose, and the one-line form in which a person meets it.

    CellnetError
    ├── DataError            an image, manifest or bank is not usable as it is     (HTTP 422)
    ├── ConfigError          an option or a place is not usable as it is
    └── RegistryError        a registry or object store said no
        ├── NotFoundError    nothing of that name                                  (HTTP 404)
        ├── ConflictError    somebody else was first                               (HTTP 409)
        ├── NotBetterError   an alias stays, since the challenger did not beat it
        ├── IntegrityError   stored bytes are not what their sha256 promises
        ├── UntrustedError   a version is not signed by a key that is trusted
        └── UnavailableError a store does not answer, for now                      (HTTP 503)

Each takes one finished message, so that it survives the pickling between Ray processes. The message gives
the value seen, the value wanted and the next step, on one line.
"""

__all__ = [
    "CellnetError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "IntegrityError",
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


class UntrustedError(RegistryError):
    """A model version is not signed by a key that is trusted."""


class UnavailableError(RegistryError):
    """An object store does not answer, or asks to be left alone for a while."""
