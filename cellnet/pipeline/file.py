"""The file of a pipeline, read and checked; its places, absolute."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cellnet.config.loading import load_checked, read_file
from cellnet.config.pipeline import Pipeline
from cellnet.errors import ConfigError
from cellnet.places import Places, absolute
from cellnet.store.place import NOWHERE, Place

IN_JOB: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"


@dataclass(frozen=True)
class PipelineFile:
    """What a file says, and where it lies."""

    path: Path
    says: Pipeline

    @classmethod
    def read(cls, path: Path) -> "PipelineFile":
        """The checked file. Raises ConfigError in a line that names it, and the key or the line."""
        says = load_checked(Pipeline, read_file(path), where=f"{path}: ")
        file = cls(path, says)
        for place in (file.places.bank, file.places.registry, file.places.runs):
            if place:
                place.open()
        return file

    @property
    def name(self) -> str:
        """What its results are called."""
        return self.says.name or "".join(char if char.isalnum() or char in "._-" else "-" for char in self.path.stem)

    @property
    def places(self) -> Places:
        """Its places."""
        return Places(
            bank=self.place(self.says.bank),
            registry=self.place(self.says.registry),
            runs=self.place(self.says.runs) if self.says.runs else NOWHERE,
            trusted_keys=self.beside(self.says.trusted_keys or os.environ.get("CELLNET_TRUSTED_KEYS")),
            signing_key=self.beside(self.says.signing_key or os.environ.get("CELLNET_SIGNING_KEY")),
        )

    def place(self, uri: str) -> Place:
        """A place that the file names. Raises ConfigError for a folder that a Ray job would lose."""
        return Place(self._absolute(uri), self.says.endpoint_url)

    def beside(self, path: str | None) -> str | None:
        """A file that the file names, to be read."""
        return path if path is None or "://" in path else str((self.path.absolute().parent / path).resolve())

    def _absolute(self, uri: str) -> str:
        if "://" in uri or Path(uri).is_absolute():
            return absolute(uri)
        try:
            absolute(uri)  # which refuses it in a Ray job
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}") from error
        return os.path.abspath(self.path.absolute().parent / uri)
