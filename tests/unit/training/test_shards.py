"""Shards as files: a plan says how many rows there will be, and what was written says so too."""

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import cellnet.training.shards
from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.bank.parts import State
from cellnet.config.bank import BankSettings
from cellnet.config.train import Augment, TrainConfig
from cellnet.errors import NotFoundError
from cellnet.store.place import open_store
from cellnet.training.plan import Plan, make_plan
from cellnet.training.shards import (
    SCHEMA,
    Shards,
    drafts_of,
    key_of,
    read_record,
    shards_of,
    write_file,
    write_record,
)
from tests.factories import frame


def bank_of(folder: Path) -> Bank:
    """Frames of two lineages, of one tile and of several, at two magnifications, one without a count."""
    store = open_store(folder)
    rng = np.random.default_rng(0)
    frames = []
    for number, (height, width, pixel_um) in enumerate([(60, 60, 0.5), (130, 190, 0.5), (100, 61, 0.4), (60, 90, 0.7)]):
        for lineage in ("A549", "THP1"):
            for split in ("train", "test", "holdout"):
                name = f"{len(frames) + 1:02x}" * 32
                pixels_HW = rng.integers(0, 256, (height, width), np.uint8)
                store.put(f"pixels/{name}.png", cv2.imencode(".png", pixels_HW)[1].tobytes())
                size = {"height": height, "width": width, "pixel_um": pixel_um}
                count = {"centres": [[9.0, 9.0], [50.0, 30.0]], "count": 2.0} if number else {"count": 3.0}
                labels = {"lineage": lineage, "split": split, "group": name}
                frames.append(Frame(frame=name, source=name, **size, **count, **labels))  # type: ignore[arg-type]
    frames[0] = dataclasses.replace(frames[0], count=None)
    return Bank(store, BankSettings(), State(before=Frames.of(frames)))


def written(bank: Bank, plan: Plan, folder: str = "shards/here") -> Shards:
    """The shards of a plan, written without Ray."""
    drafts = drafts_of(plan, bank.frames, folder)
    for draft in drafts:
        Path(bank.store.uri, draft.path).parent.mkdir(parents=True, exist_ok=True)
    tiles = sum(write_file(draft, plan, bank.store) for draft in drafts)
    shards = shards_of(plan, drafts, bank.store, folder)
    assert tiles == sum(shards.rows.values())
    return shards


def rows_of(bank: Bank, shards: Shards) -> list[str]:
    files = sorted(Path(bank.store.uri, shards.folder).rglob("*.parquet"))
    return [repr(row) for file in files for row in pq.read_table(file).to_pylist()]


def test_which_frames_lie_in_which_file_stays_as_it_is(tmp_path: Path) -> None:
    """So that a training of the same seed sees them in the same order."""
    frames = [
        frame(
            n, group=f"well {n // 3}", count=5.0, split=("train", "train", "test")[n // 3 % 3], height=200 + n % 3 * 200
        )
        for n in range(300)
    ]
    bank = Bank(open_store(tmp_path), BankSettings(), State(before=Frames.of(frames)))
    drafts = drafts_of(make_plan(bank, TrainConfig(task="count", folds=0, tile=200)), bank.frames, "here")
    assert [draft.path for draft in drafts][-2:] == ["here/test/00000080.parquet", "here/test/00000096.parquet"]
    names = "".join(one.frame for draft in drafts for one in draft.frames)
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "e99818ea6a06730d"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grouped", "paper"])
@pytest.mark.parametrize(
    ("task", "augment"),
    [
        ("count", {}),
        ("count", {"shares": (1.0, 0.5), "shifts": 2, "orientation": "stored"}),
        ("classify", {}),
        ("classify", {"shares": (0.3,), "shifts": 1}),
    ],
)
def test_a_plan_knows_exactly_how_many_rows_are_written(
    tmp_path: Path, task: str, augment: dict[str, object], protocol: str
) -> None:
    bank = bank_of(tmp_path)
    plan = make_plan(bank, TrainConfig(task=task, folds=0, augment=Augment(**augment), tile=60, protocol=protocol))
    shards = written(bank, plan)
    assert shards.rows == {split: planned.rows for split, planned in plan.splits.items()}
    assert set(shards.rows) == ({"train", "test", "holdout"} if protocol == "paper" else {"train", "test"})
    assert shards.rows["train"] > len(plan.splits["train"].frames), "frames of several tiles"
    assert sum(shards.class_tiles) == (shards.rows["train"] if task == "classify" else 0)
    assert len(rows_of(bank, shards)) == sum(shards.rows.values())


def test_rows_are_in_the_same_order_in_files_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_of(tmp_path)
    plan = make_plan(bank, TrainConfig(task="classify", folds=0, tile=60, augment=Augment(shifts=1)))
    few = written(bank, plan, "shards/few")
    monkeypatch.setattr(cellnet.training.shards, "TILES_A_FILE", 10)
    many = written(bank, plan, "shards/many")
    assert rows_of(bank, few) == rows_of(bank, many)
    files = [len(list(Path(bank.store.uri, shards.folder, "train").iterdir())) for shards in (few, many)]
    assert files[0] == 1 < files[1]


def test_shards_are_found_by_what_shapes_a_tile_and_by_nothing_else(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)

    def key(**changes: object) -> str:
        plan = make_plan(bank, TrainConfig(**({"task": "count", "folds": 0, "tile": 60} | changes)))
        return key_of(plan, bank.frames)

    same = key()
    assert {
        key(kernel="edge"),
        key(epochs=3),
        key(learning_rate=0.1),
        key(augment={"jitter": 0}),
        key(greys="bank"),
    } == {same}
    others = [key(task="classify"), key(seed=1), key(tile=50), key(lineage="A549"), key(augment={"shifts": 2})]
    others += [key(protocol="paper"), key(protocol="paper", kernel="edge"), key(greys="background")]
    assert len({same, *others}) == 1 + len(others)


def test_the_record_of_shards_comes_back_wherever_the_bank_lies_now(tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank")
    with pytest.raises(NotFoundError):
        read_record(bank.store, "abc")
    shards = written(bank, make_plan(bank, TrainConfig(task="classify", folds=0, tile=60)))
    write_record(shards, "abc")
    (tmp_path / "bank").rename(tmp_path / "moved")
    moved = open_store(tmp_path / "moved")
    assert read_record(moved, "abc") == shards.model_copy(update={"store": moved, "fresh": False})
    assert b"bank" not in moved.get("shards/abc.json")
    assert SCHEMA.names[:4] == ["pixels", "label", "count", "cells"]


def test_a_person_is_told_of_shards_in_one_line(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    plan = dataclasses.replace(make_plan(bank, TrainConfig(task="count", folds=0, tile=60, lineage="A549")), left_out=0)
    shards = Shards(store=bank.store, folder="", rows={"train": 7, "test": 2}, class_tiles=[], mean_count=1, fresh=True)
    assert shards.describe(plan) == "shards made: 7 training tiles of 60×60 px of A549 alone, 2 test tiles"
    alone = shards.model_copy(update={"rows": {"train": 7, "test": 0}, "fresh": False})
    left_out = dataclasses.replace(plan, left_out=3, config=plan.config.model_copy(update={"lineage": None}))
    assert alone.describe(left_out) == (
        "shards found: 7 training tiles of 60×60 px, no test split, so the last epoch is taken; "
        "3 frames too small or of another magnification are left out"
    )
