"""All that the service is made of, without Ray and without networks."""

import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from cellnet.prediction.model import FrameModel
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from serve.answering import Answerer, Challenge
from serve.api import make_api
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Shelf
from tests.factories import Known


class Kitchen:
    """A service over the `Known` models of a registry, to look into."""

    def __init__(
        self,
        registry: Registry,
        *,
        limits: Limits | None = None,
        challenge: Challenge = 0.0,
        wait: Callable[[], None] = lambda: None,
        **api: Any,
    ) -> None:
        self.registry = registry
        self.wait = wait
        self.meters = Meters()
        self.spoiled: dict[str, Exception] = {}
        """By version, what loading it comes to."""
        self.loaded: list[str] = []
        self.shelf = Shelf(registry, self.load, challenge=challenge != 0, meters=self.meters)
        self.answerer = Answerer(self.shelf, limits or Limits(), self.meters, challenge)
        self.api: FastAPI = make_api(self.answerer, **api)

    def load(self, version: ModelVersion) -> FrameModel:
        self.loaded.append(version.ref)
        if version.ref in self.spoiled:
            raise self.spoiled[version.ref]
        return Known(version, lambda: self.wait())

    def figure(self, name: str, /, **labels: str) -> float | None:
        """What the meters say."""
        return self.meters.registry.get_sample_value(name, labels)


class Held:
    """A wait that lasts until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> None:
        self.inside.release()
        assert self.go.wait(20)


def client(kitchen: Kitchen) -> TestClient:
    """Of the service; a fault of it is an answer, as over a network, and raises nothing here."""
    return TestClient(kitchen.api, raise_server_exceptions=False)
