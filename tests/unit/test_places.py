"""Where jobs leave their runs, and how a store looks to Ray."""

import socket
from pathlib import Path

import pyarrow.fs
import pytest

import cellnet.store.arrow
import cellnet.store.s3
from cellnet.errors import ConfigError, UnavailableError
from cellnet.places import Places, absolute
from cellnet.store.arrow import filesystem
from cellnet.store.place import Place, place_of
from cellnet.store.s3 import CONNECT_S, READ_S, S3Store


@pytest.mark.parametrize(
    ("registry", "runs"),
    [
        ("s3://lab", "s3://lab/runs"),
        ("s3://lab/registry/", "s3://lab/runs"),
        ("s3://lab/plates/registry", "s3://lab/plates/runs"),
    ],
)
def test_runs_lie_beside_the_registry_and_in_its_bucket(registry: str, runs: str) -> None:
    assert Places(registry=place_of(registry)).open_runs().uri == runs


def test_runs_have_a_folder_of_their_own_unless_told_otherwise(tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    assert Places(registry=place_of(registry)).open_runs().uri == str(tmp_path / "runs")
    elsewhere = str(tmp_path / "else" / "where")
    assert Places(registry=place_of(registry), runs=place_of(elsewhere)).open_runs().uri == elsewhere
    assert Path(elsewhere).is_dir() and not Path(registry).exists()


def test_a_relative_folder_is_made_absolute_but_refused_in_a_ray_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("bank") == str(tmp_path / "bank")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert [absolute(place) for place in ("/data/bank", "s3://lab/bank")] == ["/data/bank", "s3://lab/bank"]
    with pytest.raises(ConfigError, match="'bank' would be lost"):
        absolute("bank")


def test_the_endpoint_of_a_store_reaches_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    files, root = filesystem(S3Store("s3://lab/runs", endpoint_url="http://127.0.0.1:9000"))
    assert root == "lab/runs"
    limits = {"connect_timeout": CONNECT_S, "request_timeout": READ_S}
    here = {"endpoint_override": "127.0.0.1:9000", "scheme": "http", "region": "us-east-1"}
    assert files == pyarrow.fs.S3FileSystem(**here, **limits)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.lab.example")
    there = {"endpoint_override": "s3.lab.example", "scheme": "https", "region": "us-east-1"}
    told = pyarrow.fs.S3FileSystem(**there, **limits)
    assert filesystem(S3Store("s3://lab")) == (told, "lab")


@pytest.mark.slow
def test_a_server_that_takes_connections_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tester")
    monkeypatch.setattr(cellnet.store.arrow, "READ_S", 0.1)
    monkeypatch.setattr(cellnet.store.s3, "READ_S", 0.1)
    monkeypatch.setattr(cellnet.store.s3, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = S3Store("s3://lab/runs", endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnavailableError, match=r"cannot read run.json in s3://lab/runs: Read timeout"):
            store.get("run.json")
        files, root = filesystem(store)
        with pytest.raises(OSError, match="Timeout was reached"):
            files.get_file_info(f"{root}/run.json")


def test_runs_are_on_the_server_of_the_registry_that_they_lie_beside() -> None:
    places = Places(registry=Place("s3://lab/registry", "http://127.0.0.1:9000"))
    runs = places.open_runs()
    assert (runs.uri, runs.endpoint_url) == ("s3://lab/runs", "http://127.0.0.1:9000")


def test_a_command_that_is_told_leads_to_the_same_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELLNET_REGISTRY", raising=False)
    there = Place("s3://lab/registry", "http://s3:9000")
    assert Places(registry=Place(absolute("registry"))).command("registry", "list") == "cellnet registry list"
    told = Places(registry=Place("/models of us")).command("evaluate", "regressor@1", "bank")
    assert told == "cellnet evaluate regressor@1 bank --registry '/models of us'"
    monkeypatch.setenv("CELLNET_REGISTRY", "s3://lab/registry")
    assert Places(registry=there).command("gc") == "cellnet gc --endpoint-url http://s3:9000"
