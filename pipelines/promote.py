"""Point an alias at a model version that is better than the one it points at.

A Ray job, like `cellnet registry promote`:

    python -m pipelines promote classifier@3 champion --registry URI [--bank BANK]
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.teaching import labelled_frames
from cellnet.errors import ConfigError, NotBetterError, NotFoundError, plain
from cellnet.evaluation.comparison import compare
from cellnet.places import Places
from cellnet.prediction.lineup import strangers
from cellnet.registry.kept import KeptAnswer
from cellnet.registry.learned import Learned, learned_of
from cellnet.registry.records import AliasMove, Evidence, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import TASKS
from pipelines.evaluate import Kept, evaluate, kept_answers

STAYS: Final = "the alias stays as it is (--force --reason TEXT moves it all the same)"


def promote(
    ref: str,
    alias: str,
    places: Places,
    *,
    force: bool = False,
    reason: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> AliasMove:
    """The move that was made: of an alias that pointed at nothing, to a version that proved better, or by `force`.

    Both versions are scored on the holdout of one bank, that of `places`, or else the challenger's: on the frames that
    neither learned from, and of these on the ones in batches that are new to both, where there are any. The alias moves
    if the challenger is better by a paired bootstrap over groups, and not shown to be worse on frames of before, and
    the move keeps the evidence. The first counter of
    one lineage must be better at it than the general counter of the same alias, if there is one. Raises NotBetterError
    if it is not, or no frame is left, ConfigError for a `force` without a `reason`, NotFoundError, and ConflictError
    when another promoter was first.
    """
    if force and not reason.strip():
        raise ConfigError("--force needs a --reason, which is kept in the alias's history")
    registry = places.open_registry()
    challenger = registry.resolve(ref)
    last = registry.pointing(challenger.name, alias)
    seen = last.entry if last else 0
    champion = None if force else _to_beat(registry, challenger, alias, last)
    if champion is None:
        move = registry.promote(challenger.ref, alias, reason=reason, after=seen)
        _tell_of_strangers(registry, challenger, alias, say)
        return move
    evidence = weigh(challenger.ref, champion, places)
    if evidence.shows_better:
        say(plain(f"{challenger.ref} beside {champion}: {evidence}"))
    if evidence.seen is None and not evidence.same_bank[1]:
        say("note: the champion was trained on another bank or state of it, and may have seen some of these frames")
    if not evidence.shows_better:
        few = ", and one group alone shows nothing: a larger holdout_share of a new bank holds more out"
        raise NotBetterError(
            f"{challenger.ref} is not shown to be better than {champion.partition('@')[0]}:{alias}, {champion}: "
            f"{evidence}{few if evidence.groups < 2 else ''}; {STAYS}"
        )
    move = registry.promote(challenger.ref, alias, reason=reason, evidence=evidence, after=seen)
    _tell_of_strangers(registry, challenger, alias, say)
    return move


def _tell_of_strangers(registry: Registry, moved: ModelVersion, alias: str, say: Callable[[str], None]) -> None:
    """Say where the classifier and the counter that an alias now has together know no lineage in common."""
    pair = {moved.card.task: moved}
    for task, facts in TASKS.items():
        if task not in pair and not moved.card.config.lineage and (there := registry.pointing(facts.model, alias)):
            pair[task] = registry.resolve(f"{facts.model}@{there.number}")
    if line := strangers(pair.get("classify"), pair.get("count")):
        say(f"warning: {line}")


def _to_beat(registry: Registry, challenger: ModelVersion, alias: str, last: AliasMove | None) -> str | None:
    """The version that a challenger must be better than: what its alias points at, or what counts its lineage now."""
    if last:
        return None if last.fixed or last.number == challenger.number else f"{challenger.name}@{last.number}"
    general = registry.pointing(TASKS["count"].model, alias) if challenger.card.config.lineage else None
    return f"{general.name}@{general.number}" if general else None


def weigh(challenger: str, champion: str, places: Places) -> Evidence:
    """A challenger beside a champion, two references, on the holdout of one bank: all of it, or their lineage's frames.

    One that learned on by folds is compared on the frames that came since, if they are of two groups at least. Where
    both keep answers of networks that had not learned from frames of the bank, by these, and by those that had learned
    from no frame of their batch, if both keep such; else a version that learned from the holdout is taken by what it
    keeps of that. Raises NotBetterError for a counter of one lineage that
    would take the place of one of others, and where no frame is left that neither learned from.
    """
    registry = places.open_registry()
    new, old = registry.resolve(challenger), registry.resolve(champion)
    lineage, counted = new.card.config.lineage, old.card.config.lineage
    if new.name == old.name and lineage not in (None, counted):
        raise NotBetterError(
            f"{new.ref} counts {lineage} alone, and cannot take the place of {old.ref}, which counts "
            f"{counted or 'all lineages'}; {STAYS}"
        )
    on_bank = replace(places, bank=places.bank or places.registry.elsewhere(new.card.bank))
    try:
        bank = on_bank.open_bank()
    except NotFoundError as error:
        raise ConfigError(f"no bank to compare {new.ref} and {old.ref} on: {error}; name one with --bank") from error
    lineage = lineage or counted
    against = None if new.name == old.name else old.ref
    if new.card.relearned and (evidence := _weigh_relearned(new, old, on_bank, bank, lineage=lineage, against=against)):
        return evidence
    kept = [_answers_of(registry, version) for version in (new, old)]
    if by := _by_kept(kept, bank):
        evaluations = [
            evaluate(version.ref, on_bank, split="folds", lineage=lineage, kept=Kept(folds=answers))
            for version, answers in zip((new, old), by.answers, strict=True)
        ]
        return compare(*evaluations, number=old.number, against=against, batches=by.batches)
    holdout = [frame for frame in labelled_frames(bank, new.card.task, lineage) if frame.split == "holdout"]
    learned = [learned_of(registry, version) for version in (new, old)]
    chosen = _unseen(holdout, bank, learned, [one.folds for one in kept])
    if holdout and not chosen.frames:
        raise NotBetterError(
            f"of the {len(holdout)} frames of the holdout of {bank.store.uri} none is left to compare {new.ref} and "
            f"{old.ref} on: one of them learned from each, or from a near-duplicate of it; name another bank with "
            f"--bank; {STAYS}"
        )
    evaluations = [
        evaluate(version.ref, on_bank, lineage=lineage, only=chosen.frames, kept=answers)
        for version, answers in zip((new, old), kept, strict=True)
    ]
    return compare(
        *evaluations,
        number=old.number,
        against=against,
        seen=chosen.seen,
        batches=chosen.batches,
    )


def _weigh_relearned(
    new: ModelVersion, old: ModelVersion, on_bank: Places, bank: Bank, *, lineage: str | None, against: str | None
) -> Evidence | None:
    """A version that learned on, beside another, on frames that came since: its own answers are those of its folds.

    Beside them stands what both keep of the frames that both learned from, which says whether anything was forgotten.
    None where the frames that came since are not of two groups at least, or are not known.
    """
    registry = on_bank.open_registry()
    own, others, learned = kept_answers(registry, new), kept_answers(registry, old), learned_of(registry, old)
    answered = [frame for frame in labelled_frames(bank, new.card.task, lineage) if frame.frame in own.folds]
    seen = learned.seen(answered, bank.frames) if learned else {frame.frame for frame in answered}
    since = {frame.frame: frame.group for frame in answered if frame.frame not in seen}
    if len(set(since.values())) < 2:
        return None

    def weighed(frames: Collection[str], *, asked: bool) -> Evidence:
        answers = Kept(folds={name: own.folds[name] for name in frames})
        kept = Kept(folds={name: others.folds[name] for name in frames if not asked})
        evaluations = [
            evaluate(new.ref, on_bank, split="folds", lineage=lineage, only=frames, kept=answers),
            evaluate(old.ref, on_bank, split="all" if asked else "folds", lineage=lineage, only=frames, kept=kept),
        ]
        return compare(*evaluations, number=old.number, against=against, seen=0, frames="since" if asked else None)

    both = {frame.frame for frame in answered if frame.frame in others.folds.keys() - since.keys()}
    evidence = weighed(since.keys(), asked=True)
    return evidence.model_copy(update={"before": weighed(both, asked=False) if both else None})


class _ByKept(NamedTuple):
    """By what two versions are compared of which each learned from the frames."""

    answers: list[Mapping[str, KeptAnswer]]
    batches: Literal["new"] | None
    """Whether these answers are of networks that had learned from no frame of the batch."""


def _answers_of(registry: Registry, version: ModelVersion) -> Kept:
    """What a version keeps, so that those that left batches out have answers without batches."""
    kept, validation = kept_answers(registry, version), version.card.cross_validation
    return kept._replace(batches=kept.folds) if validation and validation.by_batch else kept


def _by_kept(kept: Sequence[Kept], bank: Bank) -> _ByKept | None:
    """What both keep of the same frames of a bank: without batches, of two groups at least, else by folds."""

    def groups_n(answers: Sequence[Collection[str]]) -> int:
        return len({frame.group for frame in bank.usable if all(frame.frame in one for one in answers)})

    without, folds = [one.batches for one in kept], [one.folds for one in kept]
    if groups_n(without) > 1:
        return _ByKept(without, "new")
    return _ByKept(folds, None) if groups_n(folds) else None


class _Chosen(NamedTuple):
    """What two versions are compared on."""

    frames: set[str]
    seen: int | None
    """How many are left out, since one of both has seen them; None where that is not known of both."""
    batches: Literal["new"] | None
    """Whether the frames are those of new batches alone."""


def _unseen(
    frames: Sequence[Frame], bank: Bank, learned: Sequence[Learned | None], kept: Sequence[Collection[str]]
) -> _Chosen:
    """The frames of a bank that no version learned from, or of which it keeps answers of a network that did not.

    As far as the versions tell. Of new batches alone where all tell of them, since the next plate is what a version is
    for; of two groups at least, since one alone shows nothing.
    """
    told = [one for one in learned if one is not None]
    seen = set[str]()
    for one, answers in zip(learned, kept, strict=True):
        seen |= one.seen(frames, bank.frames) - set(answers) if one else set()
    left = [frame for frame in frames if frame.frame not in seen]
    everybody = len(told) == len(learned)
    new = [frame for frame in left if everybody and all(one.side(frame.batch) == "new" for one in told)]
    decides = len({frame.group for frame in new}) > 1
    return _Chosen(
        frames={frame.frame for frame in (new if decides else left)},
        seen=len(seen) if everybody else None,
        batches="new" if decides else None,
    )
