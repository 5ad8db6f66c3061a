"""AdamW that leaves torch's compiler where it is."""

import inspect

import torch


class AdamW(torch.optim.AdamW):
    """torch's own: the same steps (Loshchilov & Hutter 2019, arXiv 1711.05101).

    torch wraps these methods so that its compiler leaves them alone, and imports it for that: over a second in every
    process that trains. Nothing here compiles an optimizer, so they are taken as they are inside.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
