"""Which frames of a bank can teach or score a task."""

from collections.abc import Iterable

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.errors import DataError
from cellnet.tasks import Task


def labelled_frames(bank: Bank, task: Task, lineage: str | None = None) -> Frames:
    """The usable frames, all or those of one lineage, whose count or lineage is known. Raises DataError for none."""
    if lineage is not None and lineage not in bank.lineages:
        seen = ", ".join(bank.lineages) or "none that is known"
        raise DataError(f"{bank.store.uri} has no lineage {lineage}; it has {seen}")
    if task == "count":
        frames = (bank.usable if lineage is None else bank.usable.equal("lineage", lineage)).known("count")
        if not frames:
            raise DataError(
                f"no frame of {_held(bank, lineage)} has a count, so no counter can be trained or scored; "
                "say how many cells they hold by: cellnet bank label BANK TABLE (image,count)"
            )
        return frames
    frames = bank.usable.known("lineage")
    if not frames:
        raise DataError(
            f"no frame of {bank.store.uri} has a lineage, so no classifier can be trained or scored; "
            "say what they are by: cellnet bank label BANK TABLE (image,lineage)"
        )
    return frames


def trainable_frames(bank: Bank, task: Task, lineage: str | None = None) -> Frames:
    """The labelled frames of a bank, all or those of one lineage, that can teach or score the task.

    Raises DataError, saying what the bank lacks.
    """
    frames = labelled_frames(bank, task, lineage)
    if task == "classify" and len(bank.lineages) < 2:
        seen = ", ".join(bank.lineages) or "none"
        raise DataError(f"a classifier needs two lineages, {bank.store.uri} has {seen}; import another lineage")
    return frames


def check_teaching(bank: Bank, task: Task, lineage: str | None, teaching: Iterable[Frame]) -> None:
    """Raise DataError where the frames that are to teach leave nothing to learn from, or nothing of some lineage."""
    every = "train by folds, which learn from all labelled frames: --set folds=5 --set holdout=auto"
    lineages = Frames.of(teaching).counted("lineage")
    if not lineages:
        what = "counted frames" if task == "count" else "frames that have a lineage"
        raise DataError(f"none of the {what} of {_held(bank, lineage)} is in its train split; {every}")
    missing = sorted(set(bank.lineages) - {str(name) for (name,) in lineages}) if task == "classify" else []
    if missing:
        raise DataError(f"no frame of {', '.join(missing)} in {bank.store.uri} is left to learn from; {every}")


def _held(bank: Bank, lineage: str | None) -> str:
    return f"{lineage} in {bank.store.uri}" if lineage else bank.store.uri
