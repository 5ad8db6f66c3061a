"""Which frames of a bank can teach or score a task."""

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.errors import DataError
from cellnet.tasks import Task


def labelled_frames(bank: Bank, task: Task, lineage: str | None = None) -> list[Frame]:
    """The frames, all or those of one lineage, whose count or lineage is known. Raises DataError for none."""
    if lineage is not None and lineage not in bank.lineages:
        seen = ", ".join(bank.lineages) or "none that is known"
        raise DataError(f"{bank.store.uri} has no lineage {lineage}; it has {seen}")
    if task == "count":
        frames = [frame for frame in bank.frames if frame.count is not None and lineage in (None, frame.lineage)]
        if not frames:
            raise DataError(
                f"no frame of {_held(bank, lineage)} has a count, so no counter can be trained or scored; "
                "fill the manifest's count column (or points.csv) and import it into a new bank"
            )
        return frames
    frames = [frame for frame in bank.frames if frame.lineage is not None]
    if not frames:
        raise DataError(
            f"no frame of {bank.store.uri} has a lineage, so no classifier can be trained or scored; "
            "fill the manifest's lineage column and import it into a new bank"
        )
    return frames


def trainable_frames(bank: Bank, task: Task, lineage: str | None = None) -> list[Frame]:
    """The labelled frames of a bank, all or those of one lineage, that can teach the task.

    Raises DataError, saying what the bank lacks.
    """
    frames = labelled_frames(bank, task, lineage)
    if task == "count":
        splits = {frame.split for frame in frames}
        if "train" not in splits or len(splits) < 2:
            seen = " and ".join(sorted(map(str, splits)))
            raise DataError(
                f"all counted frames of {_held(bank, lineage)} are in its {seen} split, "
                "and training needs some in train and some in another; import counted frames of another well or "
                "plate, or give the frames groups of their own"
            )
        return frames
    if len(bank.lineages) < 2:
        seen = ", ".join(bank.lineages) or "none"
        raise DataError(f"a classifier needs two lineages, {bank.store.uri} has {seen}; import another lineage")
    for lineage in bank.lineages:
        splits = {frame.split for frame in frames if frame.lineage == lineage}
        if "train" not in splits or len(splits) < 2:
            groups = len({frame.group for frame in frames if frame.lineage == lineage})
            raise DataError(
                f"the lineage {lineage} has {groups} group{'s' * (groups != 1)}, all in {', '.join(map(str, splits))}, "
                "so none is left to test on; import frames of another well or plate of it"
            )
    return frames


def _held(bank: Bank, lineage: str | None) -> str:
    return f"{lineage} in {bank.store.uri}" if lineage else bank.store.uri
