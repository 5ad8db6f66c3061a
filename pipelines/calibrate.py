"""Fit anew what a published model may say of its own sureness, and publish that as its next version.

A Ray job, like `cellnet calibrate`:

    python -m pipelines calibrate classifier@1 BANK
"""

from cellnet.errors import ConfigError
from cellnet.places import Places
from cellnet.registry.learned import learned_of
from cellnet.registry.records import ANSWERS, NEW_ANSWERS, ModelVersion
from cellnet.untrusted import WEIGHTS
from pipelines import cluster
from pipelines.evaluate import kept_answers
from pipelines.publishing import finished
from pipelines.runs import Say


def recalibrate(ref: str, places: Places, *, say: Say = lambda line: None) -> ModelVersion:
    """The next version of a published model: the same weights, calibrated on the bank as it is now.

    Raises ConfigError for a bank whose lineages are others than the model's, or whose test split it learned from.
    """
    bank, registry = places.open_bank(), places.open_registry()
    version = registry.resolve(ref)
    if version.card.task == "classify" and not {frame.lineage for frame in bank.usable} >= set(version.card.classes):
        raise ConfigError(f"{version.ref} knows {', '.join(version.card.classes)}; calibrate it on a bank of these")
    answers = kept_answers(registry, version)
    if any(frame.frame in answers.folds for frame in bank.split("test")):
        raise ConfigError(
            f"{version.ref} learned from the test split of {places.bank}, and is calibrated by its folds' answers; "
            "calibrate it on a bank of other frames"
        )
    cluster.connect(*places.named)
    made_from = version.card.model_copy(update={"parent": version.ref, "recount": None, "relearned": None})
    weights, learned = registry.read(version, WEIGHTS), learned_of(registry, version)
    card, files = finished(version.name, bank, made_from, weights, learned=learned, say=say)
    files |= {role: registry.read(version, role) for role in (ANSWERS, NEW_ANSWERS) if role in version.blobs}
    return registry.publish(version.name, files, card)
