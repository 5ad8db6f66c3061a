"""What was promoted, served: the wait for a service, and `serve deploy`."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cellnet.errors import CellnetError, ConfigError, UnavailableError
from cellnet.pipeline import deploying
from cellnet.pipeline.deploying import deploy, wait_for


class Service(ThreadingHTTPServer):
    """Answers with one model more each time it is asked; where there is a key, to those who send it."""

    models = ("classifier@1", "regressor@1", "regressor@2")
    key = ""
    asked = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        service = self.server
        assert isinstance(service, Service) and self.path == "/v1/models"
        service.asked += 1
        known = self.headers.get("X-API-Key", "") == service.key
        self.send_response(200 if known else 401)
        self.end_headers()
        refs = [{"ref": ref} for ref in service.models[: service.asked]]
        self.wfile.write(json.dumps({"models": refs}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(deploying, "ASK_S", 0)
    with Service(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_a_service_is_waited_for_until_it_answers_with_what_was_promoted(service: Service) -> None:
    said: list[str] = []
    served = wait_for(service.address, ["regressor@2"], wait_s=60, key=None, say=said.append)
    assert served == list(service.models) and service.asked == 3
    assert said == [f"waiting until {service.address} answers with regressor@2"]


@pytest.mark.slow
def test_a_service_that_does_not_follow_is_told_with_what_it_serves(service: Service) -> None:
    with pytest.raises(UnavailableError, match=r"does not serve regressor@3 after 0 s: it answers with classifier@1$"):
        wait_for(service.address, ["regressor@3"], wait_s=0, key=None, say=lambda line: None)
    service.server_close()
    with pytest.raises(UnavailableError, match=r"after 0 s: it does not answer"):
        wait_for("http://127.0.0.1:1", ["regressor@3"], wait_s=0, key=None, say=lambda line: None)


@pytest.mark.slow
def test_a_key_is_sent_and_asked_for(service: Service, tmp_path: Path) -> None:
    service.key = "secret"
    with pytest.raises(ConfigError, match=r"asks for an API key; give deploy\.api_key"):
        wait_for(service.address, ["regressor@1"], wait_s=0, key=None, say=lambda line: None)
    (tmp_path / "key").write_text("secret\n")
    assert wait_for(service.address, ["regressor@1"], wait_s=60, key=tmp_path / "key", say=lambda line: None)
    with pytest.raises(ConfigError, match="cannot read an API key from"):
        wait_for(service.address, ["regressor@1"], wait_s=0, key=tmp_path / "none", say=lambda line: None)


def test_what_serve_deploy_says_is_said_and_its_failure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "serve").write_text('#!/bin/sh\necho "sent $2"\ntest "$2" = good.yaml\n')
    (tmp_path / "serve").chmod(0o755)
    said: list[str] = []
    deploy(["serve", "deploy", "good.yaml"], said.append)
    assert said == ["sent good.yaml"]
    with pytest.raises(CellnetError, match=r"^serve deploy ended with 1: sent bad\.yaml$"):
        deploy(["serve", "deploy", "bad.yaml"], said.append)
    (tmp_path / "serve").unlink()
    with pytest.raises(CellnetError, match="comes with ray"):
        deploy(["serve", "deploy", "good.yaml"], said.append)
