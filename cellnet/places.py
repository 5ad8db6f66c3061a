"""Where a job finds and leaves things: folders, or s3://bucket/prefix, that every worker can reach."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from cellnet.bank.bank import Bank
from cellnet.bank.parts import Moment
from cellnet.config.bank import BankSettings
from cellnet.errors import ConfigError
from cellnet.registry import signing
from cellnet.registry.registry import Registry
from cellnet.store.folder import FolderStore
from cellnet.store.objects import Store
from cellnet.store.place import NOWHERE, S3, Place


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of one job; one that the job does not use is left empty."""

    bank: Place = NOWHERE
    as_of: Moment | None = None
    """The moment of the bank that is meant; None for the bank as it is."""
    registry: Place = NOWHERE
    runs: Place = NOWHERE
    """Where Ray Train and Ray Tune keep checkpoints; left empty: `runs` beside the registry."""
    trusted_keys: str | None = None
    """A file of public keys; where there is one, the registry's versions must be signed by one of them."""
    signing_key: str | None = None
    """A file with the private key that signs what is published."""

    @property
    def named(self) -> tuple[Place, ...]:
        """Those that the job uses."""
        return tuple(place for place in (self.bank, self.registry, self.runs) if place)

    def open_bank(self) -> Bank:
        """The bank, as it was then where a moment is meant. Raises NotFoundError where there is none."""
        return Bank.open(self.bank, as_of=self.as_of)

    def new_bank(self, settings: BankSettings | None = None) -> Bank:
        """The bank, or an empty one in its place. Raises ConfigError if it has other settings."""
        return Bank.create(self.bank, settings)

    def open_registry(self) -> Registry:
        """The registry; an empty place is an empty registry. Raises ConfigError for keys that cannot be read."""
        return Registry.open(
            self.registry,
            trusted=signing.load_trusted(Path(self.trusted_keys)) if self.trusted_keys else (),
            signer=signing.load_signer(Path(self.signing_key)) if self.signing_key else None,
        )

    def open_runs(self) -> Store:
        """The store of the runs; a folder is made."""
        store = (self.runs or _beside(self.registry)).open()
        if isinstance(store, FolderStore):
            store.folder.mkdir(parents=True, exist_ok=True)
        return store

    def command(self, *words: object) -> str:
        """A command about these models as one types it, with the options that lead to them.

        >>> Places(registry=Place("s3://lab/models", "http://s3:9000")).command("registry", "show", "regressor@1")
        'cellnet registry show regressor@1 --registry s3://lab/models --endpoint-url http://s3:9000'
        """
        default = os.environ.get("CELLNET_REGISTRY", "registry")
        is_default = self.registry.uri in (default, os.path.abspath(default))
        options = [] if is_default else ["--registry", self.registry.uri]
        if endpoint_url := self.registry.endpoint_url or self.bank.endpoint_url:
            options += ["--endpoint-url", endpoint_url]
        return shlex.join(["cellnet", *map(str, words), *options])


def _beside(registry: Place) -> Place:
    """`runs` beside a registry; below it where the registry is a whole bucket."""
    if not registry.is_on_s3:
        return Place(str(Path(registry.uri).absolute().parent / "runs"))
    bucket, _, prefix = registry.uri.removeprefix(S3).strip("/").partition("/")
    return registry.elsewhere("/".join([f"{S3}{bucket}", *prefix.split("/")[:-1], "runs"]))


def absolute(uri: str) -> str:
    """A folder as an absolute path, `s3://...` as it is.

    A Ray job runs in a copy of its working directory, where results would be lost and other nodes do not look:
    there a relative folder is refused.
    """
    if "://" in uri:
        return uri
    if not Path(uri).is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ConfigError(
            f"a Ray job runs in a copy of its working directory, so {uri!r} would be lost with it; "
            f"give an absolute path (for example $PWD/{uri}) or s3://bucket/prefix"
        )
    return os.path.abspath(uri)
