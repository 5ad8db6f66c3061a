"""Training in memory: networks that learn what they are shown, and say so when they do not."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellnet.config.train import ModelSpec, Preprocess, TrainConfig
from cellnet.errors import DataError
from cellnet.networks.weights import fresh_network
from cellnet.tasks import TASKS
from cellnet.training.fit import begun, evenly, fit, outputs_of, uses_bf16, uses_compile
from cellnet.training.losses import criterion_of
from cellnet.training.state import Epoch, TrainState, best_epoch, is_better, is_over
from cellnet.training.tiles import Batch
from tests.factories import in_memory

PREPROCESS = Preprocess(tile_px=(200, 200))


def counted(discs: Callable, seeds: range) -> Batch:
    """A tile a seed, of 0 to 24 discs."""
    counts = np.random.default_rng(seeds.start).integers(0, 25, len(seeds))
    pixels = [discs(int(count), seed=seed)[0] for count, seed in zip(counts, seeds, strict=True)]
    return Batch(pixels=np.stack(pixels), label=np.zeros(len(seeds), np.int64), count=counts.astype(np.float32))


def discs_and_stripes(discs: Callable, seeds: range) -> Batch:
    """Tiles of discs (0) and of stripes (1), with the same grey values."""
    label = np.array([seed % 2 for seed in seeds])
    pixels = []
    for seed, is_striped in zip(seeds, label, strict=True):
        if is_striped:
            rng = np.random.default_rng(seed)
            wave_W = np.sin(np.arange(200) / 3 + rng.uniform(0, 6)) > 0.8
            pixels.append(np.clip(rng.normal(100, 4, (200, 200)) + 80 * wave_W, 0, 255).astype(np.uint8))
        else:
            pixels.append(discs(20, seed=seed)[0])
    return Batch(pixels=np.stack(pixels), label=label, count=np.full(len(label), np.nan, np.float32))


def trained(
    train: Batch,
    test: Batch | None = None,
    *,
    batch_size: int = 4,
    classes: int = 2,
    state: TrainState | None = None,
    spoil: Callable[[nn.Module], object] = lambda network: None,
    **choices: object,
) -> tuple[nn.Module, list[Epoch], list[dict[str, Tensor]], list[TrainState]]:
    """A tiny network trained on the batch, with what was reported of every epoch."""
    model = ModelSpec(width=4, depth=3, dropout=0)
    config = TrainConfig(
        **({"task": "count", "model": model, "learning_rate": 1e-2, "epochs": 2, "batch_size": batch_size} | choices)
    )
    torch.manual_seed(config.seed)
    network = fresh_network(config, classes, mean_count=float(np.nan_to_num(train["count"]).mean()))
    spoil(network)
    states: list[TrainState] = []
    fit(
        network,
        config,
        PREPROCESS,
        criterion=criterion_of(config),
        train_batches=in_memory(train, batch_size, seed=config.seed),
        test_batches=None if test is None else lambda: [test],
        tiles=len(train["label"]),
        on_epoch=states.append,
        state=state,
    )
    return network, list(states[-1].history), [state.weights for state in states], states


@pytest.mark.slow
def test_a_counter_learns_to_count_discs(discs: Callable) -> None:
    train, test = counted(discs, range(24)), counted(discs, range(100, 112))
    network, epochs, *_ = trained(train, test, epochs=12)
    always_the_mean = np.abs(test["count"] - train["count"].mean()).mean()
    assert epochs[-1].test["mae"] < always_the_mean / 2
    assert [epoch.number for epoch in epochs] == list(range(1, 13))
    assert {epoch.tiles for epoch in epochs} == {24}
    twelve = Batch(pixels=discs(12, seed=7)[0][None], label=np.zeros(1, np.int64), count=np.float32([12]))
    truth, output = outputs_of(network, "count", PREPROCESS, [twelve])
    assert truth.tolist() == [12] and abs(float(output[0]) - 12) < 4


@pytest.mark.slow
def test_a_classifier_learns_to_tell_discs_from_stripes(discs: Callable) -> None:
    train, test = discs_and_stripes(discs, range(16)), discs_and_stripes(discs, range(100, 116))
    _, epochs, *_ = trained(train, test, task="classify", epochs=5)
    assert epochs[-1].test == {"accuracy": 1.0, "balanced_accuracy": 1.0}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(discs: Callable) -> None:
    train = counted(discs, range(8))
    first, same, other = (trained(train, seed=seed)[2] for seed in (3, 3, 4))
    assert all(torch.equal(value, same[-1][name]) for name, value in first[-1].items())
    assert not torch.equal(first[-1]["out.weight"], other[-1]["out.weight"])


def test_the_weights_of_an_epoch_are_a_copy_that_later_epochs_leave_alone(discs: Callable) -> None:
    _, _, weights, _ = trained(counted(discs, range(4)))
    assert not torch.equal(weights[0]["out.weight"], weights[1]["out.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["count", "classify"])
@pytest.mark.parametrize("batch_size", [2, 8], ids=["within an epoch", "at its end"])
def test_a_training_that_diverges_says_to_lower_the_rate(discs: Callable, task: str, batch_size: int) -> None:
    batch = counted(discs, range(8))
    with pytest.raises(DataError, match=r"training diverged; lower the rate, for example --set learning_rate="):
        trained(batch, batch, task=task, batch_size=batch_size, learning_rate=1e30)


def test_without_a_test_split_an_epoch_has_no_scores(discs: Callable) -> None:
    assert trained(counted(discs, range(4)), epochs=1)[1][0].test == {}


def test_more_accuracy_is_better_and_more_error_is_not() -> None:
    assert is_better("classify", 0.9, 0.8) and not is_better("classify", 0.8, 0.8)
    assert is_better("count", 1.0, 2.0) and not is_better("count", 2.0, 1.0)
    assert is_better("count", 9.0, None)
    assert set(TASKS) == {"classify", "count"}


def test_a_training_goes_on_from_a_state_as_if_it_had_never_stopped(discs: Callable) -> None:
    train, test = counted(discs, range(10)), counted(discs, range(100, 104))
    choices = {"epochs": 4, "model": ModelSpec(width=4, depth=2, dropout=0.5)}
    _, epochs, weights, states = trained(train, test, **choices)
    _, again, _, later = trained(train, test, state=states[1], **choices)
    assert [state.history[-1].number for state in later] == [3, 4]
    assert [(epoch.number, epoch.loss, epoch.test) for epoch in again] == [
        (epoch.number, epoch.loss, epoch.test) for epoch in epochs
    ]
    assert all(torch.equal(value, later[-1].weights[name]) for name, value in weights[-1].items())
    assert all(torch.equal(value, later[-1].moments[name]) for name, value in states[-1].moments.items())


def epochs_of(*scores: float | None, name: str = "mae") -> list[Epoch]:
    facts = {"loss": 0.0, "seconds": 1.0, "tiles": 1, "tiles_per_s": 1.0, "waiting": 0.0, "dead": False}
    return [
        Epoch(number=number, test={} if score is None else {name: score}, **facts)
        for number, score in enumerate(scores, 1)
    ]


def test_the_best_epoch_is_the_first_with_the_best_score_and_without_scores_the_last() -> None:
    assert best_epoch("count", epochs_of(3.0, 1.0, 1.0, 2.0)).number == 2
    assert best_epoch("classify", epochs_of(0.5, 0.9, 0.7, name="balanced_accuracy")).number == 2
    assert best_epoch("count", epochs_of(None, None, None)).number == 3


def test_patience_ends_a_training_and_by_default_nothing_does_before_its_last_epoch() -> None:
    worse = epochs_of(1.0, 2.0, 3.0)
    assert not is_over(TrainConfig(task="count", epochs=4), worse)
    assert is_over(TrainConfig(task="count", epochs=3), worse)
    assert is_over(TrainConfig(task="count", epochs=9, patience=2), worse)
    assert not is_over(TrainConfig(task="count", epochs=9, patience=3), worse)
    assert not is_over(TrainConfig(task="count", epochs=9, patience=1), epochs_of(None, None))


def test_the_first_batch_is_fetched_before_it_is_asked_for_and_an_error_comes_where_it_is_read() -> None:
    fetched = threading.Event()

    def numbers() -> Iterator[Any]:
        fetched.set()
        yield from (1, 2, 3)

    def broken() -> Iterator[Any]:
        raise DataError("the tiles are gone")
        yield

    batches = begun(numbers())
    assert fetched.wait(30) and list(batches) == [1, 2, 3]
    assert list(begun(())) == []
    lost = begun(broken())
    with pytest.raises(DataError, match="the tiles are gone"):
        next(lost)


@pytest.mark.parametrize(("tiles", "steps"), [(17, 2), (10, 3), (7, 7), (300, 19)])
def test_the_steps_of_an_epoch_are_equally_large(tiles: int, steps: int) -> None:
    whole = Batch(
        pixels=np.zeros((tiles, 1, 1), np.uint8), label=np.arange(tiles), count=np.arange(tiles, dtype=np.float32)
    )
    pieces = [{name: column[start : start + 4] for name, column in whole.items()} for start in range(0, tiles, 4)]
    batches = list(evenly(pieces, tiles, steps))
    sizes = {len(batch["label"]) for batch in batches}
    assert len(batches) == steps and max(sizes) - min(sizes) <= 1
    for name in ("label", "count"):
        assert np.concatenate([batch[name] for batch in batches]).tolist() == list(range(tiles))


@pytest.mark.parametrize("has_test", [True, False])
def test_a_counter_whose_last_unit_is_dead_is_said_to_be(discs: Callable, has_test: bool) -> None:
    train, test = counted(discs, range(8)), counted(discs, range(100, 104))

    def kill(network: nn.Module) -> None:
        nn.init.constant_(network.out.bias, -100.0)

    model = ModelSpec(architecture="paper", width=2, depth=3)
    _, dead, *_ = trained(train, test if has_test else None, model=model, spoil=kill)
    _, alive, *_ = trained(train, test if has_test else None, model=model, learning_rate=1e-3)
    assert [epoch.dead for epoch in dead] == [True, True]
    assert [epoch.dead for epoch in alive] == [False, False]


def test_the_state_of_another_network_is_refused_in_a_line(discs: Callable) -> None:
    train = counted(discs, range(4))
    *_, states = trained(train, epochs=1)
    with pytest.raises(DataError, match=r"does not fit the network, so another version .* train without --resume"):
        trained(train, model=ModelSpec(width=8, depth=3, dropout=0), state=states[-1])


def test_a_training_in_bf16_leaves_float32_weights(discs: Callable) -> None:
    train = counted(discs, range(8))
    _, rough, weights, _ = trained(train, precision="bf16")
    _, exact, *_ = trained(train, precision="f32")
    assert {value.dtype for value in weights[-1].values()} == {torch.float32, torch.int64}
    assert rough[-1].loss != exact[-1].loss and rough[-1].loss == pytest.approx(exact[-1].loss, rel=0.1)


def test_a_cpu_computes_in_what_it_is_fast_in_and_compiles_nothing_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    auto = TrainConfig(task="count")
    for able in (True, False):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda able=able: {"avx512_bf16": able})
        assert (uses_bf16(auto, cpu), uses_compile(auto, cpu)) == (able, False)
        for precision, compiled in (("bf16", True), ("f32", False)):
            told = TrainConfig(task="count", precision=precision, compile=compiled)
            assert (uses_bf16(told, cpu), uses_compile(told, cpu)) == (compiled, compiled)
    for found in ("/usr/bin/cc", None):
        monkeypatch.setattr("shutil.which", lambda name, found=found: found)
        assert uses_compile(auto, torch.device("cuda")) is (found is not None)
