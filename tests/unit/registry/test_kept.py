"""The answers that a version keeps: they come back as they were, and nothing else is taken for them."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellnet.errors import IntegrityError
from cellnet.images.tiles import Box, cut
from cellnet.registry.exchange import check_content
from cellnet.registry.kept import KeptAnswer, answers_from_parquet, answers_to_parquet
from cellnet.registry.records import ANSWERS, Card


def answer(number: int, *, classes: int = 0, tiles: int = 3) -> KeptAnswer:
    rng = np.random.default_rng(number)
    output = rng.dirichlet(np.ones(classes), tiles) if classes else rng.uniform(0, 9, tiles)
    return KeptAnswer(
        frame=f"{number:064x}",
        fold=number % 5 + 1,
        boxes=cut(200, 200 * tiles, (200, 200)),
        truth_N=np.full(tiles, number % classes, np.float64) if classes else rng.uniform(0, 9, tiles),
        tile_outputs=output.astype(np.float32),
        distance_N=None if number == 2 else rng.uniform(0, 9, tiles),
    )


@pytest.fixture
def counter(card: Callable[..., Card]) -> Card:
    return card("count")


@pytest.mark.parametrize("classes", [(), ("A549", "THP1", "3T3")])
def test_answers_come_back_as_they_were(card: Callable[..., Card], classes: tuple[str, ...]) -> None:
    kept = [answer(number, classes=len(classes), tiles=number + 1) for number in range(4)]
    kept[0] = replace(kept[0], boxes=[Box(0, 10, 190, 200, 0.25)])
    of = card("classify" if classes else "count", classes=classes)
    read = answers_from_parquet(answers_to_parquet(kept), of, "m@1")
    for one, other in zip(read, kept, strict=True):
        assert (one.frame, one.fold, one.boxes) == (other.frame, other.fold, other.boxes)
        np.testing.assert_array_equal(one.truth_N, other.truth_N)
        np.testing.assert_array_equal(one.tile_outputs, other.tile_outputs)
        assert one.tile_outputs.dtype == np.float32
        assert (one.distance_N is None) == (other.distance_N is None)
        if one.distance_N is not None:
            np.testing.assert_array_equal(one.distance_N, other.distance_N)


def test_a_tile_whose_count_is_not_known_is_kept_so(counter: Card) -> None:
    unknown = replace(answer(1), truth_N=np.array([1.0, np.nan, 2.0]))
    [read] = answers_from_parquet(answers_to_parquet([unknown]), counter, f"{ANSWERS} of m@1")
    assert np.isnan(read.truth_N).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("frame", "0" * 63, "a frame is named by no sha256"),
        ("frame", "../../etc/passwd", "a frame is named by no sha256"),
        ("fold", 0, "folds are numbered from 1"),
        ("top", -1, "tiles lie nowhere"),
        ("bottom", 0, "tiles lie nowhere"),
        ("weight", 1.5, "weights are not within 0 to 1"),
        ("truth", -2.0, "truths are no lineages or counts"),
        ("output", [float("nan")], "outputs are no probabilities or counts"),
        ("output", [-1.0], "outputs are no probabilities or counts"),
        ("output", [1.0, 2.0], "outputs"),
        ("distance", float("inf"), "distances are negative"),
        ("fold", None, "values are missing"),
    ],
)
def test_values_that_cannot_be_are_refused_in_a_line(counter: Card, column: str, value: object, said: str) -> None:
    table = pq.read_table(io.BytesIO(answers_to_parquet([answer(1)])))
    rows = table.to_pylist()
    for row in rows if column == "frame" else rows[:1]:
        row[column] = value
    with pytest.raises(IntegrityError, match=rf"^{ANSWERS} of m@1 is not one: .*{said}"):
        answers_from_parquet(file_of(pa.Table.from_pylist(rows, schema=table.schema)), counter, f"{ANSWERS} of m@1")


def test_probabilities_that_do_not_fit_the_card_are_refused(card: Callable[..., Card], counter: Card) -> None:
    two = card("classify", classes=("A549", "THP1"))
    data = answers_to_parquet([answer(1, classes=2)])
    answers_from_parquet(data, two, "m@1")
    for of in (card("classify", classes=("A549", "THP1", "3T3")), counter):
        with pytest.raises(IntegrityError, match="is not one"):
            answers_from_parquet(data, of, "m@1")
    off = replace(answer(1, classes=2), tile_outputs=np.full((3, 2), 0.9, np.float32))
    with pytest.raises(IntegrityError, match="probabilities do not add up to 1"):
        answers_from_parquet(answers_to_parquet([off]), two, "m@1")


def test_a_frame_whose_tiles_are_apart_is_refused(counter: Card) -> None:
    data = answers_to_parquet([answer(1), answer(2), answer(1)])
    with pytest.raises(IntegrityError, match="the tiles of a frame are not together"):
        answers_from_parquet(data, counter, f"{ANSWERS} of m@1")


def test_what_is_no_such_table_is_refused(counter: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    data = answers_to_parquet([answer(1)])
    table = pq.read_table(io.BytesIO(data))
    other = file_of(table.append_column("more", pa.array([1, 2, 3])))
    later = file_of(table.replace_schema_metadata({"format": "2"}))
    for damaged in (b"", b"text", data[:-9], data[:200] + b"\xff" * 40 + data[240:], other, later):
        with pytest.raises(IntegrityError, match=rf"^{ANSWERS} of m@1 is not one: ") as refusal:
            answers_from_parquet(damaged, counter, f"{ANSWERS} of m@1")
        assert "\n" not in str(refusal.value)
    monkeypatch.setattr("cellnet.registry.kept.MOST", 2)
    with pytest.raises(IntegrityError, match=r"it claims 3 tiles of .* bytes; at most 2 are read"):
        check_content(ANSWERS, data, counter, "m@1")


def file_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
