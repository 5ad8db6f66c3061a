"""How the service starts and ends, without a Ray."""

from typing import Any

import pytest

import serve.app
from cellnet.errors import ConfigError
from serve.app import ServeArgs, serve_forever
from serve.haproxy import free_port


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
    monkeypatch.setattr(serve.app, "build", lambda args: None)
    monkeypatch.setattr(serve.app.serve, "start", lambda **settings: None)
    monkeypatch.setattr(serve.app.serve, "run", fails)
    monkeypatch.setattr(serve.app, "shut_down", lambda: ended.append("ended"))
    with pytest.raises(ConfigError, match=f"the service does not start: {said}") as raised:
        serve_forever(ServeArgs(registry="nowhere"), port=free_port(), block=False)
    assert "\n" not in str(raised.value) and ended == ["ended"]
