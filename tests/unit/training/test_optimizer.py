"""AdamW beside torch's."""

from typing import Any

import torch
from torch import nn

from cellnet.training.optimizer import AdamW


def stepped(kind: type[torch.optim.Optimizer]) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Weights after five steps of a schedule, the last two of another optimizer that goes on; and where it is."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = kind(network.parameters(), lr=0.1, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6)
    for step in range(5):
        if step == 3:
            kept = optimizer.state_dict()
            optimizer = schedule.optimizer = kind(network.parameters(), lr=0.1)
            optimizer.load_state_dict(kept)
        network(torch.randn(6, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return list(network.state_dict().values()), optimizer.state_dict()


def test_the_steps_are_those_of_torch() -> None:
    weights, state = stepped(AdamW)
    wanted, known = stepped(torch.optim.AdamW)
    assert all(map(torch.equal, weights, wanted))
    assert state["param_groups"] == known["param_groups"] and state["state"].keys() == known["state"].keys()
