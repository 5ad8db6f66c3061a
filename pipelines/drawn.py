"""Scores over the tiles that the paper's draw held out, as the paper reports them: they leak."""

from collections.abc import Sequence

import numpy as np
import safetensors.torch
import torch

from cellnet import metrics, training
from cellnet.bank import Bank
from cellnet.config import TrainConfig
from cellnet.inputs import to_tensors
from cellnet.predictor import fresh_network
from pipelines.shards import Shards

COLUMNS: Sequence[str] = ("pixels", "label", "count", "frame")


def score_drawn_holdout(bank: Bank, shards: Shards, config: TrainConfig, weights: bytes) -> metrics.Scores:
    """All scores of a network of protocol=paper per tile; their interval is over frames."""
    network = fresh_network(config, len(shards.classes))
    network.load_state_dict(safetensors.torch.load(weights))
    network.eval()
    truths, outputs, frames = [], [], []
    for batch in shards.dataset("holdout", columns=COLUMNS).iter_batches(batch_size=64, batch_format="numpy"):
        input_B1HW, target = to_tensors(batch, shards.preprocess, torch.device("cpu"))
        outputs.append(training.forward(network, input_B1HW, config.task))
        truths.append((target.label_B if config.task == "classify" else target.count_B).numpy())
        frames += list(batch["frame"])
    lineage = {frame.frame: frame.lineage for frame in bank.frames}
    rows = metrics.Rows(
        truth=np.concatenate(truths),
        output=np.concatenate(outputs).astype(np.float64),
        lineages=[lineage[frame] for frame in frames],
        groups=frames,
    )
    return metrics.score(config.task, rows, shards.classes)
