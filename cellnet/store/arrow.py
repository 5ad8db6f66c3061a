"""A store as pyarrow sees it."""

import os

import boto3
import pyarrow.fs

from cellnet.store.objects import Store
from cellnet.store.s3 import CONNECT_S, READ_S, S3Store, region_of


def filesystem(store: Store) -> tuple[pyarrow.fs.FileSystem, str]:
    """A store as pyarrow sees it, for Ray: the file system and the path in it."""
    if not isinstance(store, S3Store):
        return pyarrow.fs.LocalFileSystem(), store.uri
    endpoint = store.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = region_of(boto3.Session())
    server = {}
    if endpoint is not None:
        scheme, _, address = endpoint.rpartition("://")
        server = {"endpoint_override": address, "scheme": scheme or "https"}
    files = pyarrow.fs.S3FileSystem(region=region, connect_timeout=CONNECT_S, request_timeout=READ_S, **server)
    return files, store.uri.removeprefix("s3://")
