"""The flag: what is like the training tiles and what is not, and blobs that are not what they say."""

import itertools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import safetensors.numpy
import torch

from cellnet.certainty.familiarity import (
    FAMILIARITY,
    SCALES_PX,
    Familiarity,
    distances_between,
    fit_familiarity,
    grey_features,
    with_plate,
)
from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.config.train import ModelSpec
from cellnet.errors import IntegrityError
from cellnet.networks.architectures import ARCHITECTURES, create
from cellnet.networks.views import watched
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS


def features(frames: int, seed: int, tiles: int = 4, shift: float = 0.0) -> list[np.ndarray]:
    """Tiles of frames, normal about 0 or about `shift`, in features of very different spread."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(shift, 1, (tiles, 6)) * 10.0 ** np.arange(6)).astype(np.float32) for _ in range(frames)]


def flagged(known: Familiarity, frames: list[np.ndarray]) -> float:
    return float(np.mean([np.median(known.strangeness(frame)) > 1 for frame in frames]))


@pytest.mark.slow
def test_one_in_twenty_familiar_frames_is_flagged_and_every_strange_one() -> None:
    known = fit_familiarity(features(200, seed=0), features(200, seed=1))
    assert flagged(known, features(1000, seed=2)) == pytest.approx(0.05, abs=0.03)
    assert flagged(known, features(100, seed=3, shift=4)) == 1


def test_few_frames_give_a_threshold_that_is_not_stricter_than_promised() -> None:
    known = fit_familiarity(features(9, seed=0, tiles=25), features(4, seed=1, tiles=25))
    assert flagged(known, features(200, seed=2, tiles=25)) <= 0.05
    assert flagged(known, features(50, seed=3, tiles=25, shift=4)) == 1


def test_without_test_frames_the_training_frames_set_the_threshold() -> None:
    known = fit_familiarity(features(30, seed=0), [])
    assert flagged(known, features(100, seed=1)) < 0.25
    assert flagged(known, features(50, seed=3, shift=5)) == 1


def test_distances_to_what_other_networks_learned_from_set_the_threshold() -> None:
    """Of cross-validation: each network sees the same frames in features of its own."""
    frames, apart = features(200, seed=0), []
    for fold in range(5):
        seen = [frame * np.float32(10.0**fold) for frame in frames]
        learned = [frame for number, frame in enumerate(seen) if number % 5 != fold]
        apart += distances_between(learned, seen[fold::5])
    known = fit_familiarity(frames, [], apart=apart)
    assert flagged(known, features(1000, seed=2)) == pytest.approx(0.05, abs=0.03)
    assert flagged(known, features(100, seed=3, shift=4)) == 1


def shifted(frames: list[np.ndarray], *shift: float) -> list[np.ndarray]:
    """The same frames, each of some features elsewhere, in their standard deviations."""
    away_D = np.zeros(6)
    away_D[: len(shift)] = shift
    return [(frame + away_D * 10.0 ** np.arange(6)).astype(np.float32) for frame in frames]


def test_a_plate_becomes_familiar_by_five_frames_of_it_and_what_is_strange_otherwise_stays_so() -> None:
    known = fit_familiarity(features(200, seed=0), features(200, seed=1))
    plate = shifted(features(105, seed=2), 8, -8)
    assert flagged(known, plate) == 1
    also = with_plate(known, plate[:5])
    assert flagged(also, plate[5:]) <= 0.1 and flagged(also, features(200, seed=3)) <= 0.1
    assert flagged(also, shifted(features(50, seed=4), 0, 0, 8)) == 1
    assert flagged(also, shifted(plate, 0, 0, 0, 8)) == 1
    assert flagged(also, shifted(features(50, seed=4), -8, -8)) == 1
    assert flagged(also, shifted(features(50, seed=4), 40, -40)) == 1


def test_frames_that_differ_more_among_each_other_than_those_of_the_training_move_the_threshold() -> None:
    known = fit_familiarity(features(200, seed=0), features(200, seed=1))
    rng = np.random.default_rng(5)
    plate = [frame * np.float32(3) for frame in shifted(features(105, seed=2), 8)]
    plate = [shifted([frame], *rng.normal(0, 3, 6))[0] for frame in plate]
    also = with_plate(known, plate[:5])
    assert also.threshold > known.threshold and flagged(also, plate[5:]) <= 0.3 < flagged(known, plate[5:])
    assert with_plate(known, features(5, seed=6)).threshold == pytest.approx(known.threshold, rel=0.05)


def test_what_a_plate_adds_is_the_inverse_of_the_covariance_of_both() -> None:
    known = fit_familiarity(features(200, seed=0), [])
    plate = shifted(features(3, seed=2), 8)
    mean_MD = np.stack([known.mean_D, *(frame.mean(0) for frame in plate)])
    between_DD = np.cov(mean_MD.T, aweights=[3, 1, 1, 1], ddof=0)
    both_DD = np.linalg.inv(known.precision_DD.astype(np.float64)) + between_DD
    also = with_plate(known, plate)
    unit_DD = np.outer(10.0 ** np.arange(6), 10.0 ** np.arange(6))
    assert also.precision_DD * unit_DD == pytest.approx(np.linalg.inv(both_DD) * unit_DD, abs=1e-3)
    assert also.mean_D == pytest.approx(np.average(mean_MD, axis=0, weights=[3, 1, 1, 1]), rel=1e-4)


def blurred_one_by_one(tile_HW: np.ndarray) -> list[float]:
    """The structure of a tile the slow way."""
    grey_HW = tile_HW.astype(np.float32) / 255
    blurred = [grey_HW, *(cv2.GaussianBlur(grey_HW, (0, 0), scale) for scale in SCALES_PX)]
    return [float(np.log(np.std(fine - coarse) + 1e-3)) for fine, coarse in itertools.pairwise(blurred)]


@pytest.mark.parametrize("kind", ["noise", "ramp", "blank", "one bright pixel", "corner"])
def test_structure_is_what_blurring_at_every_scale_would_say(kind: str) -> None:
    tile_HW = np.full((200, 200), 7, np.uint8)
    if kind == "noise":
        tile_HW = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    elif kind == "ramp":
        tile_HW = np.repeat(np.arange(200, dtype=np.uint8)[:, None], 200, 1)
    elif kind != "blank":
        tile_HW[(0, 0) if kind == "corner" else (70, 150)] = 255
    [features_G] = grey_features([tile_HW])
    assert features_G[:5] == pytest.approx(np.quantile(tile_HW / 255, (0.05, 0.25, 0.5, 0.75, 0.95)), abs=1e-6)
    assert features_G[6:] == pytest.approx(blurred_one_by_one(tile_HW), abs=1e-4)


def test_it_survives_its_blob() -> None:
    known = fit_familiarity(features(20, seed=0), [])
    again = Familiarity.from_bytes(known.to_bytes(), "x@1")
    assert again.strangeness(features(1, seed=1)[0]) == pytest.approx(known.strangeness(features(1, seed=1)[0]), 1e-3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",
        safetensors.numpy.save({"mean": np.zeros(3, np.float32)}),
        safetensors.numpy.save(
            {"mean": np.zeros(3), "precision": np.eye(2), "threshold": np.ones(1)},
        ),
        safetensors.numpy.save({"mean": np.zeros(2), "precision": np.eye(2), "threshold": np.zeros(1)}),
        safetensors.numpy.save({"mean": np.zeros(2), "precision": np.eye(2) * np.nan, "threshold": np.ones(1)}),
        safetensors.numpy.save(
            {"mean": np.zeros(5000), "precision": np.zeros((5000, 5000), np.int8), "threshold": np.ones(1)}
        ),
    ],
    ids=["empty", "pickle", "a part", "shapes", "threshold 0", "not numbers", "too large"],
)
def test_a_blob_that_is_not_one_is_an_integrity_error_in_one_line(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=f"{FAMILIARITY} of x@1") as caught:
        Familiarity.from_bytes(data, "x@1")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_what_the_last_layer_sees_is_a_vector_a_tile_in_every_architecture(architecture: str) -> None:
    task = "count" if architecture == "density" else "classify"
    small = {} if architecture in FIXED_ARCHITECTURES else {"width": 4, "depth": 2}
    network = create(ModelSpec(architecture=architecture, **small), task, classes=3).eval()
    with watched(network) as seen, torch.no_grad():
        network(torch.zeros(2, 1, 200, 200))
    network(torch.zeros(2, 1, 200, 200))
    assert len(seen) == 1 and seen[0].shape[0] == 2 and seen[0].ndim == 2


def test_grey_features_do_not_depend_on_how_a_tile_is_turned() -> None:
    tile_HW = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    turned = grey_features([tile_HW, np.rot90(tile_HW), tile_HW[::-1]])
    assert turned[1] == pytest.approx(turned[0], abs=1e-3) and turned[2] == pytest.approx(turned[0], abs=1e-3)
    assert np.isfinite(grey_features([np.zeros((200, 200), np.uint8)])).all()


@pytest.fixture
def published(tmp_path: object, card: Callable[..., Card], discs: Callable) -> tuple[Registry, list[np.ndarray]]:
    """A random counter that knows frames of discs, published without and with its familiarity; and such frames."""
    registry = Registry.open(str(tmp_path))
    torch.manual_seed(0)
    made = card("count")
    weights = weights_to_bytes(fresh_network(made.config, 0).state_dict())
    registry.publish("regressor", {WEIGHTS: weights}, made)
    network = Predictor.load(registry, "regressor@1")
    frames = [discs(12 + seed % 20, seed=seed)[0] for seed in range(90)]
    seen = [network.predict(frame, with_features=True).features_ND for frame in frames]
    known = fit_familiarity(seen[:50], seen[50:80])
    registry.publish("regressor", {WEIGHTS: weights, FAMILIARITY: known.to_bytes()}, made)
    return registry, frames[80:]


@pytest.mark.slow
def test_a_blank_frame_is_flagged_with_its_reason_and_known_frames_are_not(
    published: tuple[Registry, list[np.ndarray]],
) -> None:
    registry, frames = published
    predictor = Predictor.load(registry, "regressor@2")
    blank = predictor.answer(np.full((200, 200), 128, np.uint8))
    assert blank.unfamiliar is True and "times as far from the training images" in str(blank.unfamiliar_reason)
    answers = [predictor.answer(frame) for frame in frames]
    assert sum(answer.unfamiliar is True for answer in answers) <= 1
    assert answers[0].unfamiliar_reason is None or answers[0].unfamiliar


@pytest.mark.slow
def test_a_model_of_before_answers_without_flag_and_interval(published: tuple[Registry, list[np.ndarray]]) -> None:
    registry, frames = published
    old, new = (Predictor.load(registry, f"regressor@{number}").answer(frames[0]) for number in (1, 2))
    assert (old.unfamiliar, old.unfamiliar_reason, old.count_low, old.interval_level) == (None, None, None, None)
    assert old.count == pytest.approx(new.count)
