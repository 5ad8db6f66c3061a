"""An evaluation as a page that one can look at: `DIR/report.html`, self-contained, and `DIR/scores.json`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from cellnet.certainty.calibration import LEVEL
from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.errors import ConfigError
from cellnet.evaluation.batches import next_plate
from cellnet.evaluation.evaluations import Evaluation, gaps, how_new, is_own_test, title, what_it_learned, worst_rows
from cellnet.evaluation.metrics import TOO_FEW, Scores, density_of, hides, reliability, roc, shown, span, units
from cellnet.reports.pages import Headline, Plot, data_uri, page, plot
from cellnet.reports.plots import (
    draw_confusion,
    draw_counts,
    draw_density,
    draw_history,
    draw_reliability,
    draw_roc,
)
from cellnet.tasks import TASKS, Task

Table = list[list[Any]]
"""Rows, the first of them the heads."""


class WorstFrame(NamedTuple):
    """A frame with a large error as the page shows it: its worst tile, and the same with what the network looks at."""

    name: str
    truth: str
    prediction: str
    tile: str
    overlay: str


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """The path of the page. Raises ConfigError when the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps(evaluation.scores | {"plotted": plotted(evaluation)}, indent=1))
        path = folder / "report.html"
        path.write_text(report_page(evaluation), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the report into {folder}: {error.strerror}") from error
    return path


def report_page(evaluation: Evaluation) -> str:
    """The report, as HTML that holds all that it shows."""
    scores = evaluation.scores
    return page(
        "evaluation.html",
        title=title(scores),
        lead=_lead(evaluation),
        headlines=_headlines(scores),
        warning=_warning(scores),
        notes=_notes(scores),
        plots=_plots(evaluation),
        tables={"Scores": _score_rows(scores)}
        | _by_batch(scores)
        | _by_age(scores)
        | _per_lineage(scores)
        | _by_density(scores),
        pictured=bool(evaluation.worst),
        worst=_worst_frames(evaluation) if evaluation.worst else _worst_rows(evaluation),
        held=_held_rows(evaluation),
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
        f"bank {evaluation.bank_digest[:12]}",
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
    yield main.replace("mae", "mean error"), _text(scores[main], 2), f"{_span(scores[f'{main}_interval'])}, n = {n}"
    if task == "classify":
        before = scores.get("ece_uncalibrated", scores["ece"])
        words = "not calibrated" if before == scores["ece"] else f"{_text(before)} before calibration"
        yield "calibration error", _text(scores["ece"]), words
    elif "coverage" in scores:
        yield f"within the {LEVEL:.0%} interval", f"{scores['coverage']:.0%}", _span(scores["coverage_interval"])
    if "unfamiliar" in scores:
        yield "called unfamiliar", f"{scores['unfamiliar']:.0%}", _span(scores["unfamiliar_interval"])


def _span(interval: list[float]) -> str:
    ends = span(interval)
    return "–" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


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


def _notes(scores: dict[str, Any]) -> str:
    """What a reader must know to read the figures rightly."""
    notes = ["Spans are 95 % bootstrap intervals over groups; of few groups they say little."]
    if hides(scores):
        notes.append(f"{TOO_FEW}.")
    if scores["split"] == "test" and (scores.get("learned") is None or is_own_test(scores)):
        notes.append("The test split chose the epoch and calibrated the model, so it flatters a little.")
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
        notes.append("The model is not calibrated: there were no test frames, or it was published before there was.")
    elif calibration["frame_basis"] == "parts of frames":
        notes.append(
            f"The {calibration['frames']} test frames are too few for conformal intervals of frames; "
            "those given rest on parts of these frames and guarantee nothing."
        )
    elif calibration["frame_basis"] == "counted frames":
        notes.append(
            f"Scale, offset and intervals of its counts are of {calibration['frames']} counted frames of one plate."
        )
    if scores["left_out"]:
        notes.append(f"Left out: {len(scores['left_out'])}; see below.")
    return " ".join(notes)


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
    history = evaluation.card.history if evaluation.card else []
    if len(history) > 1 and {"number", "loss", "test"} <= history[0].keys():
        draw = partial(draw_history, history=history, main=TASKS[evaluation.scores["task"]].main)
        chosen = ", and its score on the test split, which chose the last epoch shown" if history[0]["test"] else ""
        plots.append(plot(draw, f"The training's loss{chosen}."))
    return plots


def _score_rows(scores: dict[str, Any]) -> Table:
    names = [name for name, value in scores["tile"].items() if isinstance(value, int | float | None)]
    of = [scores[unit] | shown(scores["task"], scores[unit], names) for unit in units(scores)]
    return [["score", *(f"per {unit}" for unit in units(scores))]] + [
        [name.replace("_", " "), *(_text(one.get(name)) for one in of)] for name in names
    ]


def _by_batch(scores: dict[str, Any]) -> dict[str, Table]:
    """Batches that the model learned from and new ones beside each other, where there is either."""
    batches, facts = scores.get("batches", {}), TASKS[scores["task"]]
    if not any(batches.values()):
        return {}
    tables = {}
    for unit in units(scores):
        of = [shown(scores["task"], side[unit], facts.figures) if side else {} for side in batches.values()]
        rows = [[name.replace("_", " "), *(_text(side.get(name)) for side in of)] for name in facts.figures]
        spans = [_span(side[unit][f"{facts.main}_interval"]) if side else "–" for side in batches.values()]
        heads = ["score", *(f"{name} batch" for name in batches)]
        tables[f"Per {unit}, by batch"] = [heads, *rows, [f"{facts.main}, 95 % interval", *spans]]
    return tables


def _by_age(scores: dict[str, Any]) -> dict[str, Table]:
    """Young and old cells, where there are both."""
    ages = scores.get("by_age", [])
    if len(ages) < 2:
        return {}
    names = TASKS[scores["task"]].figures
    rows = {f"{age['from']:g} to {age['to']:g}": shown(scores["task"], age["frame"], names) for age in ages}
    return {"Per frame, by age": _named_rows("hours since seeding", rows)}


def _per_lineage(scores: dict[str, Any]) -> dict[str, Table]:
    tables = {}
    for unit in units(scores):
        rows = {name: shown(scores["task"], of) for name, of in scores[unit].get("per_lineage", {}).items()}
        if rows:
            tables[f"Per {unit}, by lineage"] = _named_rows("lineage", rows)
    return tables


def _by_density(scores: dict[str, Any]) -> dict[str, Table]:
    bins = scores["tile"].get("by_density")
    if not bins:
        return {}
    rows = {density_of(bin, " to "): shown("count", bin) for bin in bins}
    return {"Per tile, by density": _named_rows("true count", rows)}


def _named_rows(title: str, rows: dict[str, Scores]) -> Table:
    names = list(next(iter(rows.values())))
    return [[title, *names]] + [[name, *map(_text, values.values())] for name, values in rows.items()]


def _worst_rows(evaluation: Evaluation) -> Table:
    """The worst frames in words, where there are no pictures of them."""
    rows = worst_rows(evaluation.scores["task"], evaluation.frames)
    return [["image", "true", "predicted"]] + [
        [_name(evaluation, row), *_truth_and_prediction(evaluation, row)] for row in rows
    ]


def _worst_frames(evaluation: Evaluation) -> list[WorstFrame]:
    return [
        WorstFrame(
            _name(evaluation, picture.row),
            *_truth_and_prediction(evaluation, picture.row),
            tile=_jpeg_uri(picture.tile_HW),
            overlay=_jpeg_uri(overlay(picture.tile_HW, picture.cam_HW)),
        )
        for picture in evaluation.worst
    ]


def _truth_and_prediction(evaluation: Evaluation, row: int) -> tuple[str, str]:
    """Of a frame, in words."""
    frames = evaluation.frames
    if evaluation.scores["task"] == "count":
        return f"{frames.truth[row]:.1f}", f"{frames.output[row]:.1f}"
    classes = evaluation.scores["tile"]["classes"]
    return classes[frames.truth[row]], f"{classes[frames.output[row].argmax()]} ({frames.output[row].max():.0%})"


def _name(evaluation: Evaluation, row: int) -> str:
    return Path(evaluation.sources[row]).name


def overlay(tile_HW: NDArray[np.uint8], cam_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A tile in grey with a saliency map of 0..1 over it (H, W, 3), from nothing to bright yellow; BGR."""
    heat_HW3 = cv2.applyColorMap((cam_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight_HW1 = 0.65 * cam_HW[..., None]
    return np.asarray(tile_HW[..., None] * (1 - weight_HW1) + heat_HW3 * weight_HW1, np.uint8)


def _jpeg_uri(image: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data_uri(data.tobytes(), "jpeg")


def _held_rows(evaluation: Evaluation) -> Table:
    """What the bank holds of every lineage in every split; nothing where that is not known."""
    if not evaluation.held:
        return []
    held = {(row["lineage"], row["split"]): f"{row['frames']} ({row['groups']})" for row in evaluation.held}
    splits = [split for split in ("train", "test", "holdout") if any(split == of for _, of in held)]
    lineages = list(dict.fromkeys(lineage for lineage, _ in held))
    rows = [[lineage, *(held.get((lineage, split), "–") for split in splits)] for lineage in lineages]
    return [["lineage: frames (groups)", *splits], *rows]


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


def _text(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
