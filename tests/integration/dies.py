"""A process that dies at every call to the store in turn: `python -m tests.integration.dies PLACE [EVERY]`.

For each operation and each of its calls (every third, where EVERY is 3) a child is forked, which ends there without any
cleaning up, as by SIGKILL. What readers then see must be the state before the operation or the one after it, and all of
it whole. Prints how many moments of each operation were tried, and what was wrong.
"""

import functools
import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy

from cellnet.registry.blobs import put_blobs
from cellnet.registry.exchange import import_version
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import gc, verify
from cellnet.store.objects import Store
from cellnet.store.place import open_store
from cellnet.store.s3 import S3Store
from cellnet.untrusted import WEIGHTS
from tests.factories import card

METHODS = ("get", "put", "create", "delete", "entries", "folders", "now", "move", "sweep")
DIED, DONE = 9, 0
CARD = card()

Operation = Callable[[Registry, Registry], Any]
OPERATIONS: dict[str, Operation] = {
    "publish": lambda here, there: here.publish("regressor", {WEIGHTS: weights(3), "notes.txt": b"3"}, CARD),
    "first publish": lambda here, there: here.publish("new", {WEIGHTS: weights(3)}, CARD),
    "promote": lambda here, there: here.promote("regressor@1", "champion"),
    "first promote": lambda here, there: here.promote("regressor@1", "challenger"),
    "rollback": lambda here, there: here.rollback("regressor", "champion"),
    "tag": lambda here, there: here.tag("regressor@1", "paper"),
    "gc": lambda here, there: gc(here),
    "import": lambda here, there: import_version(here, there, "regressor@2", name="copied"),
}


def weights(number: int) -> bytes:
    """A safetensors file of its own."""
    data: bytes = safetensors.numpy.save({"w": np.full(4, number, np.float32)})
    return data


@functools.cache
def _client() -> Any:
    return S3Store("s3://lab").client


def opened(place: str) -> Registry:
    """The registry as a new process sees it; this process makes one client for all, since that takes long."""
    store = open_store(place)
    if isinstance(store, S3Store):
        store._client = _client()
    return Registry(store)


def dying(store: Store, at: int) -> Store:
    """The store, in a process that is no more when a call of that number would begin."""
    left = itertools.count()
    for name in METHODS:
        method = getattr(store, name)

        def call(*args: Any, method: Callable[..., Any] = method, **named: Any) -> Any:
            if next(left) == at:
                os._exit(DIED)
            return method(*args, **named)

        setattr(store, name, call)
    return store


def prepared(place: str) -> Registry:
    """Two versions, a champion with a history, a blob that no version names, and one that only the trash has."""
    registry = opened(place)
    for number in (1, 2):
        registry.publish("regressor", {WEIGHTS: weights(number), "notes.txt": b"%d" % number}, CARD)
        registry.promote(f"regressor@{number}", "champion")
    put_blobs(registry.store, "regressor", {"left": b"left"})
    needed = registry.resolve("regressor@1").blobs["notes.txt"].sha256
    registry.store.put(f"regressor/trash/{needed}.1", b"1")
    registry.store.delete(f"regressor/blobs/{needed}")
    return registry


def seen(place: str) -> Any:
    """All that readers see."""
    registry = opened(place)
    held = [(one.ref, [registry.read(one.version, role) for role in one.version.blobs])
            for one in registry.versions() if one.version]  # fmt: skip
    moves = {
        f"{name}:{alias}": [move.number for move in registry.history(name, alias)]
        for name in registry.names()
        for alias in registry.aliases(name)
    }
    return held, moves


def die(operation: Operation, place: str, source: Registry, at: int) -> int:
    """How a child ended that was to die at that call."""
    child = os.fork()
    if not child:
        try:
            operation(Registry(dying(open_store(place), at)), source)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(DONE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tried(name: str, place: str, every: int) -> tuple[int, list[str]]:
    """Moments of an operation, and what was wrong after them."""
    operation, wrong = OPERATIONS[name], []
    source = prepared(f"{place}/{name}/source")
    whole = f"{place}/{name}/whole"
    prepared(whole)
    old = seen(whole)
    operation(opened(whole), source)
    new = seen(whole)
    for moments, at in enumerate(itertools.count(0, every)):
        here = f"{place}/{name}/{at}"
        prepared(here)
        status = die(operation, here, source, at)
        if status not in (DIED, DONE):
            wrong.append(f"{name}, call {at}: ended with {status}")
        found = seen(here)
        if found not in (old, new) or (status == DONE and found != new):
            wrong.append(f"{name}, call {at}: readers see something else")
        problems = [finding.problem for finding in verify(opened(here)) if finding.problem]
        gc(opened(here))
        problems += [finding.problem for finding in verify(opened(here)) if finding.problem]
        wrong += [f"{name}, call {at}: {problem}" for problem in problems]
        if seen(here) == old and name != "rollback":
            operation(opened(here), source)
            if seen(here) != new:
                wrong.append(f"{name}, call {at}: cannot be done again")
        if status != DIED:
            return moments, wrong
    raise AssertionError("unreachable")


if __name__ == "__main__":
    every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    outcome = {name: tried(name, sys.argv[1], every) for name in OPERATIONS}
    points = {name: moments for name, (moments, _) in outcome.items()}
    print(json.dumps({"points": points, "wrong": [line for _, wrong in outcome.values() for line in wrong]}))
