"""What is read of Ray's configuration and told by the service; what the rules do is in test_haproxy.py."""

import resource
from typing import Any

import pytest

from serve.haproxy_rules import CONNECTIONS, Told, connections, replicas_of

CONFIG = """
frontend http_frontend
    acl is_http-cellnet path_beg /cells/
    acl is_http-cellnet path /cells
    acl is_http-other path_beg /
    acl is_http-other path /
backend default_backend
backend http-cellnet
    server a 127.0.0.1:30000 check observe layer4
    server b [fd00::7]:30001 check
    server SERVE_PROXY_ACTOR-fallback 127.0.0.1:8500 check backup
backend http-other
    server c 10.0.0.7:30000 check
"""


def test_replicas_are_asked_below_the_prefix_of_their_application_and_rays_own_proxy_is_not() -> None:
    assert replicas_of(CONFIG) == [
        ("127.0.0.1", 30000, "/cells"),
        ("fd00::7", 30001, "/cells"),
        ("10.0.0.7", 30000, ""),
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"proxies": ["10.0.0.0/8\n    http-request allow"], "hosts": [], "queue": 1},
        {"proxies": [], "hosts": ["a b"], "queue": 1},
        {"proxies": [], "hosts": [], "queue": "many"},
        {"proxies": []},
        ["proxies"],
    ],
)
def test_what_is_told_becomes_no_line_of_a_configuration_unchecked(said: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Told.of(said, 2, "")


def test_there_are_no_more_connections_than_files_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_MAXCONN", raising=False)
    for files, most in ((1024, 212), (resource.RLIM_INFINITY, CONNECTIONS), (2**20, CONNECTIONS)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, files=files: (files, files))
        assert connections() == most
    monkeypatch.setenv("RAY_SERVE_HAPROXY_MAXCONN", "300")
    assert connections() == 300
