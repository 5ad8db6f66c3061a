"""An evaluation as a page that one can look at: `DIR/report.html`, self-contained, and `DIR/scores.json`."""

import base64
import html
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cellnet.config import Task
from cellnet.errors import ConfigError
from cellnet.metrics import MAIN, PER_LINEAGE, Rows


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores, and the truths and outputs that they were taken over."""

    scores: dict[str, Any]
    """The object that `cellnet evaluate --json` prints."""
    tiles: Rows
    frames: Rows
    sources: list[str]
    """The files of the frames."""


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; border-radius: 6px; }
.note { opacity: .75; }
"""


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """The path of the page. Raises ConfigError when the folder cannot be written."""
    scores = evaluation.scores
    caption, draw = FIGURES[scores["task"]]
    figure = _figure(draw, evaluation)
    title = f"{scores['model']} on the {scores['split']} split"
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
{_summary(scores)}
<img alt="{caption}" src="{figure}">
<p class="note">{caption}</p>
{_per_lineage(scores)}
<h2>Frames with the largest error</h2>{_worst(evaluation)}
</body></html>"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps(scores, indent=1))
        path = folder / "report.html"
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the report into {folder}: {error.strerror}") from error
    return path


def _summary(scores: dict[str, Any]) -> str:
    names = [name for name, value in scores["tile"].items() if isinstance(value, int | float | None)]
    main = MAIN[scores["task"]]
    rows = [["per", *names]] + [[unit, *(_text(scores[unit][name]) for name in names)] for unit in ("tile", "frame")]
    low, high = scores["frame"][f"{main}_interval"]
    leaks = "" if scores["split"] in ("holdout", "test") else " These frames include the training frames: it flatters."
    out = f" Left out: {len(scores['left_out'])}; scores.json says why." if scores["left_out"] else ""
    return _table(rows) + f"<p>{main} per frame: {low:.3f} to {high:.3f} (95 % bootstrap over groups).{leaks}{out}</p>"


def _per_lineage(scores: dict[str, Any]) -> str:
    lineages = scores["frame"].get("per_lineage")
    if not lineages:
        return ""
    names = PER_LINEAGE[scores["task"]]
    rows = [["lineage", *names]] + [[name, *(_text(values[key]) for key in names)] for name, values in lineages.items()]
    return "<h2>Per frame, by lineage</h2>" + _table(rows)


def _worst(evaluation: Evaluation, most: int = 8) -> str:
    frames = evaluation.frames
    if evaluation.scores["task"] == "classify":
        classes = evaluation.scores["tile"]["classes"]
        error_F = 1 - frames.output[np.arange(len(frames.truth)), frames.truth]
        truth = [classes[index] for index in frames.truth]
        said = [classes[index] for index in frames.output.argmax(1)]
    else:
        error_F = np.abs(frames.output - frames.truth)
        truth, said = ([f"{value:.1f}" for value in of] for of in (frames.truth, frames.output))
    worst = np.argsort(-error_F)[:most]
    rows = [["image", "true", "predicted"]] + [
        [Path(evaluation.sources[row]).name, truth[row], said[row]] for row in worst
    ]
    return _table(rows)


def draw_confusion(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """A confusion matrix onto matplotlib axes: colour is the share of the true lineage, numbers are rows."""
    classes = evaluation.scores[unit]["classes"]
    confusion_KK = np.array(evaluation.scores[unit]["confusion"])
    share_KK = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    axis.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*share_KK.shape):
        if confusion_KK[row, column]:
            colour = "white" if share_KK[row, column] > 0.5 else "black"
            axis.text(column, row, confusion_KK[row, column], ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(title=f"per {unit}: accuracy {evaluation.scores[unit]['accuracy']:.2f}", xlabel="predicted", ylabel="true")


def draw_counts(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """Predicted against true counts onto matplotlib axes, with the line of equality."""
    rows = evaluation.tiles if unit == "tile" else evaluation.frames
    top = max(rows.truth.max(), rows.output.max(), 1.0) * 1.05
    axis.plot([0, top], [0, top], color="grey", linewidth=1)
    axis.scatter(rows.truth, rows.output, s=14, alpha=0.5, color="#1f6fb2", edgecolors="none", clip_on=False)
    axis.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="true count", ylabel="predicted count")
    r2 = evaluation.scores[unit]["r2"]
    figures = f"MAE {evaluation.scores[unit]['mae']:.2f}" + (f", R² {r2:.2f}" if r2 is not None else "")
    axis.set_title(f"per {unit}: {figures}")


FIGURES: Final[dict[Task, tuple[str, Callable[[Any, Evaluation, str], None]]]] = {
    "classify": (
        "Confusion matrices: colour is the share of the true lineage, numbers are tiles and frames.",
        draw_confusion,
    ),
    "count": ("Predicted against true counts; the line is equality.", draw_counts),
}


def _figure(draw: Callable[[Any, Evaluation, str], None], evaluation: Evaluation) -> str:
    """Tiles and frames side by side, as the `src` of an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.2, 5), layout="constrained")
    for axis, unit in zip(figure.subplots(1, 2), ("tile", "frame"), strict=True):
        draw(axis, evaluation, unit)
    return src_of(png_of(figure))


def png_of(figure: Any) -> bytes:
    """A matplotlib figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def src_of(png: bytes) -> str:
    """A PNG as the `src` of an image that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _table(rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
