"""One trial of a search: the training of `cellnet train`, in a process of its own or shared out to several workers.

After every epoch it is kept in the search's folder, and Ray Tune is told, which may have it stopped.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import ray
import ray.data
import ray.train
import ray.tune
import torch

from cellnet.config.choices import Split
from cellnet.config.train import TrainConfig
from cellnet.config.tune import Settings
from cellnet.errors import DataError
from cellnet.evaluation.searches import Trial, trial_name
from cellnet.networks.architectures import parameters_n
from cellnet.networks.weights import fresh_network
from cellnet.training.fit import seed_everything
from cellnet.training.state import Epoch, TrainState, best_epoch, is_over
from cellnet.training.workers import unwrapped
from pipelines import cluster
from pipelines.heads import fit_heads
from pipelines.runs import Run, keep_state
from pipelines.sweeps import Sweep, keep_best, keep_trial, state_of
from pipelines.train import fit_part, given_to, run_workers, shared_network

Data = dict[Split, list[ray.data.Dataset]]
"""The tiles of each split, in a part for each worker of a trial."""
Report = dict[str, Any]
"""What Ray Tune is told of an epoch; `done` of a trial's last."""

WORKER_CPUS: Final = 0.5
"""Reserved for each worker of a trial, so that the rest of the cluster can feed it, and a second search beside it never
waits for ever. It computes with one thread."""
STOP_S: Final = 120.0
"""How long the workers of a trial that was stopped may take to the end of their epoch."""


def trainable(sweep: Sweep, data: Data) -> Any:
    """What Ray Tune runs for each trial, with what it reserves."""
    if sweep.workers == 1:
        alone = {"CPU": WORKER_CPUS, "GPU": sweep.config.gpus}
        return ray.tune.with_resources(ray.tune.with_parameters(_alone, sweep=sweep, data=data), alone)
    return ray.tune.with_resources(ray.tune.with_parameters(_Shared, sweep=sweep, data=data), {"CPU": 0.01})


def of_space(space: dict[str, Any]) -> tuple[str, Settings, int]:
    """The name, settings and seed of a trial, from what Ray Tune gives it."""
    given = space.get("trial", space)
    return trial_name(given["settings"], given["seed"]), given["settings"], given["seed"]


def _alone(space: dict[str, Any], sweep: Sweep, data: Data) -> None:
    """A trial in this process, which Ray Tune ends where it stops it."""
    cluster.quiet()
    _, settings, seed = of_space(space)
    plan = sweep.chosen(settings, seed)
    seed_everything(seed)
    network = fresh_network(plan.config, len(plan.classes), sweep.shards.mean_count, start=sweep.start_of(plan))
    network = network.to("cuda" if sweep.config.gpus else "cpu")

    def tell(report: Report) -> bool:
        ray.tune.report({key: value for key, value in report.items() if key != "done"})
        return True

    _train(network, sweep, settings, seed, data, tell)


class _Shared(ray.tune.Trainable):  # type: ignore[misc]
    """A trial of several Ray Train workers, who ask after every epoch whether there is to be another.

    They are not simply killed: Ray 2.60 then frees what was reserved for them through the dashboard alone, and where
    none runs the search would hang.
    """

    def setup(self, space: dict[str, Any], sweep: Sweep, data: Data) -> None:
        """Start the workers; they are waited for in `step`."""
        cluster.quiet()
        name, settings, seed = of_space(space)
        self._judge = _Judge.remote()  # type: ignore[attr-defined]
        self._error: BaseException | None = None
        loop = {"sweep": sweep, "settings": settings, "seed": seed, "data": data, "judge": self._judge}
        self._thread = threading.Thread(target=self._fit, args=(sweep, name, loop), daemon=True)
        self._thread.start()

    def _fit(self, sweep: Sweep, name: str, loop: dict[str, Any]) -> None:
        gpus = {"GPU": sweep.config.gpus} if sweep.config.gpus else {}
        scaling = ray.train.ScalingConfig(
            num_workers=sweep.workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": min(WORKER_CPUS, cluster.cpus_per_worker(sweep.workers)), **gpus},
        )
        try:
            run = Run(sweep.run.runs, f"{sweep.run.name}/ray/{name}")
            run_workers(_shared_worker, loop, scaling, run=run, outlived=True)
        except Exception as error:  # told by `step`, in the thread that Ray Tune looks at
            self._error = error
        ray.get(self._judge.end.remote())

    def step(self) -> Report:
        """The next epoch of the trial, after the one before was told and is not to be the last."""
        report: Report | None = ray.get(self._judge.next.remote())
        if report is None:
            self._thread.join()
            raise self._error or RuntimeError("the workers of the trial ended without a word")
        return report

    def cleanup(self) -> None:
        """Ray Tune has done with the trial."""
        ray.get(self._judge.stop.remote())
        self._thread.join(STOP_S)


@ray.remote(num_cpus=0)
class _Judge:
    """Between the workers of a trial and Ray Tune."""

    def __init__(self) -> None:
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()
        self._last = 0
        self._goes_on: dict[int, asyncio.Future[bool]] = {}
        self._stopped = False

    async def hear(self, report: Report, rank: int) -> bool:
        """Whether to go on after an epoch; each worker asks, and what the first tells is passed on, once."""
        epoch = report["epoch"]
        if epoch not in self._goes_on:
            self._goes_on[epoch] = asyncio.get_running_loop().create_future()
        if rank == 0 and epoch > self._last:
            self._last = epoch
            await self._reports.put(report)
        return not self._stopped and await self._goes_on[epoch]

    async def next(self) -> Report | None:
        """Let the workers go on, and give what they tell next; None when they have ended."""
        self._answer(True)
        return await self._reports.get()

    async def stop(self) -> None:
        """Let the workers end."""
        self._stopped = True
        self._answer(False)

    async def end(self) -> None:
        """There are no workers any more."""
        await self._reports.put(None)

    def _answer(self, goes_on: bool) -> None:
        for answer in self._goes_on.values():
            if not answer.done():
                answer.set_result(goes_on)


class _Stopped(Exception):  # noqa: N818 - not an error
    """The trial is behind, and to end."""


def _shared_worker(given: dict[str, Any]) -> None:
    """What every worker of a shared trial runs."""
    loop, context = given_to(given), ray.train.get_context()
    sweep, settings, seed, data, judge = (loop[name] for name in ("sweep", "settings", "seed", "data", "judge"))
    rank = context.get_world_rank()
    cluster.quiet()
    plan = sweep.chosen(settings, seed)
    network = shared_network(plan, sweep.shards, sweep.start_of(plan))
    _train(
        network, sweep, settings, seed, data, lambda report: bool(ray.get(judge.hear.remote(report, rank))), rank=rank
    )


def _train(
    network: torch.nn.Module,
    sweep: Sweep,
    settings: Settings,
    seed: int,
    data: Data,
    tell: Callable[[Report], bool],
    *,
    rank: int = 0,
) -> None:
    """One worker's part of a trial, until `tell` says to stop; the first worker keeps what it came to.

    Epochs that were kept by an earlier command are told again at once, so that schedulers and searchers know them.
    """
    name, plan = trial_name(settings, seed), sweep.chosen(settings, seed)
    config = plan.config
    torch.set_num_threads(config.threads or 1)
    steering, more_is_better = sweep.steering
    record = Trial(
        name=name,
        settings=settings,
        seed=seed,
        of_epochs=int(config.epochs),
        parameters=parameters_n(unwrapped(network)),
    )

    def tell_epoch(history: Sequence[Epoch]) -> None:
        best, last = best_epoch(config.task, history), history[-1]
        report = {"epoch": last.number, steering: best.test[steering], "loss": last.loss}
        if not tell({**report, "done": is_over(config, history)}):
            raise _Stopped

    def on_epoch(state: TrainState) -> None:
        if rank == 0:
            _keep(sweep, config, record, state)
        tell_epoch(state.history)

    begun = state_of(sweep.run, name)
    try:
        for epochs in range(1, len(begun.history) + 1 if begun else 1):
            assert begun is not None
            tell_epoch(begun.history[:epochs])
        if sweep.of_heads:
            start = sweep.start_of(plan)
            assert start is not None, "a frozen network starts from something"
            fit_heads(network, plan, sweep.shards, start, on_epoch=on_epoch, state=begun)
            return
        fit_part(network, plan, sweep.shards, data, on_epoch=on_epoch, rank=rank, workers=sweep.workers, state=begun)
    except _Stopped:
        return
    except DataError as error:  # which would come again if Ray tried again
        if rank == 0:
            keep_trial(sweep.run, record.model_copy(update={"error": str(error)}))
        worst = -1.0 if more_is_better else float(np.finfo(np.float32).max)
        tell({"epoch": int(config.epochs), steering: worst, "loss": float("nan"), "done": True})


def _keep(sweep: Sweep, config: TrainConfig, record: Trial, state: TrainState) -> None:
    """Write what a trial came to so far, and all that it needs to go on."""
    last, best = state.history[-1], best_epoch(config.task, state.history)
    ended = is_over(config, state.history)
    if last == best:
        keep_best(sweep.run, record.name, state.weights)
    now = {
        "score": None if best.dead else best.test[sweep.steering[0]],
        "epochs": last.number,
        "of_epochs": last.number if ended else record.of_epochs,
        "seconds": round(sum(epoch.seconds for epoch in state.history), 1),
        "history": tuple(asdict(epoch) for epoch in state.history),
        "error": "the counter is dead: it gave every tile the same count" if best.dead and ended else None,
    }
    keep_trial(sweep.run, record.model_copy(update=now))
    keep_state(sweep.run, record.name, state, config)
