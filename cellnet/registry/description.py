"""A version as a model card, in Markdown (Mitchell et al. 2019, 10.1145/3287560.3287596)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.errors import plain
from cellnet.registry.learned import UNMEASURED
from cellnet.registry.records import Card, MainScore, ModelVersion, Recount

BATCHES: Final = 12
"""That are named; of more their number is told."""
SIZES = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def model_card(version: ModelVersion, *, aliases: list[str], signature: str, judged: Sequence[str] = ()) -> str:
    """What a person should know of a version before using it: what it does, how well, on what, and what it is of.

    `judged`: what people said of its answers.
    """
    parts: dict[str, Iterable[str]] = {
        "How well": [
            *scored(version.card),
            *scored_by_batch(version.card),
            *_drawn(version.card),
            *_report(version),
        ],
        **({"What people said": judged} if judged else {}),
        "How sure": _sureness(version.card),
        "What it takes": _input(version.card),
        "Where it comes from": _provenance(version),
        "Files": _files(version, signature),
    }
    title = f"# {version.ref}" + (f" ({', '.join(aliases)})" if aliases else "")
    sections = (f"## {name}\n\n" + "\n".join(f"- {_text(line)}" for line in lines) for name, lines in parts.items())
    return "\n\n".join([_text(title), _text(_purpose(version.card)), *sections])


def _text(line: str) -> str:
    r"""A line that holds names of anybody, which make neither HTML, nor a link, nor a line of their own.

    >>> print(_text("learned from the batches <b>, [a](b), c\n# d"))
    learned from the batches \<b>, \[a](b), c?# d
    """
    return _OPENING.sub(lambda found: found[1] * 2 + "\\" + found[2], plain(line))


_OPENING: Final = re.compile(r"(\\*)([<\[])")


def size(count: int) -> str:
    """Bytes for a person.

    >>> size(12), size(378_400), size(44_700_000)
    ('12 bytes', '378.4 kB', '44.7 MB')
    """
    for unit, name in SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _purpose(card: Card) -> str:
    if card.task == "classify":
        return f"Names the lineage of the cells in a frame: {', '.join(card.classes)}. It knows no others."
    if card.config.lineage:
        return f"Counts the cells in a frame of {card.config.lineage}. It was trained on no other lineage."
    return "Counts the cells in a frame."


def _report_on(card: Card) -> str:
    return "the same at length" if card.config.holdout == "use" else "a report on frames that chose nothing"


def scored(card: Card) -> Iterator[str]:
    """What its scores were, split by split, and what to think of them."""
    if card.recount:
        yield from _recounted(card.recount)
        yield f"what follows was said of {card.parent}, whose network it has, and holds of no other plate"
    for split, scores in card.scores.items():
        if figures := ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float)):
            over = str(card.cross_validation) if split == "folds" else f"{split} split"
            yield f"{over}, per tile: {figures}"
    if card.cross_validation and card.scores.get("folds"):
        yield "each frame was answered by a network that had not learned from its group; this one learned from all"
        yield from card.cross_validation.gaps()
    elif card.cross_validation:
        yield f"the test score is {card.cross_validation}; the test split chose between {_chosen(card)}"
    elif card.config.protocol == "paper":
        yield "trained under protocol=paper: these scores leak, since parts of the same frames were trained on"
    elif not card.scores.get("test"):
        yield "the bank had no test split: nothing was chosen, and nothing was scored"
    else:
        yield f"the test split chose between {_chosen(card)}, so its scores are a little too good"


def _drawn(card: Card) -> Iterator[str]:
    """What is to be said of scores that are partly of frames which were chosen."""
    if card.chosen:
        yield str(card.chosen)
        for unit, of in (card.chosen.others or {}).items():
            yield f"the others, per {unit}: {_figures(of)}"


def _figures(of: MainScore) -> str:
    low, high = of.interval
    return f"{of.score} {of.value:.3f} ({low:.3f} to {high:.3f}, n={of.n})"


def _chosen(card: Card) -> str:
    """What the test split, or folds, chose among."""
    return "fits of the last layers" if card.config.model.frozen else "epochs"


def scored_by_batch(card: Card) -> Iterator[str]:
    """How it does on frames of the batches that it learned from, and of new ones, as far as is known."""
    if card.batch_scores is None:
        return
    same = str(card.cross_validation or "holdout split")
    over = {"same": same, "new": str(card.batch_validation or same)}
    for side, words in (("same", "batches that it learned from"), ("new", "new batches")):
        for unit, of in (card.batch_scores.get(side) or {}).items():
            yield f"{over[side]}, {words}, per {unit}: {_figures(of)}"
    if not card.batch_scores.get("new"):
        yield UNMEASURED


def _report(version: ModelVersion) -> Iterator[str]:
    """How to learn more of it; a bank says nothing of another plate."""
    if version.card.recount is None:
        yield f"{_report_on(version.card)}: `cellnet evaluate {version.ref} {version.card.bank}`"


def _recounted(recount: Recount) -> Iterator[str]:
    """What fitting it to a plate was worth."""
    yield f"fitted to {len(recount.frames)} counted frames of one plate on {recount.made[:10]}"
    for when, scores in (("before", recount.before), ("each frame by a fit to the others", recount.after)):
        figures = ", ".join(
            f"{name} {value:.3f}" for name, value in scores.items() if name != "n" and value is not None
        )
        yield f"of these frames, {when}: {figures}"


def _sureness(card: Card) -> Iterator[str]:
    if card.calibration is None:
        yield "not calibrated; `cellnet calibrate` publishes a version that is"
    else:
        yield from card.calibration.lines(card.task)
        if card.cross_validation and not card.recount:
            yield "these frames were answered by networks that had not learned from them"


def _input(card: Card) -> Iterator[str]:
    preprocess, (height, width) = card.preprocess, card.frame_px
    yield f"frames like those of the training: {width}×{height} pixels in the median, " + (
        f"{preprocess.pixel_um:g} µm a pixel" if preprocess.pixel_um else "of a pixel size that was not known"
    )
    yield f"cut into tiles of {preprocess.tile_px[1]}×{preprocess.tile_px[0]} pixels, each resized to 200×200"
    yield f"grey: {preprocess.intensity} become 0 and 255; kernel {preprocess.kernel}"
    if preprocess.illumination != "none":
        what = "light that changes slowly" if preprocess.illumination == "shading" else "local light and contrast"
        yield f"evened out within every tile: {what}"


def _provenance(version: ModelVersion) -> Iterator[str]:
    card, model = version.card, version.card.config.model
    shape = f", activation {model.activation}, width {model.width}, depth {model.depth}"
    own = model.architecture in FIXED_ARCHITECTURES
    yield f"network {model.architecture}{'' if own else shape}{', frozen but for its last layers' * bool(model.frozen)}"
    called = "fit" if model.frozen else "epoch"
    passes = f"{len(card.history)} {called}{'s' * (len(card.history) != 1)}" + " of its last layers" * bool(
        model.frozen
    )
    entry = f", entry {card.bank_entry}" if card.bank_entry else ""
    yield f"trained on {card.bank}, digest {card.bank_digest[:12]}{entry}; seed {card.config.seed}, {passes}"
    if card.lineages:
        yield f"learned to count {', '.join(card.lineages)}"
    if batches := [batch for batch in card.batches or () if batch is not None]:
        more = f" and {len(batches) - BATCHES} more" if len(batches) > BATCHES else ""
        unknown = ", and from frames whose batch is not known" if None in (card.batches or ()) else ""
        yield f"learned from the batches {', '.join(batches[:BATCHES])}{more}{unknown}"
    if card.start:
        yield f"its network started from {card.start}"
    if card.search:
        yield f"the best of {len(card.search)} combinations of a search" + (f", {card.sweep}" if card.sweep else "")
    if version.origin:
        yield f"imported from {version.origin.ref} of {version.origin.registry}"
    if card.parent:
        yield f"made from {card.parent}" + (" there" if version.origin else "")
    if card.relearned:
        yield f"beyond {card.parent} learned from {card.relearned}"
    if card.recount:
        frames = [f"{one.image} ({one.count:g} cells, sha256 {one.sha256[:12]}…)" for one in card.recount.frames]
        yield f"its counts fitted {card.recount.made} to {', '.join(frames)}"
    yield f"created {card.created} by cellnet {card.code_version}"
    if card.packages:
        yield "with " + ", ".join(f"{name} {number}" for name, number in card.packages.items())


def _files(version: ModelVersion, signature: str) -> Iterator[str]:
    for role, blob in version.blobs.items():
        yield f"{role}, {size(blob.size)}, sha256 {blob.sha256[:12]}…"
    if check := version.card.onnx:
        yield (
            f"model.onnx (opset {check.opset}) gave what torch gives on {check.tiles} tiles, "
            f"within {check.max_difference:.1g}"
        )
    yield signature
