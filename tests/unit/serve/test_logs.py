"""The lines that the service logs."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cellnet.errors import UnavailableError
from serve.http.middleware import Surroundings
from serve.http.problems import add_problems
from serve.limits import Limits
from serve.logs import FORMATTERS, JsonLines, access_log, set_up_logs
from serve.meters import Meters
from serve.settings import LogFormat

pytestmark = pytest.mark.usefixtures("as_before")

log = logging.getLogger("serve.tried")


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loggers are afterwards what they were."""
    for name in ("cellnet", "serve", "cellnet.requests"):
        for kept in ("handlers", "level", "propagate"):
            monkeypatch.setattr(logging.getLogger(name), kept, [] if kept == "handlers" else False)
    return


def test_the_lines_go_to_the_first_output_whatever_a_host_puts_in_its_place(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    set_up_logs(log_requests=True, log_format="text")
    access_log.info("a line")
    set_up_logs(log_requests=False, log_format="text")
    access_log.info("another")
    assert capfd.readouterr().out == "a line\n"


@pytest.mark.parametrize("log_format", FORMATTERS)
def test_what_goes_wrong_within_a_request_is_logged_with_its_id_once(
    log_format: LogFormat, capfd: pytest.CaptureFixture[str]
) -> None:
    api = FastAPI()
    add_problems(api)

    @api.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError("a fault")

    @api.get("/away")
    async def away() -> None:
        raise UnavailableError("the store is away")

    api.add_middleware(Surroundings, limits=Limits(), meters=Meters())
    client = TestClient(api, raise_server_exceptions=False)
    set_up_logs(log_requests=False, log_format=log_format)
    assert client.get("/fails", headers={"X-Request-ID": "one"}).status_code == 500
    assert client.get("/away", headers={"X-Request-ID": "two"}).status_code == 503
    log.warning("by itself")
    lines = capfd.readouterr().err.splitlines()
    if log_format == "text":
        heads = [line for line in lines if " ERROR " in line or " WARNING " in line]
        assert [line.rpartition(": ")[2] for line in heads[::2]] == ["GET /fails failed (request one)", "by itself"]
        assert heads[1].endswith("the store is away (request two)")
        assert "ZeroDivisionError: a fault" in lines
        return
    first, second, third = (json.loads(line) for line in lines)
    told = ("level", "request_id", "message")
    assert [first[name] for name in told] == ["ERROR", "one", "GET /fails failed"]
    assert first["error"].endswith("ZeroDivisionError: a fault")
    assert [second[name] for name in told] == ["ERROR", "two", "GET /away: the store is away"]
    assert (third["level"], third["logger"], third["message"]) == ("WARNING", "serve.tried", "by itself")
    assert "request_id" not in third


def test_a_line_of_json_leaves_its_message_where_other_formatters_have_it() -> None:
    record = logging.LogRecord("serve", logging.INFO, __file__, 1, "%d frames", (3,), None)
    assert json.loads(JsonLines().format(record))["message"] == record.message == "3 frames"


def test_an_object_is_one_line_whatever_is_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logs(log_requests=False, log_format="json")
    hostile = 'a\nb\x1b[31m"}\u2028\udcff'
    log.error("%s", hostile)
    [line] = capfd.readouterr().err.splitlines()
    said: dict[str, Any] = json.loads(line)
    assert said["message"] == hostile and line.isascii()
