"""How the service starts and ends, without a Ray."""

import http.server
import threading
from pathlib import Path
from typing import Any

import pytest

import serve.app
from cellnet.errors import ConfigError
from serve.app import ServeArgs, serve_forever
from serve.haproxy import free_port
from tests.factories import champions


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Deploying application failed:\n  Traceback\nRegistryError: S3 is down\n"), "RegistryError: S3"),
        (TimeoutError("HTTP proxies not available after 60s."), "HTTP proxies not available after 60s"),
        (RuntimeError(), "Ray Serve says no more"),
    ],
)
def test_a_service_that_does_not_come_up_is_told_in_a_line_and_shut_down(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(*given: Any, **settings: Any) -> None:
        raise error

    ended: list[str] = []
    monkeypatch.setattr(serve.app, "_application", lambda args: (None, []))
    monkeypatch.setattr(serve.app.serve, "start", lambda **settings: None)
    monkeypatch.setattr(serve.app.serve, "run", fails)
    monkeypatch.setattr(serve.app, "shut_down", lambda: ended.append("ended"))
    with pytest.raises(ConfigError, match=f"the service does not start: {said}") as raised:
        serve_forever(ServeArgs(registry="nowhere"), port=free_port(), block=False)
    assert "\n" not in str(raised.value) and ended == ["ended"]


def test_the_models_that_are_announced_are_those_that_it_began_with_and_are_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry = champions(tmp_path)
    asked: list[Any] = []
    told: list[tuple[str, list[str]]] = []
    resolve = serve.app.resolve_models
    monkeypatch.setattr(serve.app, "resolve_models", lambda *given: (asked.append(given), resolve(*given))[1])
    for name in ("start", "run"):
        monkeypatch.setattr(serve.app.serve, name, lambda *given, **settings: None)
    monkeypatch.setattr(serve.app, "load_model", lambda *given, **settings: None)
    monkeypatch.setattr(serve.app, "_check_answer", lambda host, port: None)
    port = free_port()
    args = ServeArgs(registry=registry.store.uri, overlays=False)
    serve_forever(args, port=port, block=False, announce=lambda *line: told.append(line))
    assert told == [(f"http://127.0.0.1:{port}", ["classifier@1", "regressor@1"])] and len(asked) == 1


@pytest.mark.slow
def test_a_service_is_announced_once_its_haproxy_was_told_what_to_heed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [503, 503, 404]
    asked: list[str] = []

    class Edge(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/healthz" else said.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(serve.app.haproxy, "is_used", lambda: True)
    with http.server.HTTPServer(("127.0.0.1", 0), Edge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        serve.app._check_answer("127.0.0.1", server.server_address[1])
        server.shutdown()
    assert asked == ["/healthz", *["/-/edge"] * 3] and not said


def test_ctrl_c_is_heard_before_what_was_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []

    def pressed(event: threading.Event) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.app, "_application", lambda args: (None, []))
    for name in ("start", "run"):
        monkeypatch.setattr(serve.app.serve, name, lambda *given, **settings: None)
    monkeypatch.setattr(serve.app, "_check_answer", lambda host, port: None)
    monkeypatch.setattr(serve.app.signal, "signal", lambda *given: None)
    monkeypatch.setattr(serve.app.threading.Event, "wait", pressed)
    monkeypatch.setattr(serve.app, "shut_down", lambda: came.append("shut down"))
    serve_forever(ServeArgs(registry="nowhere"), port=free_port(), stopping=lambda: came.append("told"))
    assert came == ["told", "shut down"]
