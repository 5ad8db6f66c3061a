"""One training in plain torch: batches in, scores and weights out. Knows neither Ray nor files.

The caller brings the tiles (from Ray Data, or from memory), wraps the network for several workers, hears of every
epoch through `on_epoch`, and may keep the state that it is given then: `fit` goes on from it as if it had never
stopped.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.config.train import Preprocess, TrainConfig
from cellnet.errors import DataError
from cellnet.networks.views import forward
from cellnet.tasks import Task
from cellnet.training.batches import Target, to_tensors, vary
from cellnet.training.losses import Criterion
from cellnet.training.optimizer import AdamW
from cellnet.training.state import Epoch, TrainState, is_over
from cellnet.training.steering import steering
from cellnet.training.tiles import Batch
from cellnet.training.workers import gathered, share_statistics, summed, unwrapped, workers_n


def seed_everything(seed: int) -> None:
    """Seed torch's global generator, which initialises weights and chooses what drops out."""
    torch.manual_seed(seed)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network computes in bfloat16 where that is faster (its weights stay float32)."""
    return has_bf16(device) if config.precision == "auto" else config.precision == "bf16"


def has_bf16(device: torch.device) -> bool:
    """Whether networks are faster in bfloat16 there."""
    if device.type == "cpu":  # with these instructions 1.4 to 2.5 times as many tiles/s, without them fewer
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def uses_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network is compiled: on GPUs beside a C compiler, which that needs, unless told otherwise."""
    if config.compile == "auto":
        return device.type == "cuda" and any(map(shutil.which, ("cc", "gcc", "clang")))
    return config.compile


def fit(
    network: nn.Module,
    config: TrainConfig,
    preprocess: Preprocess,
    *,
    criterion: Criterion,
    train_batches: Callable[[int], Iterable[Batch]],
    test_batches: Callable[[], Iterable[Batch]] | None,
    tiles: int,
    on_epoch: Callable[[TrainState], None],
    rank: int = 0,
    state: TrainState | None = None,
) -> None:
    """Train for `config.epochs` epochs, a number by now, and give the state after each; go on from `state`.

    `train_batches(epoch)` gives this worker's part of an epoch, `tiles` training tiles in batches of any size, and
    `test_batches()` its part of the test tiles. `config.batch_size` tiles of all workers make a step; the steps of
    an epoch are equally large, give or take a tile a worker, so that none is a small remainder. AdamW on a
    one-cycle schedule (Smith & Topin 2018, arXiv 1708.07120). Raises DataError when the loss stops being a number.
    """
    trainer = _Trainer(network, config, preprocess, criterion, tiles=tiles, rank=rank)
    history = trainer.restore(state) if state else ()
    coming: Iterable[Batch] | None = None
    while not is_over(config, history):
        start_s = time.perf_counter()
        number = len(history) + 1
        trained = trainer.train(coming or train_batches(number), number)
        coming = begun(train_batches(number + 1)) if number < int(config.epochs) else None  # while the test is scored
        truth, output = outputs_of(network, config.task, preprocess, test_batches() if test_batches else ())
        shown = output if len(output) else outputs_of(network, config.task, preprocess, [trained.last_batch])[1]
        epoch = Epoch(
            number=number,
            loss=trained.loss,
            test=steering(config.task, truth, output) if len(output) else {},
            seconds=time.perf_counter() - start_s,
            tiles=trainer.all_tiles,
            tiles_per_s=trainer.all_tiles / trained.seconds,
            waiting=trained.waited_s / trained.seconds,
            dead=config.task == "count" and are_equal(shown),
        )
        history = (*history, epoch)
        on_epoch(trainer.state(history))


class _Trained(NamedTuple):
    """What the training tiles of an epoch came to, over all workers."""

    loss: float
    seconds: float
    waited_s: float
    """For data, a worker."""
    last_batch: Batch
    """This worker's part of the last step."""


class _Trainer:
    """A network with its optimizer and schedule: an epoch at a time."""

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        preprocess: Preprocess,
        criterion: Criterion,
        *,
        tiles: int,
        rank: int,
    ) -> None:
        self.network, self.config, self.preprocess, self.criterion = network, config, preprocess, criterion
        self.tiles, self.rank = tiles, rank
        self.device = next(network.parameters()).device
        parts = gathered(np.array([tiles]))
        self.all_tiles = int(parts.sum())
        self.steps = max(1, min(math.ceil(self.all_tiles / config.batch_size), int(parts.min())))
        self.optimizer = AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=config.learning_rate, total_steps=int(config.epochs) * self.steps + 1
        )
        if uses_compile(config, self.device):
            unwrapped(network).compile()

    def train(self, batches: Iterable[Batch], number: int) -> _Trained:
        """Train on this worker's part of an epoch. What is random depends on the seed, epoch and worker alone."""
        torch.manual_seed(seed_of(self.config.seed, number, self.rank))
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, number, self.rank, 1))
        self.network.train()
        start_s = time.perf_counter()
        waits_s: list[float] = []
        loss_sum = torch.zeros((), device=self.device)
        for batch in _timed(evenly(batches, self.tiles, self.steps), waits_s):
            input_B1HW, target = to_tensors(batch, self.preprocess, self.device)
            how, task = self.config.augment, self.config.task
            input_B1HW, target = vary(input_B1HW, target, how, generator, task=task, preprocess=self.preprocess)
            loss = self._step(input_B1HW, target)
            loss_sum += loss * len(input_B1HW)  # stays on the device: reading it would wait for the step
        share_statistics(unwrapped(self.network))
        loss_all, waited_s = summed(loss_sum.item(), sum(waits_s), device=self.device)
        mean_loss = loss_all / self.all_tiles
        if not math.isfinite(mean_loss):
            raise DataError(
                f"the loss is {mean_loss} after epoch {number}: training diverged; "
                f"lower the rate, for example --set learning_rate={self.config.learning_rate / 10:g}"
            )
        return _Trained(mean_loss, time.perf_counter() - start_s, waited_s / workers_n(), batch)

    def _step(self, input_B1HW: Tensor, target: Target) -> Tensor:
        """One step of the optimizer; the mean loss of this worker's tiles."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=uses_bf16(self.config, self.device)):
            output = self.network(input_B1HW)
        loss = self.criterion(output.float(), target)
        # Workers' gradients are averaged: weighted so, every tile of an epoch counts the same, whoever has it.
        weight = len(input_B1HW) * workers_n() * self.steps / self.all_tiles
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return loss.detach()

    def state(self, history: tuple[Epoch, ...]) -> TrainState:
        """All that `restore` needs, copied."""
        optimizer = self.optimizer.state_dict()
        return TrainState(
            history=history,
            weights=weights_of(self.network),
            moments={
                f"{index}.{name}": value.detach().to("cpu", copy=True)
                for index, values in optimizer["state"].items()
                for name, value in values.items()
            },
            rates={"groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()},
        )

    def restore(self, state: TrainState) -> tuple[Epoch, ...]:
        """Go back to a state, and give its history. Raises DataError for the state of another network."""
        try:
            unwrapped(self.network).load_state_dict(state.weights)
        except RuntimeError as error:
            raise DataError(
                "the checkpoint does not fit the network, so another version of cellnet left it; train without --resume"
            ) from error
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = list(self.network.parameters())
        for key, value in state.moments.items():
            index, name = key.split(".")
            like = parameters[int(index)]
            # Laid out in memory as the parameter is: the optimizer is several times slower otherwise.
            same = value if value.shape != like.shape else torch.empty_like(like, requires_grad=False).copy_(value)
            moments.setdefault(int(index), {})[name] = same
        self.optimizer.load_state_dict({"state": moments, "param_groups": state.rates["groups"]})
        self.schedule.load_state_dict(state.rates["schedule"])
        return state.history


def seed_of(*parts: int) -> int:
    """The seed of what is random of these: the same for the same parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def begun(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches, the first of which is fetched in the background from now on."""
    iterator = iter(batches)
    pool = ThreadPoolExecutor(1)
    first = pool.submit(next, iterator, None)
    pool.shutdown(wait=False)

    def all_of_them() -> Iterator[Batch]:
        if (batch := first.result()) is not None:
            yield batch
            yield from iterator

    return all_of_them()


def _timed(batches: Iterable[Batch], waits_s: list[float]) -> Iterator[Batch]:
    """The batches; how long each was waited for is added to `waits_s`."""
    iterator = iter(batches)
    while True:
        start_s = time.perf_counter()
        batch = next(iterator, None)
        waits_s.append(time.perf_counter() - start_s)
        if batch is None:
            return
        yield batch


def evenly(batches: Iterable[Batch], tiles: int, steps: int) -> Iterator[Batch]:
    """The same tiles, so many, in `steps` batches whose sizes differ by one at most."""
    source = iter(batches)
    held = next(source)
    for step in range(steps):
        size = (step + 1) * tiles // steps - step * tiles // steps
        while len(held["label"]) < size:
            held = _joined(held, next(source))
        yield _rows(held, slice(size))
        held = _rows(held, slice(size, None))


def _rows(batch: Batch, which: slice) -> Batch:
    return cast(Batch, {name: column[which] for name, column in cast(dict[str, NDArray[Any]], batch).items()})


def _joined(first: Batch, second: Batch) -> Batch:
    columns, more = cast(dict[str, NDArray[Any]], first), cast(dict[str, NDArray[Any]], second)
    return cast(Batch, {name: np.concatenate([column, more[name]]) for name, column in columns.items()})


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU, without the wrapping of several workers."""
    return {name: value.detach().to("cpu", copy=True) for name, value in unwrapped(network).state_dict().items()}


def outputs_of(
    network: nn.Module, task: Task, preprocess: Preprocess, batches: Iterable[Batch]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What is true of the test tiles of all workers, and what the network says, in float32 and not compiled.

    Raises DataError for outputs that are not numbers.
    """
    network.eval()
    inner = unwrapped(network)
    device = next(inner.parameters()).device
    truths: list[NDArray[Any]] = []
    outputs: list[NDArray[np.float32]] = []
    with torch.compiler.set_stance("force_eager") if inner._compiled_call_impl else contextlib.nullcontext():
        for batch in batches:
            input_B1HW, target = to_tensors(batch, preprocess, device)
            outputs.append(forward(inner, input_B1HW, task))
            truths.append(target.of(task).cpu().numpy())
    truth, output = (gathered(np.concatenate(parts or [np.zeros(0)])) for parts in (truths, outputs))
    if not np.isfinite(output).all():
        raise DataError(
            "the network's outputs are not numbers: training diverged; lower the rate, "
            "for example --set learning_rate=0.0003"
        )
    return truth, output


def are_equal(output_B: NDArray[np.float32]) -> bool:
    """Whether a counter gave several tiles the same count: it is dead, since nothing that it sees changes it."""
    return len(output_B) > 1 and bool(np.ptp(output_B) <= 1e-6 * np.abs(output_B).max())
