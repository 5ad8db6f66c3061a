"""Where a bank, a registry or runs lie: a folder, or a prefix of a bucket."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from cellnet.errors import ConfigError
from cellnet.store.folder import FolderStore
from cellnet.store.objects import Store
from cellnet.store.s3 import S3Store

S3: Final = "s3://"


@dataclass(frozen=True)
class Place:
    """A folder, or s3://bucket/prefix and the server that it is on. It prints as its `uri`; an empty one is false."""

    uri: str
    endpoint_url: str | None = None
    """Another S3 server than Amazon's, or than AWS_ENDPOINT_URL_S3 names; a folder has no use for it."""

    def __str__(self) -> str:
        return self.uri

    def __bool__(self) -> bool:
        return bool(self.uri)

    @property
    def is_on_s3(self) -> bool:
        """Whether it is in a bucket."""
        return self.uri.startswith(S3)

    def open(self) -> Store:
        """The store there. Nothing is made or asked until it is used. Raises ConfigError for what is no place."""
        if self.is_on_s3:
            return S3Store(self.uri, endpoint_url=self.endpoint_url)
        if "://" in self.uri:
            raise ConfigError(f"{self.uri!r} is not a place cellnet knows; give a folder or s3://bucket/prefix")
        if not self.uri:
            raise ConfigError("the place is empty; give a folder or s3://bucket/prefix")
        if os.path.isfile(self.uri):
            raise ConfigError(f"{self.uri} is a file; give a folder or s3://bucket/prefix")
        return FolderStore(Path(self.uri))

    def below(self, path: str) -> Self:
        """A place inside this one.

        >>> str(Place("s3://lab/jobs/").below("bank"))
        's3://lab/jobs/bank'
        """
        return self.elsewhere(f"{self.uri.rstrip('/')}/{path}")

    def elsewhere(self, uri: str) -> Self:
        """Another place, looked for on the same server."""
        return replace(self, uri=uri)


NOWHERE: Final = Place("")

PlaceLike = Place | str | Path
"""A place, or a text for one: a folder, or s3://bucket/prefix on the server that boto3 finds by itself."""


def place_of(given: PlaceLike) -> Place:
    """The place that is given, perhaps as text."""
    return given if isinstance(given, Place) else Place(str(given))


def open_store(given: PlaceLike) -> Store:
    """The store at a place."""
    return place_of(given).open()
