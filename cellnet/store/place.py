"""Where a bank, a registry or runs lie: a folder, or a prefix of a bucket."""

import os
from pathlib import Path

from cellnet.errors import ConfigError
from cellnet.store.folder import FolderStore
from cellnet.store.objects import Store
from cellnet.store.s3 import S3Store


def open_store(uri: str | Path, *, endpoint_url: str | None = None) -> Store:
    """The store at a folder or `s3://bucket/prefix`. Nothing is made or asked until it is used."""
    text = str(uri)
    if text.startswith("s3://"):
        return S3Store(text, endpoint_url=endpoint_url)
    if "://" in text:
        raise ConfigError(f"{text!r} is not a place cellnet knows; give a folder or s3://bucket/prefix")
    if not text:
        raise ConfigError("the place is empty; give a folder or s3://bucket/prefix")
    if os.path.isfile(text):
        raise ConfigError(f"{text} is a file; give a folder or s3://bucket/prefix")
    return FolderStore(Path(text))
