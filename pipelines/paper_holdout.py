"""Scores over the tiles that the paper's protocol held out, as the paper reports them: they leak."""

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.evaluation.metrics import Rows, Scores, score
from cellnet.networks.views import forward
from cellnet.networks.weights import fresh_network
from cellnet.training.batches import to_tensors
from cellnet.training.plan import Plan
from cellnet.training.shards import Shards
from pipelines.shards import dataset_of


def score_paper_holdout(bank: Bank, plan: Plan, shards: Shards, weights: bytes) -> dict[str, Scores]:
    """All scores of a network of protocol=paper per tile, with intervals over frames.

    `drawn_holdout` is over all variants, as the paper reports; `drawn_holdout_whole` over whole tiles alone, to be
    compared with `cellnet evaluate`, which cuts no smaller ones.
    """
    task = plan.config.task
    network = fresh_network(plan.config, len(plan.classes))
    network.load_state_dict(safetensors.torch.load(weights))
    network.eval()
    truths, outputs, frames, shares = [], [], [], []
    for batch in dataset_of(shards, "holdout", "frame", "share").iter_batches(batch_size=64, batch_format="numpy"):
        input_B1HW, target = to_tensors(batch, plan.preprocess, torch.device("cpu"))
        outputs.append(forward(network, input_B1HW, task))
        truths.append(target.of(task).numpy())
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
        return score(task, rows, list(plan.classes))

    return {
        "drawn_holdout": over(np.full(len(frame_N), True)),
        "drawn_holdout_whole": over(np.array(shares) == 1),
    }
