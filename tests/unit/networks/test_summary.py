"""The table of a network's layers."""

from cellnet.config.train import ModelSpec
from cellnet.networks.architectures import create, parameters_n
from cellnet.networks.summary import summary


def test_the_summary_lists_every_layer_with_its_shape_and_the_totals() -> None:
    network = create(ModelSpec(architecture="paper", width=4, depth=1), "classify", classes=3)
    lines = summary(network).splitlines()
    assert lines[1].split() == ["layer", "(type)", "output", "shape", "parameters"]
    rows = [line.split("  ") for line in lines[3:-4]]
    named = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert named[0] == ["body.0 (Conv2d)", "(B, 4, 198, 198)", "40"]
    assert named[-1] == ["out (Linear)", "(B, 3)", "195"]
    assert sum(int(row[2].replace(",", "")) for row in named) == parameters_n(network)
    assert lines[-3] == f"total parameters: {parameters_n(network):,} (10.04 MB as float32)"


def test_the_statistics_of_batch_norms_are_not_trained() -> None:
    network = create(ModelSpec(architecture="residual", width=2, depth=1), "count")
    batch_norms = 3 * 2 * 2  # stem and two of the block: mean and variance of two channels
    *_, total, trained, fixed = summary(network).splitlines()
    assert fixed.startswith(f"non-trainable parameters: {batch_norms} ")
    assert trained.startswith(f"trainable parameters: {parameters_n(network):,} ")
    assert total.startswith(f"total parameters: {parameters_n(network) + batch_norms:,} ")


def test_of_a_frozen_network_the_last_layers_alone_are_trained() -> None:
    network = create(ModelSpec(architecture="residual", width=2, depth=1), "classify", classes=3)
    last = sum(weight.numel() for weight in network.get_submodule("out").parameters())
    *_, total, trained, fixed = summary(network, frozen=True).splitlines()
    assert 0 < last < parameters_n(network)
    assert trained.startswith(f"trainable parameters: {last:,} ")
    whole = int(total.split()[2].replace(",", ""))
    assert fixed.startswith(f"non-trainable parameters: {whole - last:,} ")
