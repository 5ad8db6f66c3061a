"""What a network is made of, as Keras' `model.summary()` prints it."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cellnet.config.choices import NETWORK_PX

Row = tuple[str, str, str]


def summary(network: nn.Module, *, frozen: bool = False) -> str:
    """A table of the layers in the order in which a tile passes them, and how many numbers they hold.

    Of a `frozen` network the last layers alone, `out`, are trained.
    """
    rows = _rows(network)
    learned = [weight for name, weight in network.named_parameters() if not frozen or name.startswith("out.")]
    trained = _size(weight for weight in learned if weight.requires_grad)
    fixed = _size(weight for weight in network.state_dict().values() if weight.is_floating_point()) - trained
    totals = {"total": trained + fixed, "trainable": trained, "non-trainable": fixed}
    table = _table([("layer (type)", "output shape", "parameters"), *rows])
    facts = [f"{name} parameters: {number:,} ({_megabytes(number)} as float32)" for name, number in totals.items()]
    return "\n".join([table, *facts])


def _rows(network: nn.Module) -> list[Row]:
    """The rows of one tile's way through the network."""
    rows: list[Row] = []

    def noted_as(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            own = [
                *layer.parameters(recurse=False),
                *(b for b in layer.buffers(recurse=False) if b.is_floating_point()),
            ]
            shape = ", ".join(map(str, output.shape[1:]))
            rows.append((f"{name} ({type(layer).__name__})", f"(B, {shape})", f"{_size(own):,}"))

        return note

    hooks = [
        layer.register_forward_hook(noted_as(name))
        for name, layer in network.named_modules()
        if name and (not list(layer.children()) or list(layer.parameters(recurse=False)))
    ]
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 1, NETWORK_PX, NETWORK_PX))
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _size(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _megabytes(numbers: int) -> str:
    return f"{numbers * 4 / 1e6:.2f} MB"


def _table(rows: list[Row]) -> str:
    """Columns as wide as their widest cell, numbers to the right, a line under the head and at the end."""
    name, shape, size = (max(len(row[column]) for row in rows) for column in range(3))
    head, *body = (f"{row[0]:<{name}}  {row[1]:<{shape}}  {row[2]:>{size}}" for row in rows)
    line = "─" * len(head)
    return "\n".join([line, head, line, *body, line])
