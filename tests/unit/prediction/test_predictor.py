"""Prediction: frames of every size through networks whose answers are known, and weights through the registry."""

import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.certainty.calibration import Calibration
from cellnet.config.train import ModelSpec
from cellnet.errors import DataError, IntegrityError
from cellnet.images.quality import Focus, measure
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS
from tests.factories import discs


class CountBright(nn.Module):
    """Counts the white pixels of a tile."""

    def forward(self, input_B1HW: Tensor) -> Tensor:
        return (input_B1HW * 0.15 + 0.5 > 0.9).sum(dim=(1, 2, 3)).float()


class MoreIsBrighter(nn.Module):
    """Logits of two classes: dark and bright."""

    def forward(self, input_B1HW: Tensor) -> Tensor:
        mean_B = input_B1HW.mean(dim=(1, 2, 3))
        return torch.stack([-mean_B, mean_B], dim=1)


def with_dots(height: int, width: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
    image_HW = np.full((height, width), 50, np.uint8)
    image_HW[rows, columns] = 255
    return image_HW


@pytest.fixture
def counter(card: Callable[..., Card]) -> Callable[..., Predictor]:
    """`counter(pixel_um=0.5)`: a predictor that counts white pixels."""
    return lambda **preprocess: Predictor("regressor@1", card("count", **preprocess), CountBright())


def sharp(card: Card) -> Card:
    """The card with the focus of frames of discs as they are."""
    values = [measure(discs(30, seed=seed, size=(400, 400))[0]).focus or 0 for seed in range(5)]
    return card.model_copy(update={"focus": Focus.of(values)})


def test_an_answer_says_what_the_frame_is_no_use_for(card: Callable[..., Card]) -> None:
    image_HW = discs(30, seed=9, size=(400, 400))[0]
    soft_HW = cv2.GaussianBlur(image_HW, (0, 0), 3)
    known = Predictor("regressor@1", sharp(card("count", pixel_um=0.5)), CountBright())
    lit_HW = np.where(image_HW == 180, image_HW + np.arange(400, dtype=np.uint8) % 64, image_HW).astype(np.uint8)
    assert known.answer(lit_HW).quality == []
    assert "out_of_focus" in known.answer(soft_HW).quality
    assert known.answer(np.where(image_HW > 104, 255, image_HW).astype(np.uint8)).quality == ["saturated"]
    assert known.answer(image_HW).quality == ["empty"], "no pixel is white: it counts none"
    before = Predictor("regressor@1", card("count"), CountBright())
    assert before.answer(soft_HW).quality == ["empty"], "a model of before does not tell"
    named = Predictor("classifier@1", sharp(card("classify", classes=["A", "B"])), MoreIsBrighter())
    assert named.answer(image_HW).quality == [] and named.answer(soft_HW).quality == ["out_of_focus"]
    focus = named.card.focus
    assert focus and named.answer(soft_HW).focus == pytest.approx((measure(soft_HW).focus or 0) / focus.median)
    assert before.answer(soft_HW).focus is None


def test_focus_is_that_of_the_training_frames_magnification(card: Callable[..., Card]) -> None:
    """A frame of twice the detail is shrunk first; of one that had to be enlarged nothing is said."""
    image_HW = discs(30, seed=9, size=(400, 400))[0]
    twice_HW = cv2.resize(image_HW, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    twice_HW = cv2.GaussianBlur(twice_HW, (0, 0), 1.5)
    half_HW = cv2.resize(image_HW, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    named = Predictor("classifier@1", sharp(card("classify", classes=["A", "B"], pixel_um=0.5)), MoreIsBrighter())
    assert named.answer(twice_HW, pixel_um=0.5).quality == ["out_of_focus"]
    assert named.answer(twice_HW, pixel_um=0.25).quality == []
    assert named.answer(cv2.GaussianBlur(twice_HW, (0, 0), 6), pixel_um=0.25).quality == ["out_of_focus"]
    assert named.answer(half_HW, pixel_um=1.0).quality == []
    assert named.answer(cv2.GaussianBlur(half_HW, (0, 0), 6), pixel_um=1.0).quality == []


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path))


def publish(registry: Registry, card: Card, seed: int = 0, name: str = "regressor") -> dict[str, Tensor]:
    """A random network published as the next version, and its weights."""
    torch.manual_seed(seed)
    weights = fresh_network(card.config, len(card.classes), mean_count=9).state_dict()
    registry.publish(name, {WEIGHTS: weights_to_bytes(weights)}, card)
    return weights


@pytest.mark.parametrize(("height", "width", "tiles"), [(200, 200, 1), (400, 600, 6), (2000, 1400, 70)])
def test_the_tiles_of_a_frame_that_divides_add_up_to_its_count(
    counter: Callable, height: int, width: int, tiles: int
) -> None:
    where = np.random.default_rng(0).permutation(height * width)[:137]
    prediction = counter().predict(with_dots(height, width, where // width, where % width))
    assert len(prediction.boxes) == tiles
    assert prediction.count == 137


def test_tiles_are_computed_where_the_network_lies(card: Callable[..., Card]) -> None:
    seen: list[torch.device] = []

    class Elsewhere(nn.Module):
        """Says where its input lies."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, input_B1HW: Tensor) -> Tensor:
            seen.append(input_B1HW.device)
            return torch.zeros(len(input_B1HW))

    assert Predictor("regressor@1", card("count"), Elsewhere()).predict(np.zeros((200, 200), np.uint8)).count == 0
    assert {device.type for device in seen} == {"meta"}


@pytest.mark.parametrize(("height", "width", "tiles"), [(200, 300, 2), (300, 300, 4), (200, 500, 3), (250, 500, 2 * 3)])
def test_overlapping_tiles_count_an_even_field_exactly(counter: Callable, height: int, width: int, tiles: int) -> None:
    """Where cells lie as densely in the overlaps as elsewhere, no cell is counted twice."""
    image_HW = with_dots(height, width, *np.mgrid[0:height:10, 0:width:10].reshape(2, -1))
    prediction = counter().predict(image_HW)
    assert len(prediction.boxes) == tiles
    assert prediction.count == pytest.approx(height * width / 100)


def test_scale_and_offset_are_of_every_tile_so_that_tiles_add_up_and_a_larger_frame_has_more_of_them(
    counter: Callable,
) -> None:
    calibration = Calibration(tiles=9, frames=5, frame_quantile=2, scale=2, offset=0.5, doubt=(0, 0, 1))
    plain = counter()
    fitted = Predictor(plain.ref, plain.card.model_copy(update={"calibration": calibration}), plain.network)
    where = np.random.default_rng(0).permutation(400 * 600)[:137]
    for height, width, tiles in ((400, 600, 6), (600, 600, 9)):
        said = fitted.predict(with_dots(height, width, where // 600, where % 600))
        assert said.count == said.tile_outputs.sum() == 2 * 137 + tiles / 2
        low, high = fitted.interval(said)
        assert high - said.count == pytest.approx(2 * (said.count + 1 + tiles**2) ** 0.5) == said.count - low
    even = fitted.predict(with_dots(300, 300, *np.mgrid[0:300:10, 0:300:10].reshape(2, -1)))
    assert even.count == pytest.approx(2 * 900 + 2.25 / 2)  # it is 2¼ tiles large, and cut into 4


def test_a_single_cell_counts_as_1_on_the_mean_over_where_it_lies(counter: Callable) -> None:
    """In the overlap it is seen twice with ¾ each, outside once."""
    counts = [
        counter().predict(with_dots(200, 300, np.array([50]), np.array([column]))).count for column in range(0, 300, 10)
    ]
    assert counts == [0.75] * 10 + [1.5] * 10 + [0.75] * 10
    assert np.mean(counts) == 1


def test_a_frame_smaller_than_a_tile_is_refused(counter: Callable) -> None:
    with pytest.raises(DataError, match="smaller than the 200×200"):
        counter().predict(np.full((150, 400), 9, np.uint8))


def test_a_tile_of_another_size_is_resized_for_the_network(counter: Callable) -> None:
    image_HW = np.full((100, 300), 50, np.uint8)
    image_HW[:, 100:150] = 255
    prediction = counter(tile_px=(100, 100)).predict(image_HW)
    assert prediction.tile_outputs == pytest.approx([0, 200 * 100, 0], abs=200)


def test_16_bit_frames_are_stretched_by_the_models_rule(counter: Callable) -> None:
    image_HW = np.full((200, 200), 1000, np.uint16)
    image_HW[::20, ::20] = 4000
    rule = {"rule": "range", "low": 1000, "high": 4000}
    assert counter(intensity=rule).predict(image_HW).count == 100


@pytest.mark.parametrize(
    ("frame_um", "side", "magnification", "factor"),
    [
        (1.0, 200, "matched", 1.0),
        (1.01, 200, "matched", 1.0),
        (0.5, 400, "rescaled", 0.5),
        (2.0, 100, "rescaled", 2.0),
        (None, 200, "assumed", 1.0),
    ],
)
def test_a_frame_of_another_magnification_is_rescaled(
    counter: Callable, frame_um: float | None, side: int, magnification: str, factor: float
) -> None:
    image_HW = np.full((side, side), 50, np.uint8)
    image_HW[: side // 2] = 255
    prediction = counter(pixel_um=1.0).predict(image_HW, pixel_um=frame_um)
    assert (prediction.magnification, prediction.factor) == (magnification, factor)
    assert [box[:4] for box in prediction.boxes] == [(0, 0, 200, 200)]
    assert prediction.count == pytest.approx(200 * 100, rel=0.02)


def test_a_model_that_does_not_know_its_pixel_size_assumes_it(counter: Callable) -> None:
    image_HW = with_dots(200, 200, np.array([3]), np.array([4]))
    assert counter().predict(image_HW, pixel_um=7.0).magnification == "assumed"


@pytest.mark.parametrize("frame_um", [0.2, 5.0, 0.0, -1.0, float("nan")])
def test_a_magnification_too_far_off_is_refused(counter: Callable, frame_um: float) -> None:
    with pytest.raises(DataError, match=r"but the network is for 1 µm a pixel, more than 4× apart"):
        counter(pixel_um=1.0).predict(np.full((900, 900), 9, np.uint8), pixel_um=frame_um)


def test_a_frames_probabilities_are_its_tiles_weighted_mean_and_sum_to_1(card: Callable) -> None:
    predictor = Predictor("classifier@1", card("classify", classes=("dark", "bright")), MoreIsBrighter())
    image_HW = np.full((200, 500), 240, np.uint8)
    image_HW[:, 300:] = 10
    prediction = predictor.predict(image_HW)  # tiles from 0, 150 and 300
    left, middle, right = (float(bright) for bright in prediction.tile_outputs[:, 1])
    dark, bright = prediction.probability_K
    assert left > middle > 0.9 > 0.1 > right
    assert dark + bright == pytest.approx(1)
    assert bright == pytest.approx((0.875 * left + 0.75 * middle + 0.875 * right) / 2.5)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "classes"), [("count", ()), ("classify", ("A549", "THP1", "VERO6"))])
def test_published_weights_come_back_bit_for_bit(
    registry: Registry, card: Callable, discs: Callable, task: str, classes: tuple[str, ...]
) -> None:
    made = card(task, classes=classes)
    weights = publish(registry, made)
    loaded = Predictor.load(registry, "regressor@1")
    assert (loaded.ref, loaded.task, loaded.card) == ("regressor@1", task, made)
    state = loaded.network.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    image_HW, _ = discs(12)
    unpublished = predictor_of("candidate", made, weights)
    assert (loaded.predict(image_HW).tile_outputs == unpublished.predict(image_HW).tile_outputs).all()


def test_a_flipped_bit_in_the_weights_is_an_integrity_error(registry: Registry, card: Callable) -> None:
    publish(registry, card())
    (key,) = registry.store.keys("regressor/blobs/")
    data = bytearray(registry.store.get(key))
    data[-5] ^= 1
    registry.store.put(key, bytes(data))
    with pytest.raises(IntegrityError, match="damaged: its sha256"):
        Predictor.load(registry, "regressor@1")


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_in_place_of_weights_is_refused_and_never_unpickled(
    registry: Registry, card: Callable, tmp_path: Path, save: Callable
) -> None:
    with (tmp_path / "weights").open("wb") as file:
        save(Bomb(tmp_path / "exploded"), file)
    registry.publish("regressor", {WEIGHTS: (tmp_path / "weights").read_bytes()}, card())
    with pytest.raises(IntegrityError, match=r"weights.safetensors of regressor@1 is a (pickle|zip archive).*, not"):
        Predictor.load(registry, "regressor@1")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (b"", "weights.safetensors of regressor@1 is damaged, not safetensors"),
        (b"\xff" * 64, "weights.safetensors of regressor@1 is damaged, not safetensors"),
        (safetensors.torch.save({}), "do not fit its architecture: .* is missing"),
        (safetensors.torch.save({"out.weight": torch.zeros(3)}), "do not fit its architecture: "),
        (safetensors.torch.save({"out.weight": torch.zeros(3)}).replace(b'"F32"', b'"F99"'), "is damaged"),
    ],
    ids=["empty", "noise", "no tensors", "another network's", "an unknown type"],
)
def test_weights_that_do_not_fit_are_an_integrity_error_in_one_line(
    registry: Registry, card: Callable, weights: bytes, why: str
) -> None:
    registry.publish("regressor", {WEIGHTS: weights}, card())
    with pytest.raises(IntegrityError, match=why) as caught:
        Predictor.load(registry, "regressor@1")
    assert "\n" not in str(caught.value)


def test_weights_of_another_type_do_not_fit(card: Callable) -> None:
    weights = fresh_network(card().config, 0).state_dict()
    weights["out.bias"] = weights["out.bias"].double()
    with pytest.raises(IntegrityError, match=r"out.bias is torch.float64 of 1, not torch.float32 of 1"):
        predictor_of("x@1", card(), weights)


def test_a_card_that_claims_a_gigantic_network_takes_no_memory_before_it_is_refused(card: Callable) -> None:
    """Its network has 2.7 billion weights."""
    made = card()
    model = ModelSpec(architecture="residual", width=512, depth=5)
    claiming = made.model_copy(update={"config": made.config.model_copy(update={"model": model})})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError, match=r"body.0.0.weight is torch.float32 of 4×1×5×5, not .* of 512×1×5×5"):
        predictor_of("x@1", claiming, fresh_network(made.config, 0).state_dict())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(("views", "same"), [(8, True), ("auto", True), (1, False)])
def test_a_counter_of_eight_views_counts_the_same_however_a_frame_is_turned(
    card: Callable[..., Card], views: object, same: bool
) -> None:
    asked = card("count")
    config = asked.config.model_copy(update={"model": asked.config.model.model_copy(update={"views": views})})
    torch.manual_seed(0)
    network = fresh_network(config, 0, mean_count=9)
    torch.nn.init.normal_(network.out.weight)
    predictor = Predictor("regressor@1", asked.model_copy(update={"config": config}), network)
    frame_HW = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    counts = [predictor.predict(turned_HW).count for turned_HW in (frame_HW, np.rot90(frame_HW), frame_HW[:, ::-1])]
    assert (counts == pytest.approx([counts[0]] * 3, rel=1e-5)) is same
