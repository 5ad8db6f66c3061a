"""One of many who publish and promote at once: `python -m tests.integration.hammer PLACE NUMBER OPERATIONS SEED`.

Prints what was acknowledged, an object a line. `outcome` compares what all of them say with what is there.
"""

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellnet.errors import ConflictError
from cellnet.registry.blobs import fetch_blob
from cellnet.registry.registry import Registry
from tests.factories import card

ROOT = Path(__file__).parents[2]
NAME, ALIAS, ROLE = "regressor", "champion", "notes.txt"


@dataclass(kw_only=True)
class Outcome:
    """What was acknowledged, and how much of it was found."""

    said: Counter[str]
    versions: int
    moves: int
    wrong: list[str]


def hammer(place: str, number: int, operations: int) -> None:
    """Publish, promote and resolve in a random order of its own."""
    registry, rng, model = Registry.open(place), random.Random(number), card()
    known = [registry.publish(NAME, {ROLE: b"first of %d" % number}, model).number]
    _say(operation="publish", number=known[0], sha256=hashlib.sha256(b"first of %d" % number).hexdigest())
    for turn in range(operations - 1):
        chosen = rng.choices(["publish", "promote", "resolve"], weights=[5, 4, 1])[0]
        if chosen == "publish":
            data = b"%d of %d" % (turn, number)
            known.append(registry.publish(NAME, {ROLE: data}, model).number)
            _say(operation="publish", number=known[-1], sha256=hashlib.sha256(data).hexdigest())
        elif chosen == "promote":
            try:
                move = registry.promote(f"{NAME}@{rng.choice(known)}", ALIAS, reason=f"{turn} of {number}")
                _say(operation="promote", entry=move.entry, number=move.number, reason=move.reason)
            except ConflictError:
                _say(operation="conflict")
        elif registry.pointing(NAME, ALIAS):
            registry.read(registry.resolve(f"{NAME}:{ALIAS}"), ROLE)
            _say(operation="resolve")


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def start(place: str, processes: int, operations: int) -> list[subprocess.Popen[str]]:
    """So many at once."""
    command = [sys.executable, "-m", "tests.integration.hammer", place]
    return [
        subprocess.Popen([*command, str(number), str(operations)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]


def said_by(processes: Sequence[subprocess.Popen[str]], *, killed: bool = False) -> list[dict[str, Any]]:
    """What they acknowledged, when they have ended."""
    said = []
    for process in processes:
        out, _ = process.communicate(timeout=540)
        assert killed or process.returncode == 0
        said += [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    return said


def outcome(registry: Registry, said: list[dict[str, Any]], *, killed: bool = False) -> Outcome:
    """What is there, beside what was acknowledged. Those who were `killed` may have done more than they said."""
    wrong: list[str] = []
    there = {one.version.number: one.version for one in registry.versions(NAME) if one.version}
    if sorted(there) != list(range(1, len(there) + 1)):
        wrong.append("numbers have gaps")
    published = {one["number"]: one["sha256"] for one in said if one["operation"] == "publish"}
    for number, sha256 in published.items():
        if number not in there or there[number].blobs[ROLE].sha256 != sha256:
            wrong.append(f"version {number} is not what was published")
        elif hashlib.sha256(fetch_blob(registry.store, there[number], ROLE)).hexdigest() != sha256:
            wrong.append(f"version {number} cannot be read")
    counts = Counter(one["operation"] for one in said)
    if counts["publish"] != len(published) or (len(there) != len(published) and not killed):
        wrong.append(f"{counts['publish']} published, {len(published)} numbers, {len(there)} versions")
    history = registry.history(NAME, ALIAS)
    if [move.entry for move in history] != list(range(1, len(history) + 1)):
        wrong.append("the history has gaps")
    if [move.previous for move in history[1:]] != [move.number for move in history[:-1]]:
        wrong.append("the history is not one order")
    moves = {(move.entry, move.number, move.reason) for move in history}
    promoted = {(one["entry"], one["number"], one["reason"]) for one in said if one["operation"] == "promote"}
    if promoted - moves or (moves - promoted and not killed):
        wrong.append(f"{len(promoted - moves)} moves lost, {len(moves - promoted)} never acknowledged")
    return Outcome(said=counts, versions=len(there), moves=len(history), wrong=wrong)


if __name__ == "__main__":
    hammer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
