"""Point an alias at a model version that is better than the one it points at.

A Ray job, like `cellnet registry promote`:

    python -m pipelines.promote classifier@3 champion --registry URI [--bank BANK]
"""

from collections.abc import Callable
from dataclasses import replace

from cellnet.errors import ConfigError, NotBetterError, NotFoundError
from cellnet.evaluation import compare
from cellnet.registry import AliasMove, Evidence
from pipelines.evaluate import evaluate
from pipelines.places import Places


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

    Both versions are scored on the holdout of one bank: that of `places`, or else the challenger's. The alias moves if
    the challenger is better by a paired bootstrap over groups, and the move keeps the evidence. Raises NotBetterError
    if it is not, ConfigError for a `force` without a `reason`, NotFoundError, and ConflictError when another promoter
    was first.
    """
    if force and not reason.strip():
        raise ConfigError("--force needs a --reason, which is kept in the alias's history")
    registry = places.open_registry()
    challenger = registry.resolve(ref)
    last = registry.pointing(challenger.name, alias)
    seen = last.entry if last else 0
    if last is None or last.fixed or force or last.number == challenger.number:
        return registry.promote(challenger.ref, alias, reason=reason, after=seen)
    champion = f"{challenger.name}@{last.number}"
    evidence = weigh(challenger.ref, champion, places)
    say(f"{challenger.ref} beside {champion}: {evidence}")
    if not evidence.same_bank[1]:
        say("note: the champion was trained on another bank or state of it, and may have seen some of these frames")
    if not evidence.shows_better:
        raise NotBetterError(
            f"{challenger.ref} is not shown to be better than {challenger.name}:{alias}, {champion}: {evidence}; "
            "the alias stays (--force --reason TEXT moves it all the same)"
        )
    return registry.promote(challenger.ref, alias, reason=reason, evidence=evidence, after=seen)


def weigh(challenger: str, champion: str, places: Places) -> Evidence:
    """A challenger beside a champion, two references, on the holdout of one bank."""
    registry = places.open_registry()
    new, old = registry.resolve(challenger), registry.resolve(champion)
    on_bank = replace(places, bank=places.bank or new.card.bank)
    try:
        on_bank.open_bank()
    except NotFoundError as error:
        raise ConfigError(f"no bank to compare {new.ref} and {old.ref} on: {error}; name one with --bank") from error
    evaluations = [evaluate(version.ref, on_bank, split="holdout") for version in (new, old)]
    return compare(*evaluations, number=old.number)


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["registry", "promote", *sys.argv[1:]]))
