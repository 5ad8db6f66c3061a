"""An evaluation as a page that one can look at: `DIR/report.html`, self-contained, and `DIR/scores.json`."""

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from cellnet.certainty.calibration import LEVEL
from cellnet.errors import ConfigError
from cellnet.evaluation.evaluations import Evaluation, Picture, title, worst_rows
from cellnet.evaluation.metrics import Scores, reliability, roc, shown, units
from cellnet.reports.pages import page, plot, table
from cellnet.reports.plots import (
    draw_confusion,
    draw_counts,
    draw_density,
    draw_history,
    draw_reliability,
    draw_roc,
)
from cellnet.tasks import TASKS, Task


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
    name = title(scores)
    return page(
        name,
        f"""<header><h1>{html.escape(name)}</h1>{_lead(evaluation)}</header>
{_headline(scores)}{_notes(scores)}
{_plots(evaluation)}
{_table_section("Scores", _score_rows(scores))}
{_per_lineage(scores)}{_by_density(scores)}
<h2>Frames with the largest error</h2>{_worst(evaluation)}
{_data(evaluation)}{_configuration(evaluation)}""",
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
    words = [
        f"A {model.architecture} network ({model.activation}, kernel {card.preprocess.kernel})",
        f"published {card.created[:10]}",
        f"bank {evaluation.bank_digest[:12]}",
    ]
    return f'<p class="soft">{html.escape(", ".join(words))}</p>'


def _headline(scores: dict[str, Any]) -> str:
    """The main figures as tiles, each with its interval."""
    tiles = [
        f"<div><small>{name} per {unit}</small><b>{value}</b><small>{note}</small></div>"
        for unit in reversed(units(scores))
        for name, value, note in _figures(scores["task"], scores[unit])
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


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
    low, high = interval
    return f"{low:.2f} to {high:.2f}"


def _notes(scores: dict[str, Any]) -> str:
    """What a reader must know to read the figures rightly."""
    notes = ["Spans are 95 % bootstrap intervals over groups; of few groups they say little."]
    if scores["split"] == "test":
        notes.append("The test split chose the epoch and calibrated the model, so it flatters a little.")
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
    flatters = scores["split"] not in ("holdout", "test")
    warning = "These frames include the training frames: it flatters." if flatters else ""
    if not scores["same_bank"]:
        warning += " The model was trained on another state of the bank, whose splits may differ."
    out = f" Left out: {len(scores['left_out'])}; see below." if scores["left_out"] else ""
    warned = f'<p class="warn">{warning.strip()}</p>' if warning else ""
    return f'{warned}<p class="note">{" ".join(notes)}{out}</p>'


def _plots(evaluation: Evaluation) -> str:
    """Every plot of the task, each a figure with its words."""
    classifies = evaluation.scores["task"] == "classify"
    found: list[str] = []
    for unit in units(evaluation.scores):
        draw_main, words = (
            (draw_confusion, f"Confusion matrix: colour is the share of the true lineage, numbers are {unit}s.")
            if classifies
            else (draw_counts, "Predicted against true counts; the grey line is equality, bars are intervals.")
        )
        found.append(plot(partial(draw_main, evaluation=evaluation, unit=unit), words))
    if classifies:
        unit = units(evaluation.scores)[0]
        found += [
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
                found.append(plot(draw, f"Mean error and bias of {unit}s with few and with many cells."))
    history = evaluation.card.history if evaluation.card else []
    if history and {"number", "loss", "test"} <= history[0].keys():
        draw = partial(draw_history, history=history, main=TASKS[evaluation.scores["task"]].main)
        chosen = ", and its score on the test split, which chose the last epoch shown" if history[0]["test"] else ""
        found.append(plot(draw, f"The training's loss{chosen}."))
    return f'<h2>At a glance</h2><div class="plots">{"".join(found)}</div>'


def _score_rows(scores: dict[str, Any]) -> list[list[Any]]:
    names = [name for name, value in scores["tile"].items() if isinstance(value, int | float | None)]
    shown = units(scores)
    return [["score", *(f"per {unit}" for unit in shown)]] + [
        [name.replace("_", " "), *(_text(scores[unit].get(name)) for unit in shown)] for name in names
    ]


def _per_lineage(scores: dict[str, Any]) -> str:
    tables = []
    for unit in units(scores):
        rows = {name: shown(scores["task"], of) for name, of in scores[unit].get("per_lineage", {}).items()}
        if rows:
            tables.append(_table_section(f"Per {unit}, by lineage", _named_rows("lineage", rows)))
    return "".join(tables)


def _by_density(scores: dict[str, Any]) -> str:
    bins = scores["tile"].get("by_density")
    if not bins:
        return ""
    rows = {f"{bin['from']:g} to {bin['to']:g}": shown("count", bin) for bin in bins}
    return _table_section("Per tile, by density", _named_rows("true count", rows))


def _named_rows(title: str, rows: dict[str, Scores]) -> list[list[Any]]:
    """The rows of a table, with their heads."""
    names = list(next(iter(rows.values())))
    return [[title, *names]] + [[name, *map(_text, values.values())] for name, values in rows.items()]


def _worst(evaluation: Evaluation) -> str:
    """The worst frames: as pictures, where there are some, and else as a table."""
    told = {row: _told(evaluation, row) for row in worst_rows(evaluation.scores["task"], evaluation.frames)}
    if not evaluation.worst:
        rows = [["image", "true", "predicted"]] + [[_name(evaluation, row), *words] for row, words in told.items()]
        return table(rows)
    figures = (
        _worst_figure(picture, _name(evaluation, picture.row), *told[picture.row]) for picture in evaluation.worst
    )
    return (
        '<p class="note">The worst tile of each: as it is, and with what spoke most for the prediction (Grad-CAM) in '
        f'yellow.</p><div class="worst">{"".join(figures)}</div>'
    )


def _told(evaluation: Evaluation, row: int) -> tuple[str, str]:
    """The truth and the prediction of a frame."""
    frames = evaluation.frames
    if evaluation.scores["task"] == "count":
        return f"{frames.truth[row]:.1f}", f"{frames.output[row]:.1f}"
    classes = evaluation.scores["tile"]["classes"]
    return classes[frames.truth[row]], f"{classes[frames.output[row].argmax()]} ({frames.output[row].max():.0%})"


def _name(evaluation: Evaluation, row: int) -> str:
    return Path(evaluation.sources[row]).name


def _worst_figure(picture: Picture, name: str, truth: str, said: str) -> str:
    alts = (f"worst tile of {name}", f"where the network looks in {name}")
    pair = "".join(
        f'<img alt="{html.escape(alt)}" src="{_jpeg(image)}">'
        for alt, image in zip(alts, (picture.tile_HW, overlay(picture.tile_HW, picture.cam_HW)), strict=True)
    )
    words = f"<b>{html.escape(name)}</b><br>true {html.escape(truth)}, predicted {html.escape(said)}"
    return f'<figure><div class="pair">{pair}</div><figcaption>{words}</figcaption></figure>'


def overlay(tile_HW: NDArray[np.uint8], cam_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A tile in grey with a saliency map of 0..1 over it (H, W, 3), from nothing to bright yellow; BGR."""
    heat_HW3 = cv2.applyColorMap((cam_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight_HW1 = 0.65 * cam_HW[..., None]
    return np.asarray(tile_HW[..., None] * (1 - weight_HW1) + heat_HW3 * weight_HW1, np.uint8)


def _jpeg(image: NDArray[np.uint8]) -> str:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _data(evaluation: Evaluation) -> str:
    """What the bank holds and what was left out."""
    parts = []
    if evaluation.held:
        held = {(row["lineage"], row["split"]): f"{row['frames']} ({row['groups']})" for row in evaluation.held}
        splits = [split for split in ("train", "test", "holdout") if any(split == of for _, of in held)]
        lineages = list(dict.fromkeys(lineage for lineage, _ in held))
        rows = [[lineage, *(held.get((lineage, split), "–") for split in splits)] for lineage in lineages]
        parts.append(table([["lineage: frames (groups)", *splits], *rows]))
        parts.append(f'<p class="note">The bank’s digest is {html.escape(evaluation.bank_digest)}.</p>')
    for words, lines in (
        ("Frames left out of this evaluation", evaluation.scores["left_out"]),
        ("Files that the bank set aside", evaluation.set_aside),
    ):
        if lines:
            listed = "\n".join(map(html.escape, lines[:200]))
            parts.append(f"<details><summary>{words}: {len(lines)}</summary><pre>{listed}</pre></details>")
    return f"<h2>Data</h2>{''.join(parts)}" if parts else ""


def _configuration(evaluation: Evaluation) -> str:
    card = evaluation.card
    if card is None:
        return ""
    shown = card.model_dump(mode="json", exclude={"history", "search", "scores"})
    text = html.escape(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
    return (
        f"<h2>Configuration</h2><details open><summary>Everything that was chosen</summary><pre>{text}</pre></details>"
    )


def _table_section(title: str, rows: list[list[Any]]) -> str:
    return f"<h2>{html.escape(title)}</h2>{table(rows)}"


def _text(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
