"""The last layers of a frozen network: what the others see of each tile is computed once, by Ray Data, and kept.

    BANK/shards/KEY-XXXX/features-KEY/train.safetensors, test.safetensors    beside the tiles that they are of

The second KEY names the weights and everything else that shapes a feature: another head finds them ready.
"""

import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np
import ray
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import nn

from cellnet.bank.bank import Bank
from cellnet.config.choices import Split
from cellnet.config.train import AS_RECORDED, Preprocess, TrainConfig
from cellnet.errors import NotFoundError
from cellnet.networks.efficientnet import folded
from cellnet.networks.weights import Start, fresh_network, weights_to_bytes
from cellnet.tasks import Task
from cellnet.training.batches import draws_instruments
from cellnet.training.fit import seed_everything, weights_of
from cellnet.training.heads import FREE, Features, Head, LastLayers, fit_head, holds_of
from cellnet.training.places import LEAST_STEPS, CountHead, fit_places
from cellnet.training.plan import Plan
from cellnet.training.seeing import VIEWS, features_from, see
from cellnet.training.shards import SPLITS, Shards, key_of_recipe
from cellnet.training.state import Epoch, TrainState, best_epoch
from cellnet.training.steering import steering
from cellnet.untrusted import check_safetensors
from pipelines import cluster
from pipelines.publishing import Trained, cross_validated, refitted
from pipelines.runs import Run, Say, epoch_line, keep_state, kept_state, tell_epochs, tell_fits
from pipelines.shards import dataset_of

TILES_A_STEP: Final = 32


def train_head(
    bank: Bank,
    plan: Plan,
    shards: Shards,
    run: Run,
    *,
    start: Start,
    since: Collection[str] = (),
    say: Say,
) -> Trained:
    """The network of a plan whose last layer alone is trained, by folds or by the bank's splits.

    The frames that came `since` the version that it starts from teach as many times as the configuration says.
    """
    seed_everything(plan.config.seed)
    network = fresh_network(plan.config, len(plan.classes), start=start)
    train = features_of(network, plan, shards, "train", start, say=say)
    assert train is not None, "a plan has training tiles"
    same = plan.folds and plan.splits["train"] == plan.splits["test"]  # all frames are in both, here as they are
    test = train if same else features_of(network, plan, shards, "test", start, say=say)
    if since:
        train = train.taught_again(since, most=plan.config.new_weight)
        test = test and test.taught_again(since, most=plan.config.new_weight)
    learn = functools.partial(_learn, run=run, plan=plan, say=say)

    def whole(layers: LastLayers) -> bytes:
        return weights_to_bytes(network.state_dict() | layers.weights)

    folds = plan.folds.held_back if plan.folds else {}
    batches = {number: held for number, held in plan.held_back.items() if number not in folds}
    parts = [*_parts("fold", folds, train, test)] if folds else [Part("split", "", _all_of(train), test)]
    holds = holds_of(plan.config.task, chosen_by_test=test is not None)
    say(tell_fits(holds))
    if test:
        tell_epochs(plan.config.task, say, star=True, called="fit")
    learnt, history = list[list[LastLayers]](), list[Epoch]()
    for number, hold in enumerate(holds, start=1):
        learnt.append(learn(parts, train, hold))
        history.append(_epoch(plan.config.task, number, learnt[-1], parts))
        run.add_curves(history[-1])
        best = best_epoch(plan.config.task, history)
        say(epoch_line(history[-1], len(holds), best=best is history[-1] and bool(best.test), called="fit"))
    chosen, hold = learnt[best.number - 1], holds[best.number - 1]
    epochs = [asdict(epoch) for epoch in history]
    if not plan.folds:
        trained = Trained(weights=whole(chosen[0]), scores=best.test, history=epochs)
        if not plan.config.refit or not test:
            return trained
        say("once more on the train and the test split together")
        both = train.and_of(test)
        [refit] = learn([Part("refit", "", _all_of(both))], both, hold)
        return refitted(trained, whole(refit), bank, plan)
    more = [*_parts("batch", batches, train), Part("all", " of all frames", _all_of(train))]
    *of_batches, of_all = learn(more, train, hold)
    networks = dict(zip((*folds, *batches), map(whole, (*chosen, *of_batches)), strict=True))
    return cross_validated(whole(of_all), epochs, bank, plan, networks)


class Part(NamedTuple):
    """What last layers learn from, and what they are asked about."""

    name: str
    """Of the file that keeps them."""
    told: str
    """For a person."""
    tiles_N: NDArray[np.bool_]
    """Which of the training tiles."""
    asked: Features | None = None


def _parts(
    kind: str, held_back: Mapping[int, frozenset[str]], train: Features, test: Features | None = None
) -> Iterator[Part]:
    """Of folds or of batches, which hold so many frames back; they are asked about theirs among `test`."""
    for number, held in enumerate(held_back.values(), start=1):
        told = f" of {kind} {number}/{len(held_back)}"
        asked = test.of(test.are_of(held)) if test else None
        yield Part(f"{kind}-{number}", told, ~train.are_of(held), asked)


def _all_of(tiles: Features) -> NDArray[np.bool_]:
    return np.ones(len(tiles.truth_N), bool)


def _learn(parts: Sequence[Part], tiles: Features, hold: float, *, run: Run, plan: Plan, say: Say) -> list[LastLayers]:
    """The last layers that learn from each part of the tiles; those that a run that was stopped had learnt as they are.

    A classifier's are learnt here, in seconds; a counter's by tasks of Ray's, in a minute each.
    """
    task = plan.config.task
    tell = say if task == "count" else lambda line: None
    learnt: dict[str, LastLayers] = {}
    for part in parts:
        if kept := kept_state(run, _file_of(part, hold), what=f"the last layers{part.told}", again="train"):
            tell(f"the last layers{part.told} were learnt before")
            learnt[part.name] = _layers_of(task, kept.weights, **kept.rates)
    left = [part for part in parts if part.name not in learnt]
    if not left:
        return [learnt[part.name] for part in parts]
    of = left[0].told if len(left) == 1 else f" of {len(left)} networks"
    tell(f"the last layers{of} learn to count, for a minute each")
    apart = task == "count"
    for part, layers in _learn_apart(left, tiles, plan) if apart else _learn_here(left, tiles, hold, plan):
        rates = {"loss": layers.loss, "seconds": layers.seconds}
        state = TrainState(history=(), weights=layers.weights, moments={}, rates=rates)
        keep_state(run, _file_of(part, hold), state, plan.config)
        tell(f"the last layers{part.told} have learnt to count")
        learnt[part.name] = layers
    return [learnt[part.name] for part in parts]


def _file_of(part: Part, hold: float) -> str:
    return f"{part.name}-held-{hold:g}"


def _learn_here(parts: Sequence[Part], tiles: Features, hold: float, plan: Plan) -> Iterator[tuple[Part, LastLayers]]:
    for part in parts:
        yield part, _learning(plan)(tiles.of(part.tiles_N), hold)


def _learn_apart(parts: Sequence[Part], tiles: Features, plan: Plan) -> Iterator[tuple[Part, LastLayers]]:
    """Likewise by a task each, in the order in which they end."""
    shared, threads = ray.put(tiles), plan.config.threads or max(1, int(cluster.cpus() / len(parts)))
    learn = ray.remote(_learn_part).remote
    tasks = {learn(shared, part.tiles_N, _learning(plan), threads): part for part in parts}
    while tasks:
        [done], _ = ray.wait(list(tasks))
        weights, told = ray.get(done)
        yield tasks.pop(done), _layers_of(plan.config.task, weights, **told)


def _learn_part(
    tiles: Features, chosen_N: NDArray[np.bool_], learning: Callable[[Features, float], LastLayers], threads: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    layers = learning(tiles.of(chosen_N), FREE)
    return layers.weights, {"loss": layers.loss, "seconds": layers.seconds}


def fit_heads(
    network: nn.Module,
    plan: Plan,
    shards: Shards,
    start: Start,
    *,
    on_epoch: Callable[[TrainState], None],
    state: TrainState | None = None,
) -> None:
    """A trial: last layers held in one way after the other, each of which is an epoch; go on from `state`."""
    train, test = (features_of(network, plan, shards, split, start) for split in SPLITS)
    assert train is not None, "a plan has training tiles"
    history = state.history if state else ()
    part = Part("split", "", _all_of(train), test)
    left = holds_of(plan.config.task, chosen_by_test=test is not None)[len(history) :]
    for number, hold in enumerate(left, start=len(history) + 1):
        layers = _learning(plan)(train, hold)
        history = (*history, _epoch(plan.config.task, number, [layers], [part]))
        weights = weights_of(network) | layers.weights
        on_epoch(TrainState(history=history, weights=weights, moments={}, rates={}))


def asked_about_test(
    plan: Plan, shards: Shards, start: Start, weights: dict[str, torch.Tensor]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What is true of the test tiles, in the order of their shards, and what last layers with these weights say."""
    network = fresh_network(plan.config, len(plan.classes), start=start)
    test = features_of(network, plan, shards, "test", start)
    assert test is not None, "a search has a test split"
    return test.truth_N, _layers_of(plan.config.task, weights).answers(test)


def _layers_of(task: Task, weights: dict[str, torch.Tensor], **told: float) -> LastLayers:
    """The last layers that have these weights."""
    return Head.of(weights, **told) if task == "classify" else CountHead.of(weights, **told)


def changes_features(key: str) -> bool:
    """Whether what the frozen layers see depends on a setting that a search may try."""
    return key in ("kernel", "illumination", "model.weights") or key.startswith("augment.")


def _learning(plan: Plan) -> Callable[[Features, float], LastLayers]:
    """What learns the last layers from tiles, held so hard."""
    config = plan.config
    if config.task == "count":
        return lambda train, hold: fit_places(
            train, seed=config.seed, dropout=config.model.dropout, least_steps=LEAST_STEPS
        )
    return functools.partial(fit_head, classes=len(plan.classes), balanced=config.class_weights == "balanced")


def _epoch(task: Task, number: int, learnt: Sequence[LastLayers], parts: Sequence[Part]) -> Epoch:
    """What layers that are held alike came to, over all parts, in the form of an epoch."""
    scores = {}
    if answered := [(layers, of.asked) for layers, of in zip(learnt, parts, strict=True) if of.asked]:
        truth_N = np.concatenate([asked.truth_N for _, asked in answered])
        scores = steering(task, truth_N, np.concatenate([layers.answers(asked) for layers, asked in answered]))
    tiles = sum(int(of.tiles_N.sum()) for of in parts)
    seconds = sum(layers.seconds for layers in learnt)
    return Epoch(
        number=number,
        loss=float(np.mean([layers.loss for layers in learnt])),
        test=scores,
        seconds=seconds,
        tiles=tiles,
        tiles_per_s=tiles / seconds,
        waiting=0.0,
        dead=False,
    )


def features_of(
    network: nn.Module,
    plan: Plan,
    shards: Shards,
    split: Split,
    start: Start,
    *,
    say: Say = lambda line: None,
) -> Features | None:
    """What a network sees of the tiles of a split, found or computed by Ray Data; None where it has no tiles."""
    if not shards.rows[split]:
        return None
    key = f"{shards.folder}/features-{_key(plan, start)}/{split}.safetensors"
    try:
        data = shards.store.get(key)
    except NotFoundError:
        how = "of every place" if plan.config.task == "count" else f"in {VIEWS} orientations"
        more = ", and as other instruments would have recorded them," if draws_instruments(plan.config.augment) else ""
        say(f"features of {shards.rows[split]} {split} tiles {how}{more} are computed")
        features = _computed(network, plan, shards, split)
        digest_NB = np.array([list(bytes.fromhex(name)) for name in features.frame_N.tolist()], np.uint8)
        shards.store.put(key, safetensors.numpy.save(features.columns | {"frame_N": digest_NB}))
        return features
    check_safetensors(data, key)
    columns = safetensors.numpy.load(data)
    names = [bytes(digest).hex() for digest in columns["frame_N"].tolist()]
    return Features(**columns | {"frame_N": np.array(names)})


def _key(plan: Plan, start: Start) -> str:
    preprocess = plan.preprocess
    recipe: dict[str, Any] = {
        "weights": start.started.sha256,
        "architecture": plan.config.model.architecture,
        "kernel": preprocess.kernel,
        "illumination": preprocess.illumination,
        "grey": (preprocess.mean, preprocess.std),
        "views": VIEWS if plan.config.task == "classify" else "places",
    }
    if draws_instruments(plan.config.augment):
        recipe["others"] = ({name: getattr(plan.config.augment, name) for name in AS_RECORDED}, plan.config.seed)
    return key_of_recipe(recipe)


def _computed(network: nn.Module, plan: Plan, shards: Shards, split: Split) -> Features:
    rows = (
        dataset_of(shards, split, "frame", "weight")
        .map_batches(
            _see_batch,
            fn_kwargs={"model": [ray.put(folded(network))], "preprocess": plan.preprocess, "config": plan.config},
            batch_size=TILES_A_STEP,
            batch_format="numpy",
        )
        .take_all()
    )
    return features_from(rows, plan.config.task)


def _see_batch(
    batch: dict[str, Any], model: list[Any], preprocess: Preprocess, config: TrainConfig
) -> dict[str, NDArray[Any]]:
    network: nn.Module = cluster.fetch_once(model[0])
    return see(network, batch, preprocess, config)
