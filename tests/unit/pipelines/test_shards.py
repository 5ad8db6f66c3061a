"""Rows of shards on their way into batches, without Ray."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.shards import Rows, batches


class Table:
    """As a dataset of Ray's gives its rows."""

    def __init__(self, frames: str) -> None:
        self.rows: Rows = {"label": np.arange(len(frames)), "frame": np.array(list(frames), object)}

    def iter_batches(self, *, batch_size: int, **options: object) -> Iterator[Rows]:
        for start in range(0, len(self.rows["label"]), batch_size):
            yield {name: column[start : start + batch_size] for name, column in self.rows.items()}


@pytest.mark.parametrize("seed", [None, 3])
def test_the_network_of_a_fold_sees_the_tiles_of_the_chosen_frames_alone_and_all_of_them(
    monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    monkeypatch.setattr("pipelines.shards.TILES_A_READ", 8)
    monkeypatch.setattr("pipelines.shards.SHUFFLE_TILES", 12)
    frames = "abbbaaccab" * 7
    epoch = list(batches(Table(frames), 4, seed=seed, chosen=lambda frame: frame != "b")(1))  # type: ignore[arg-type]
    assert {len(batch["label"]) for batch in epoch[:-1]} == {4} and all(set(batch) == {"label"} for batch in epoch)
    labels = np.concatenate([batch["label"] for batch in epoch]).tolist()
    assert sorted(labels) == [row for row, frame in enumerate(frames) if frame != "b"]
    assert (labels == sorted(labels)) is (seed is None)
    assert list(batches(Table("bbb"), 4, seed=seed, chosen=lambda frame: frame != "b")(1)) == []  # type: ignore[arg-type]
