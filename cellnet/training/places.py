"""The last layers of a frozen counter: how many cells each place of a tile has, learnt from what frames have in all.

Where cells' centres are not known, a count is true of the whole frame alone: a share of it, which a tile would be
given, is wrong wherever cells lie in clumps. So the places of all tiles of a frame are added up before they are
compared (multiple-instance learning: Dietterich et al. 1997, 10.1016/S0004-3702(96)00034-3). A tile of known centres is
compared alone.
"""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.networks.architectures import PlaceLayers
from cellnet.training.fit import has_bf16
from cellnet.training.heads import Features
from cellnet.training.optimizer import AdamW

EPOCHS: Final = 40
"""Passes over the frames: with 20 counts of another chamber were 31 cells off, with 40 they were 24."""
LEAST_STEPS: Final = 400
"""However few frames there are."""
FRAMES_A_STEP: Final = 8
RATE: Final = 2e-3
DECAY: Final = 0.1
MOST_STANDARDISED: Final = 2_000_000
"""Values of each feature that their mean and deviation are taken of, about."""
TILES_AT_ONCE: Final = 64


@dataclass(frozen=True, kw_only=True)
class CountHead:
    """Last layers."""

    layers: PlaceLayers
    loss: float
    seconds: float

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], *, loss: float = 0, seconds: float = 0) -> "CountHead":
        """The layers that have these `weights`, among others of their network perhaps."""
        own = {name.removeprefix("out."): value for name, value in weights.items() if name.startswith("out.")}
        layers = PlaceLayers(own["first.weight"].shape[1], dropout=0, density=1)
        layers.load_state_dict(own)
        return cls(layers=layers.eval(), loss=loss, seconds=seconds)

    @property
    def weights(self) -> dict[str, Tensor]:
        """By their names in the network."""
        return {f"out.{name}": value for name, value in self.layers.state_dict().items()}

    @torch.inference_mode()
    def answers(self, features: Features) -> NDArray[np.float32]:
        """Cells (N,) of tiles."""
        parts = [
            _counts(self.layers, torch.from_numpy(features.seen_NVC[start : start + TILES_AT_ONCE]))
            for start in range(0, len(features.truth_N), TILES_AT_ONCE)
        ]
        return torch.cat(parts).numpy()


def fit_places(train: Features, *, seed: int, dropout: float, least_steps: int) -> CountHead:
    """The last layers that count these tiles and frames, which take `least_steps` however few they are."""
    assert train.weight_N is not None and train.exact_N is not None, "of a counter"
    start_s = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows = _rows_of(train)
    weight_N = np.where(train.exact_N, np.float32(1), train.weight_N)
    truth_M = np.array([(weight_N[of] * train.truth_N[of]).sum() for of in rows], np.float32)
    places, width = train.seen_NVC.shape[1:]
    layers = PlaceLayers(width, dropout, max(float(np.nanmean(train.truth_N)), 0.1) / places)
    mean_C, spread_C = _standard(train.seen_NVC)
    seen_NPC = _standardised(train.seen_NVC, mean_C, spread_C)
    steps = -(-len(rows) // FRAMES_A_STEP)
    epochs = max(EPOCHS, -(-least_steps // steps))
    optimizer = AdamW(layers.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=epochs * steps + 1)
    for _ in range(epochs):
        losses = []
        for chosen in np.array_split(rng.permutation(len(rows)), steps):
            of_step = np.concatenate([rows[i] for i in chosen])
            owner = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(rows[i]) for i in chosen]))
            count_T = _counts(layers, seen_NPC[of_step]) * torch.from_numpy(weight_N[of_step])
            count_M = torch.zeros(len(chosen)).index_add(0, owner, count_T)
            loss = _loss(count_M, torch.from_numpy(truth_M[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(layers.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    with torch.no_grad():  # of features as they are
        layers.first.weight /= spread_C
        layers.first.bias.sub_(layers.first.weight @ mean_C)
    return CountHead(layers=layers.eval(), loss=float(np.mean(losses)), seconds=time.perf_counter() - start_s)


def _rows_of(train: Features) -> list[NDArray[np.intp]]:
    """The tiles that are compared together: all of a frame, or one of known centres; as many times as they teach.

    Tiles that say nothing are out.
    """
    assert train.weight_N is not None and train.exact_N is not None
    by_frame: dict[str, list[int]] = {}
    for row in np.flatnonzero(~train.exact_N & (train.weight_N > 0)).tolist():
        by_frame.setdefault(str(train.frame_N[row]), []).append(row)
    alone = ([row] for row in np.flatnonzero(train.exact_N).tolist())
    rows = [np.array(of) for of in itertools.chain((by_frame[name] for name in sorted(by_frame)), alone)]
    times_N = np.ones(len(train.truth_N), np.int64) if train.times_N is None else train.times_N
    return [of for of in rows for _ in range(times_N[of[0]])]


def _standard(seen_NPC: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, of about so many values."""
    every = max(1, seen_NPC.shape[0] * seen_NPC.shape[1] // MOST_STANDARDISED)
    some_NC = seen_NPC.reshape(-1, seen_NPC.shape[2])[::every].astype(np.float32)
    return torch.from_numpy(some_NC.mean(0)), torch.from_numpy(some_NC.std(0) + np.float32(1e-3))


def _standardised(seen_NPC: NDArray[np.float16], mean_C: Tensor, spread_C: Tensor) -> Tensor:
    """Features of one spread, once for all passes, in the numbers that the layers compute in."""
    kind = torch.bfloat16 if has_bf16(torch.device("cpu")) else torch.float16
    done = torch.empty(seen_NPC.shape, dtype=kind)
    for start in range(0, len(done), TILES_AT_ONCE):
        part = slice(start, start + TILES_AT_ONCE)
        done[part] = (torch.from_numpy(seen_NPC[part]).float() - mean_C) / spread_C
    return done


def _counts(layers: PlaceLayers, seen_TPC: Tensor) -> Tensor:
    mixed = layers.training and has_bf16(torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        places_T1P1 = layers((seen_TPC if mixed else seen_TPC.float()).transpose(1, 2).unsqueeze(-1))
    return nn.functional.softplus(places_T1P1.float()).sum(dim=(1, 2, 3))


def _loss(count_M: Tensor, truth_M: Tensor) -> Tensor:
    """Huber's, of roots: ten cells more matter among twenty and not among four hundred, as the deviation of counts."""
    return nn.functional.smooth_l1_loss((count_M + 1).sqrt(), (truth_M + 1).sqrt(), beta=0.5)
