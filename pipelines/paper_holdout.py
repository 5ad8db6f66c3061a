"""Scores over the tiles that the paper's draw held out, as the paper reports them: they leak."""

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.train import TrainConfig
from cellnet.evaluation.metrics import Rows, Scores, score
from cellnet.networks.views import forward
from cellnet.networks.weights import fresh_network
from cellnet.training.batches import to_tensors
from pipelines.shards import Shards


def score_drawn_holdout(bank: Bank, shards: Shards, config: TrainConfig, weights: bytes) -> dict[str, Scores]:
    """All scores of a network of protocol=paper per tile, with intervals over frames.

    `drawn_holdout` is over all variants, as the paper reports; `drawn_holdout_whole` over whole tiles alone, to be
    compared with `cellnet evaluate`, which cuts no smaller ones.
    """
    network = fresh_network(config, len(shards.classes))
    network.load_state_dict(safetensors.torch.load(weights))
    network.eval()
    truths, outputs, frames, shares = [], [], [], []
    for batch in shards.dataset("holdout", "frame", "share").iter_batches(batch_size=64, batch_format="numpy"):
        input_B1HW, target = to_tensors(batch, shards.preprocess, torch.device("cpu"))
        outputs.append(forward(network, input_B1HW, config.task))
        truths.append((target.label_B if config.task == "classify" else target.count_B).numpy())
        frames += list(batch["frame"])
        shares += list(batch["share"])
    truth_N, output_N, frame_N = np.concatenate(truths), np.concatenate(outputs).astype(np.float64), np.array(frames)
    lineage = {frame.frame: frame.lineage for frame in bank.frames}

    def over(chosen_N: NDArray[np.bool_]) -> Scores:
        groups = frame_N[chosen_N].tolist()
        rows = Rows(
            truth=truth_N[chosen_N],
            output=output_N[chosen_N],
            lineages=[lineage[frame] for frame in groups],
            groups=groups,
        )
        return score(config.task, rows, shards.classes)

    return {
        "drawn_holdout": over(np.full(len(frame_N), True)),
        "drawn_holdout_whole": over(np.array(shares) == 1),
    }
