"""An evaluation as a page that one can look at: `DIR/report.html`, self-contained, and `DIR/scores.json`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from cellnet.certainty.calibration import LEVEL
from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.errors import ConfigError
from cellnet.evaluation.batches import next_plate
from cellnet.evaluation.evaluations import (
    Evaluation,
    chosen_of,
    gaps,
    how_new,
    is_own_test,
    title,
    what_it_learned,
)
from cellnet.evaluation.metrics import (
    TOO_FEW,
    hides,
    reliability,
    roc,
    span,
    units,
)
from cellnet.registry.records import Card
from cellnet.reports.pages import Headline, Plot, page, plot, write_page
from cellnet.reports.plots import (
    draw_confusion,
    draw_counts,
    draw_density,
    draw_history,
    draw_reliability,
    draw_roc,
)
from cellnet.reports.score_tables import score_tables, span_of, text_of
from cellnet.reports.words import MEANINGS, SPLITS, SPLITS_TOLD, headline, held_table
from cellnet.reports.worst import WORST_HEADINGS, legend, worst_frames, worst_note, worst_table
from cellnet.tasks import TASKS, Task


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """The path of the page. Raises ConfigError when the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_page(folder / "scores.json", json.dumps(evaluation.scores | {"plotted": plotted(evaluation)}, indent=1))
        path = folder / "report.html"
        write_page(path, report_page(evaluation))
    except OSError as error:
        raise ConfigError(f"cannot write the report into {folder}: {error.strerror}") from error
    return path


def report_page(evaluation: Evaluation) -> str:
    """The report, as HTML that holds all that it shows."""
    scores = evaluation.scores
    return page(
        "evaluation.html",
        title=title(scores),
        headline=headline(evaluation),
        lead=_lead(evaluation),
        headlines=_headlines(scores),
        warning=_warning(scores),
        notes=_notes(scores),
        plots=_plots(evaluation),
        tables=score_tables(scores),
        worst_heading=WORST_HEADINGS[scores["task"]],
        worst_note=worst_note(evaluation),
        worst=worst_frames(evaluation),
        worst_rows=[] if evaluation.worst else worst_table(evaluation),
        legend=legend(evaluation),
        held=held_table(evaluation.held),
        splits=SPLITS_TOLD,
        bank_digest=evaluation.bank_digest,
        lists=_lists(evaluation),
        configuration=_configuration(evaluation),
    )


def plotted(evaluation: Evaluation) -> dict[str, Any]:
    """What the plots show beyond the scores: curves, bins and points, by tile and frame, and the training's history."""
    card = evaluation.card
    return {"history": card.history if card else []} | {unit: _points(evaluation, unit) for unit in ("tile", "frame")}


def _points(evaluation: Evaluation, unit: str) -> dict[str, Any]:
    rows, scores = evaluation.rows(unit), evaluation.scores[unit]
    if evaluation.scores["task"] == "count":
        points = {"truth": rows.truth.tolist(), "count": rows.output.tolist()}
        return points | ({"interval": rows.interval.tolist()} if rows.interval is not None else {})
    return {
        "roc": {name: roc(rows.truth == i, rows.output[:, i]) for i, name in enumerate(scores["classes"])},
        "reliability": [asdict(bin) for bin in reliability(rows.truth, rows.output)],
        "reliability_uncalibrated": [
            asdict(bin) for bin in (reliability(rows.truth, rows.raw) if rows.raw is not None else [])
        ],
    }


def _lead(evaluation: Evaluation) -> str:
    card = evaluation.card
    if card is None:
        return ""
    model = card.config.model
    an = "An" if model.architecture.startswith("e") else "A"
    activation = "" if model.architecture in FIXED_ARCHITECTURES else f"{model.activation}, "
    words = [
        f"{an} {model.architecture} network ({activation}kernel {card.preprocess.kernel})",
        f"published {card.created[:10]}",
        f"bank {evaluation.bank_digest[:12]}" + (f", entry {evaluation.bank_entry}" if evaluation.bank_entry else ""),
    ]
    return ", ".join(words)


def _headlines(scores: dict[str, Any]) -> list[Headline]:
    """The main figures by frame and tile, each with its interval."""
    return [
        Headline(f"{name} per {unit}", value, note)
        for unit in reversed(units(scores))
        for name, value, note in _figures(scores["task"], scores[unit])
    ]


def _figures(task: Task, scores: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(name, value, what to know of it) of the figures that matter most."""
    main, n = TASKS[task].main, scores["n"]
    note = _note(scores[f"{main}_interval"], f"n = {n}; {MEANINGS[main]}")
    yield main.replace("mae", "mean error"), text_of(scores[main], 2), note
    if task == "classify":
        before = scores.get("ece_uncalibrated", scores["ece"])
        words = "not calibrated" if before == scores["ece"] else f"{text_of(before)} before calibration"
        yield "calibration error", text_of(scores["ece"]), f"{words}; {MEANINGS['ece']}"
    elif "coverage" in scores:
        note = _note(scores["coverage_interval"], f"{LEVEL:.0%} is due")
        yield f"within the {LEVEL:.0%} interval", f"{scores['coverage']:.0%}", note
    if "unfamiliar" in scores:
        note = _note(scores["unfamiliar_interval"], "0 % is best where frames are like the training images")
        yield "called unfamiliar", f"{scores['unfamiliar']:.0%}", note


def _note(interval: list[float], words: str) -> str:
    """An interval, where there is one, and what else is to be known of a figure."""
    return words if span(interval) is None else f"{span_of(interval)}; {words}"


def _warning(scores: dict[str, Any]) -> str:
    """Why the figures may not be trusted, if there is a reason."""
    if scores.get("learned") is not None:
        seen = what_it_learned(scores)
        return "" if is_own_test(scores) or not seen else f"{seen}: it flatters."
    reasons = []
    if scores["split"] not in ("holdout", "test", "folds"):
        reasons.append("These frames include the training frames: it flatters.")
    if not scores["same_bank"]:
        reasons.append("The model was trained on another state of the bank, whose splits may differ.")
    return " ".join(reasons)


def _notes(scores: dict[str, Any]) -> list[str]:
    """What a reader must know to read the figures rightly."""
    notes = [
        f"{scores['split'].capitalize()}: {SPLITS[scores['split']]}.",
        "A frame is an image as recorded; a tile is a part of it that the network sees at once.",
        "Spans are 95 % bootstrap intervals over groups; of few groups they say little.",
    ]
    if chosen := chosen_of(scores):
        notes.append(f"{chosen}.")
    if hides(scores):
        notes.append(f"{TOO_FEW}.")
    if scores["split"] == "test" and (scores.get("learned") is None or is_own_test(scores)):
        notes.append("The test split chose what was published, and calibrated it, so it flatters a little.")
    if scores.get("cross_validation"):
        notes.append(
            "Each frame was answered by a network that had not learned from it; pictures are of the published one."
        )
        notes += [f"{gap}." for gap in gaps(scores)]
    if new := how_new(scores):
        notes.append(f"The column of new batches is of other networks: {new}.")
    if unmeasured := next_plate(scores):
        notes.append(f"{unmeasured[0].upper()}{unmeasured[1:]}.")
    if scores.get("of_frames", 0) > (seen := scores["frame"]["n"] + len(scores["left_out"])):
        notes.append(f"These are {seen} of the split’s {scores['of_frames']:,} frames, drawn at random.")
    calibration = scores.get("calibration")
    if not calibration or not calibration["tiles"]:
        notes.append(
            "The model is not calibrated: no split or fold had frames for it, or it was published before there was."
        )
    elif calibration["frame_basis"] == "parts of frames":
        notes.append(
            f"The {calibration['frames']} frames that calibrated it are too few for conformal intervals of frames; "
            "those given rest on parts of these frames and guarantee nothing."
        )
    elif calibration["frame_basis"] == "counted frames":
        notes.append(
            f"Scale, offset and intervals of its counts are of {calibration['frames']} counted frames of one plate."
        )
    if scores["left_out"]:
        notes.append(f"Left out: {len(scores['left_out'])}; see below.")
    return notes


def _plots(evaluation: Evaluation) -> list[Plot]:
    """Every plot of the task."""
    classifies = evaluation.scores["task"] == "classify"
    plots: list[Plot] = []
    for unit in units(evaluation.scores):
        draw_main, words = (
            (draw_confusion, f"Confusion matrix: colour is the share of the true lineage, numbers are {unit}s.")
            if classifies
            else (draw_counts, "Predicted against true counts; the grey line is equality, bars are intervals.")
        )
        plots.append(plot(partial(draw_main, evaluation=evaluation, unit=unit), words))
    if classifies:
        unit = units(evaluation.scores)[0]
        plots += [
            plot(partial(draw_roc, evaluation=evaluation, unit=unit), "ROC curve of each lineage against the rest."),
            plot(
                partial(draw_reliability, evaluation=evaluation, unit=unit),
                "How often the model is right that is so sure; on the grey line it is as right as it is sure.",
            ),
        ]
    else:
        for unit in units(evaluation.scores):
            if len(evaluation.scores[unit].get("by_density", [])) > 1:
                draw = partial(draw_density, evaluation=evaluation, unit=unit)
                plots.append(plot(draw, f"Mean error and bias of {unit}s with few and with many cells."))
    plots += _history(evaluation.card) if evaluation.card else []
    return plots


def _history(card: Card) -> list[Plot]:
    """A training's course, and over what its epochs, or the fits of its last layers, were scored."""
    if len(card.history) < 2 or not {"number", "loss", "test"} <= card.history[0].keys():
        return []
    over = "folds" if card.scores.get("folds") else "test"
    called = "fit" if card.config.model.frozen else "epoch"
    draw = partial(draw_history, history=card.history, main=TASKS[card.task].main, called=called, over=over)
    if not card.history[0]["test"]:
        return [plot(draw, "The training's loss.")]
    scored = {"folds": "the frames that folds held back", "test": "the test split"}[over]
    if card.config.model.frozen:
        return [plot(draw, f"Loss of each fit of the last layers, and its score on {scored}, which chose among them.")]
    return [plot(draw, f"The training's loss, and its score on {scored}, which chose the last epoch shown.")]


def _lists(evaluation: Evaluation) -> dict[str, list[str]]:
    """What was left out, where something was."""
    lists = {
        "Frames left out of this evaluation": evaluation.scores["left_out"],
        "Files that the bank set aside": evaluation.set_aside,
    }
    return {words: lines for words, lines in lists.items() if lines}


def _configuration(evaluation: Evaluation) -> str:
    card = evaluation.card
    if card is None:
        return ""
    chosen = card.model_dump(mode="json", exclude={"history", "search", "scores", "batch_scores"})
    text: str = yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True)
    return text
