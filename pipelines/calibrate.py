"""Fit anew what a published model may say of its own sureness, and publish that as its next version.

A Ray job, like `cellnet calibrate`:

    python -m pipelines calibrate classifier@1 BANK
"""

from cellnet.errors import ConfigError
from cellnet.places import Places
from cellnet.registry.records import ModelVersion
from cellnet.untrusted import WEIGHTS
from pipelines import cluster
from pipelines.publishing import finished
from pipelines.runs import Say


def recalibrate(ref: str, places: Places, *, say: Say = lambda line: None) -> ModelVersion:
    """The next version of a published model: the same weights, calibrated on the bank as it is now.

    Raises ConfigError for a bank whose lineages are others than the model's.
    """
    bank, registry = places.open_bank(), places.open_registry()
    version = registry.resolve(ref)
    if version.card.task == "classify" and not {frame.lineage for frame in bank.frames} >= set(version.card.classes):
        raise ConfigError(f"{version.ref} knows {', '.join(version.card.classes)}; calibrate it on a bank of these")
    cluster.connect()
    made_from = version.card.model_copy(update={"parent": version.ref, "recount": None})
    card, files = finished(version.name, bank, made_from, registry.read(version, WEIGHTS), say=say)
    return registry.publish(version.name, files, card)
