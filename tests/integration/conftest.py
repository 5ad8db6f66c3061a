"""One local Ray, one S3 server on loopback and one small bank of drawn frames for the tests that need them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """A local Ray of two CPUs, whose workers have the keys of the tests' S3 server."""
    import ray

    from pipelines import cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    cluster.quiet()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def sample_bank(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn lineages, four wells each, two fields a well: 24 frames of 400×400."""
    from cellnet.sample import write_sample
    from pipelines.ingest import ingest
    from pipelines.places import Places

    folder = tmp_path_factory.mktemp("sample")
    manifest = write_sample(folder / "images", wells_per_lineage=4, lineages=("THP1", "A172", "3T3"))
    ingest(manifest, Places(bank=str(folder / "bank")))
    return folder / "bank"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of an S3 server with the bucket `lab`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="tester", aws_secret_access_key="secret"
    ).create_bucket(Bucket="lab")
    yield address
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the test alone: whatever this machine has is out of sight."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
