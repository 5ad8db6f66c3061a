"""The options of `cellnet serve`, which are the fields of `ServeArgs`."""

import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

import serve.app
import serve.settings
from cellnet.cli import main
from cellnet.cli.printing import LogLines
from cellnet.cli.program import parser
from serve.app import ServeArgs
from serve.logs import JsonLines


@pytest.fixture
def started() -> list[tuple[ServeArgs, dict[str, Any]]]:
    """What the service was started with, each time."""
    return []


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, started: list[tuple[ServeArgs, dict[str, Any]]]) -> Any:
    """`served("--threads", "2")`: the arguments that the service is started with."""
    for name in ("CELLNET_REGISTRY", "CELLNET_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(serve.app, "serve_forever", lambda args, **options: started.append((args, options)))
    monkeypatch.setattr("serve.haproxy.use_haproxy", lambda: None)
    monkeypatch.setattr(logging.getLogger("cellnet.cli.serve"), "level", logging.NOTSET)  # and afterwards

    def start(*options: str) -> ServeArgs:
        assert main(["serve", *options]) == 0
        return started[-1][0]

    return start


def test_what_is_not_said_is_as_the_fields_have_it(served: Any, tmp_path: Any) -> None:
    args = served("--registry", str(tmp_path))
    assert args == ServeArgs(registry=str(tmp_path))


def test_lines_of_json_are_the_programs_own_and_no_other_handlers(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, another = logging.StreamHandler(), logging.StreamHandler()
    ours.setFormatter(LogLines("%(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [ours, another])
    served("--registry", str(tmp_path), "--log-format", "json")
    assert isinstance(ours.formatter, JsonLines)
    assert another.formatter is None


def test_what_is_served_where_is_told_in_lines_of_a_terminal(
    served: Any,
    started: list[tuple[ServeArgs, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.cluster.connect", lambda *given, **settings: None)
    served("--registry", str(tmp_path), "--no-cluster-token")
    started[-1][1]["connect"]()
    started[-1][1]["announce"]("http://127.0.0.1:8000", ["classifier@1", "regressor@1"])
    started[-1][1]["stopping"]()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "starting: Ray, then the models; it takes some seconds",
        "serving at http://127.0.0.1:8000: a page, and /docs; Ctrl-C stops it",
        "models: classifier@1, regressor@1",
        "stopping: what was begun is answered first",
    ]
    assert max(map(len, said)) <= 80


def test_every_field_is_an_option(served: Any, tmp_path: Any) -> None:
    typed = (
        "--classifier c@1 --regressor r@2 --challenger 0.25 --poll-s 3 --replicas 1:4 --threads 2 --cpus 1.5 "
        "--engine torch --no-overlays --max-request-mb 1.5 --max-images 3 --max-megapixels 4 --max-queue 5 "
        "--max-seconds 6 --max-labels 7 --max-label-mb 8 --cors https://a.example --cors https://b.example "
        "--allow-host lab.example --log-requests --log-format json "
        "--endpoint-url http://127.0.0.1:9 --trusted-proxy 10.0.0.7 --trusted-proxy fd00::/8"
    )
    files = {
        "registry": tmp_path / "r",
        "bank": tmp_path / "b",
        "trusted_keys": tmp_path / "t",
        "api_keys": tmp_path / "k",
    }
    args = served(*typed.split(), *(f"--{name.replace('_', '-')}={path}" for name, path in files.items()))
    assert args.model_dump() == {
        **{name: str(path) for name, path in files.items()},
        **{"endpoint_url": "http://127.0.0.1:9", "classifier": "c@1", "regressor": "r@2", "challenger": 0.25},
        **{"poll_s": 3.0, "replicas": (1, 4), "threads": 2, "cpus": 1.5, "engine": "torch", "overlays": False},
        **{"max_request_mb": 1.5, "max_images": 3, "max_megapixels": 4.0, "max_queue": 5, "max_seconds": 6.0},
        **{"max_labels": 7, "max_label_mb": 8.0},
        **{"cors": ("https://a.example", "https://b.example"), "hosts": ("lab.example",), "log_requests": True},
        "log_format": "json",
        "trusted_proxies": ("10.0.0.7/32", "fd00::/8"),
    }
    assert served("--challenger", "shadow").challenger == "shadow"
    assert served("--replicas", "3").replicas == 3


def test_a_new_field_is_an_option_by_itself(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class More(ServeArgs):
        colour_depth: Annotated[int, Field(ge=1, le=16)] = Field(default=8, description="bits of a colour")
        loud: bool = False
        calm: bool = True

    for module in (serve.settings, serve.app):
        monkeypatch.setattr(module, "ServeArgs", More)
    asked = {"colour_depth": 12, "loud": True, "calm": False}
    assert served("--colour-depth", "12", "--loud", "--no-calm").model_dump().items() >= asked.items()
    assert served().model_dump().items() >= {"colour_depth": 8, "loud": False, "calm": True}.items()
    assert main(["serve", "--colour-depth", "17"]) == 2
    verbs = parser()._subparsers._group_actions[0].choices
    assert "bits of a colour" in verbs["serve"].format_help()


def test_the_folders_of_keys_and_bank_are_made_absolute(
    served: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = served("--api-keys", "keys", "--bank", "bank")
    assert (args.api_keys, args.bank) == (str(tmp_path / "keys"), str(tmp_path / "bank"))
    assert served("--bank", "s3://lab/bank").bank == "s3://lab/bank"


def test_a_trusted_proxy_is_an_address_or_a_network(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert served("--trusted-proxy", "10.1.2.3/8").trusted_proxies == ("10.0.0.0/8",)
    assert main(["serve", "--trusted-proxy", "proxy.example"]) == 2
    assert "'proxy.example' is no address and no network, like 10.0.0.7 or 10.0.0.0/8" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "asked"), [((), ["joined", "closed?"]), (("--no-cluster-token",), ["joined"])])
def test_a_cluster_without_a_token_is_joined_only_where_that_is_said(
    served: Any, started: list[Any], monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...], asked: list[str]
) -> None:
    happened: list[str] = []
    monkeypatch.setattr("pipelines.cluster.connect", lambda *used, **settings: happened.append("joined"))
    monkeypatch.setattr("pipelines.starting.check_closed", lambda: happened.append("closed?"))
    served(*option)
    started[-1][1]["connect"]()
    assert happened == asked
