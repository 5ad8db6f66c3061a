"""What a training is told of its frames, in one number: the same where nothing that it learns from changed.

A bank's digest is of all frames and all that is said of them. Here only the frames take part that a plan takes, and of
these what its task learns: a corrected count makes nothing of a classifier anew, nor a label in the holdout.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from cellnet.bank.frames import Frame
from cellnet.training.plan import Plan


def truths_of(plan: Plan, frames: Iterable[Frame]) -> str:
    """sha256 over a plan's frames among the bank's, what is true of each for the task, and their sides; in no order."""
    sides = {split: set(planned.frames) for split, planned in plan.splits.items()}
    digest = hashlib.sha256()
    among = plan.among(frames)
    for frame in among.each(pc.sort_indices(among.column("frame"))):
        its_sides = [split for split, names in sides.items() if frame.frame in names]
        told: list[Any] = [frame.frame, frame.pixel_um, its_sides]
        told += [frame.lineage] if plan.classes or plan.paper else []
        told += [] if plan.classes else [frame.count, frame.centres]
        digest.update(json.dumps(told).encode() + b"\n")
    return digest.hexdigest()


def whole_of(plan: Plan, frames: Iterable[Frame]) -> str:
    """Likewise with the classes and what each network of a cross-validation learns from: what a run is known by."""
    folds = {fold: sorted(held) for fold, held in plan.held_back.items()}
    paper = asdict(plan.paper) | {"filtered": sorted(plan.paper.filtered)} if plan.paper else None
    planned = [truths_of(plan, frames), plan.classes, folds, paper, plan.preprocess.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(planned).encode()).hexdigest()
