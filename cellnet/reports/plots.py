"""An evaluation as plots: onto matplotlib axes, and those as SVG that takes the colours of the page around it."""

import io
import re
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import density_of, expected_calibration_error, reliability, roc, shown

INK: Final = "#0a0b0c"
"""Stands for the colour of the page's text, which is another in dark mode."""
PAPER: Final = "#fefdfc"
"""Likewise for what is behind a plot."""
BLUE: Final = "#2f7fc1"
ORANGE: Final = "#d9730d"
"""With blue, told apart by all kinds of colour vision, and readable on black and on white."""
MOST_POINTS: Final = 1500
"""Points drawn as shapes; more are drawn as one picture."""
LINES: Final = (BLUE, ORANGE, "#7a5195", "#109d8a", "#bc5090", "#8a8f27", "#5d6fd3", "#a0643c")


def svg(draw: Callable[[Any], None], *, width: float = 5.2, height: float = 4.2) -> str:
    """What `draw` draws onto axes, as an `<svg>` to be put into a page: text is text, its colour the page's."""
    import matplotlib
    from matplotlib.figure import Figure

    colours: dict[Any, Any] = {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
    colours |= {"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "legend.frameon": False}
    shape: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "font.size": 10,
    }
    with matplotlib.rc_context({**colours, **shape, "svg.fonttype": "none", "svg.hashsalt": "cellnet"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, dpi=110, metadata={"Date": None})
    text = buffer.getvalue().replace(INK, "currentColor").replace(PAPER, "var(--card, #fff)")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"|(<svg )', r"\1\2", text[text.index("<svg") :], count=1)


def draw_confusion(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """A confusion matrix: colour is the share of the true lineage, numbers are rows."""
    classes = evaluation.scores[unit]["classes"]
    confusion_KK = np.array(evaluation.scores[unit]["confusion"])
    share_KK = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    for row, column in np.ndindex(*share_KK.shape):
        # Pale enough that the page's text is read on it, dark or light.
        axis.add_patch(_cell(column, row, share_KK[row, column]))
        if confusion_KK[row, column]:
            axis.text(column, row, confusion_KK[row, column], ha="center", va="center", fontsize=8, color=INK)
    axis.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal")
    axis.set_xticks(range(len(classes)), [plain(name) for name in classes], rotation=45, ha="right", fontsize=9)
    axis.set_yticks(range(len(classes)), [plain(name) for name in classes], fontsize=9)
    axis.tick_params(length=0)
    axis.set(title=f"per {unit}: accuracy {evaluation.scores[unit]['accuracy']:.2f}", xlabel="predicted", ylabel="true")


def _cell(column: int, row: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    return Rectangle(corner, 1, 1, facecolor=(BLUE, 0.65 * share), edgecolor=INK, linewidth=0.15)


def plain(name: str, most: int = 24) -> str:
    """A name as matplotlib shows it letter by letter, not as a formula, and not too long.

    >>> plain("$a^2$"), plain("x" * 30, most=4)
    ('\\\\$a^2\\\\$', 'xxx…')
    """
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")


def draw_counts(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """Predicted against true counts, with the line of equality, and the intervals of a few."""
    rows = evaluation.rows(unit)
    top = max(np.nanmax(rows.truth), rows.output.max(), 1.0) * 1.05
    axis.plot([0, top], [0, top], color="#8a8f96", linewidth=1)
    if rows.interval is not None and len(rows.truth) <= 60:
        axis.vlines(rows.truth, rows.interval[:, 0], rows.interval[:, 1], color=BLUE, alpha=0.45, linewidth=1.2)
    axis.scatter(
        rows.truth,
        rows.output,
        s=14,
        alpha=0.55,
        color=BLUE,
        edgecolors="none",
        clip_on=False,
        rasterized=len(rows.truth) > MOST_POINTS,
    )
    axis.set(xlim=(0, top), ylim=(0, top), aspect="equal", xlabel="true count", ylabel="predicted count")
    r2 = shown("count", evaluation.scores[unit], ["r2"])["r2"]
    figures = f"MAE {evaluation.scores[unit]['mae']:.2f}" + (f", R² {r2:.2f}" if r2 is not None else "")
    axis.set_title(f"per {unit}: {figures}")


def draw_roc(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """The ROC curve of each lineage against the rest."""
    rows, scores = evaluation.rows(unit), evaluation.scores[unit]
    axis.plot([0, 1], [0, 1], color="#8a8f96", linewidth=1)
    for label, name in enumerate(scores["classes"]):
        points = roc(rows.truth == label, rows.output[:, label])
        if points:
            auc = shown("classify", scores["per_lineage"][name], ["auc"])["auc"]
            words = plain(name) + (f" {auc:.3f}" if auc is not None else "")
            axis.plot(*zip(*points, strict=True), label=words, linewidth=1.6, clip_on=False, **_line(label))
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(f"per {unit}: ROC, with the area under it")
    axis.legend(fontsize=8, loc="lower right")


def _line(number: int) -> dict[str, Any]:
    """A colour and a stroke that tell the lines of a plot apart."""
    return {"color": LINES[number % len(LINES)], "linestyle": ("-", "--", ":")[number // len(LINES) % 3]}


def draw_reliability(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """How often a model is right that says it is so sure; the area of a dot is its share of the rows."""
    rows = evaluation.rows(unit)
    axis.plot([0, 1], [0, 1], color="#8a8f96", linewidth=1)
    calibrated = rows.raw is not None and not np.array_equal(rows.raw, rows.output)
    said = [(rows.output, "calibrated" if calibrated else "not calibrated", BLUE, "o")]
    if rows.raw is not None and calibrated:
        said.insert(0, (rows.raw, "before calibration", ORANGE, "s"))
    for output, name, colour, marker in said:
        bins = reliability(rows.truth, output)
        ece = expected_calibration_error(rows.truth, output)
        sure, right = [bin.probability for bin in bins], [bin.accuracy for bin in bins]
        area = [16 + 260 * bin.n / len(rows.truth) for bin in bins]
        axis.plot(sure, right, color=colour, linewidth=1, alpha=0.7)
        axis.scatter(sure, right, s=area, color=colour, alpha=0.6, marker=marker, edgecolors="none", clip_on=False)
        axis.plot([], [], color=colour, marker=marker, label=f"{name}: ECE {ece:.3f}")
    axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="highest probability", ylabel="share that is right")
    axis.set_title(f"per {unit}: reliability")
    axis.legend(fontsize=8, loc="upper left")


def draw_density(axis: Any, evaluation: Evaluation, unit: str) -> None:
    """The error and the bias in bins of the true count."""
    bins = evaluation.scores[unit]["by_density"]
    names = [density_of(bin, "–") for bin in bins]
    places = np.arange(len(bins))
    axis.bar(places - 0.2, [bin["mae"] for bin in bins], 0.38, color=BLUE, label="MAE")
    axis.bar(
        places + 0.2, [bin["bias"] for bin in bins], 0.38, color=ORANGE, label="bias", hatch="//", edgecolor="none"
    )
    axis.axhline(0, color=INK, linewidth=0.6)
    axis.set_xticks(places, [f"{name}\nn={bin['n']}" for name, bin in zip(names, bins, strict=True)], fontsize=8)
    axis.set(xlabel="true count", ylabel="cells", title=f"per {unit}: error by density")
    axis.legend(fontsize=8)


def draw_history(
    axis: Any, history: list[dict[str, Any]], main: str, *, called: str = "epoch", over: str = "test"
) -> None:
    """The loss and the main score of every epoch, or fit of the last layers, and over what it was scored."""
    epochs = [epoch["number"] for epoch in history]
    axis.plot(epochs, [epoch["loss"] for epoch in history], color=ORANGE, linestyle="--", label="training loss")
    axis.set(xlabel=called, ylabel="training loss", title="training")
    axis.xaxis.get_major_locator().set_params(integer=True)
    handles, names = axis.get_legend_handles_labels()
    if all(main in epoch["test"] for epoch in history):
        other = axis.twinx()
        other.plot(epochs, [epoch["test"][main] for epoch in history], color=BLUE, label=f"{over} {main}")
        other.set_ylabel(f"{over} {main}")
        other.spines["right"].set_visible(True)
        more, further = other.get_legend_handles_labels()
        handles, names = handles + more, names + further
    axis.legend(handles, names, fontsize=8, loc="best")


def draw_heat_map(
    axis: Any,
    cells: dict[tuple[str, str], tuple[float, float, float]],
    sides: dict[str, list[str]],
    *,
    more_is_better: bool,
) -> None:
    """Scores with their intervals, (score, low, high) by (row, column); the best is framed.

    `sides` are the names of the two settings with their values: first the rows, then the columns.
    """
    rows, columns = sides.values()
    scores = [score for score, _, _ in cells.values()]
    worst, best = (min(scores), max(scores)) if more_is_better else (max(scores), min(scores))
    for (row, column), (score, low, high) in cells.items():
        share = (score - worst) / (best - worst) if best != worst else 1.0
        x, y = columns.index(column), rows.index(row)
        axis.add_patch(_cell(x, y, share))
        if score == best:
            axis.add_patch(_frame(x, y))
        axis.text(x, y - 0.1, f"{score:.3f}", ha="center", va="center", fontsize=9, color=INK)
        axis.text(x, y + 0.24, f"{low:.2f}–{high:.2f}", ha="center", va="center", fontsize=6.5, color=INK)
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.set_xticks(range(len(columns)), [plain(name) for name in columns], rotation=30, ha="right", fontsize=9)
    axis.set_yticks(range(len(rows)), [plain(name) for name in rows], fontsize=9)
    axis.tick_params(length=0)
    axis.set(**dict(zip(("ylabel", "xlabel"), map(plain, sides), strict=True)))


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.46), 0.94, 0.92, fill=False, edgecolor=ORANGE, linewidth=2)


def draw_parallel(
    axis: Any, rows: list[dict[str, Any]], keys: list[str], score: str, *, more_is_better: bool, logs: set[str]
) -> None:
    """Every row as a line through its settings to its score, the better the more blue and opaque."""
    names = [*keys, score]
    places = {name: _places([row[name] for row in rows], log=name in logs) for name in names}
    rank = np.argsort(np.argsort([row[score] * (1 if more_is_better else -1) for row in rows]))
    for index in np.argsort(rank):
        share = rank[index] / max(1, len(rows) - 1)
        best = index == np.argmax(rank)
        axis.plot(
            range(len(names)),
            [places[name][0][index] for name in names],
            color=ORANGE if best else BLUE,
            alpha=1.0 if best else 0.15 + 0.6 * share**2,
            linewidth=2.4 if best else 1.2,
        )
    for place, name in enumerate(names):
        axis.axvline(place, color=INK, linewidth=0.6)
        for height, text in places[name][1]:
            behind = dict(facecolor=(PAPER, 0.8), edgecolor="none", boxstyle="round,pad=0.1")
            axis.text(place + 0.03, height, plain(text, 14), fontsize=8, va="center", color=INK, bbox=behind, zorder=4)
    axis.set_xticks(range(len(names)), [plain(name) for name in names], fontsize=9)
    axis.set(xlim=(-0.1, len(names) - 0.6), ylim=(-0.05, 1.05), yticks=[])
    axis.tick_params(length=0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)


def _places(values: list[Any], *, log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights of 0..1 of the values of one setting, and what is written beside which heights."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.log(values) if log else np.array(values, float)
        low, high = float(numbers.min()), float(numbers.max())
        heights = ((numbers - low) / (high - low) if high > low else np.full(len(values), 0.5)).tolist()
        ends = {heights[index]: f"{values[index]:.3g}" for index in (int(numbers.argmin()), int(numbers.argmax()))}
        return heights, list(ends.items())
    kinds = list(dict.fromkeys(map(str, values)))
    at = {kind: index / max(1, len(kinds) - 1) if len(kinds) > 1 else 0.5 for index, kind in enumerate(kinds)}
    return [at[str(value)] for value in values], [(height, kind) for kind, height in at.items()]


def draw_curves(axis: Any, curves: list[tuple[str, list[float]]], score: str, *, called: str = "epoch") -> None:
    """The test score of every epoch of every trial; those with a name are drawn in colours, the others behind them."""
    shown = 0
    for name, values in curves:
        epochs = range(1, len(values) + 1)
        if name:
            axis.plot(epochs, values, color=LINES[shown % len(LINES)], label=plain(name, 48), linewidth=1.6, zorder=3)
            shown += 1
        else:
            axis.plot(epochs, values, color="#8a8f96", linewidth=0.7, alpha=0.5)
    axis.set(xlabel=called, ylabel=f"test {score}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    if shown:
        axis.legend(fontsize=7.5)


def draw_grey_values(axis: Any, values: dict[str, NDArray[Any]]) -> None:
    """Histograms of grey values by lineage."""
    for number, (name, values_N) in enumerate(values.items()):
        if len(values_N):
            axis.hist(values_N, bins=100, density=True, histtype="step", label=plain(name), **_line(number))
    axis.set(xlabel="grey value as recorded", ylabel="share of the pixels", yticks=[])
    _legend_below(axis)


def draw_cell_counts(axis: Any, counts: dict[str, list[float]]) -> None:
    """A histogram of counts, the lineages on top of each other, in the colours of `draw_grey_values`."""
    shown = [(number, name) for number, name in enumerate(counts) if counts[name]]
    axis.hist(
        [counts[name] for _, name in shown],
        bins=20,
        stacked=True,
        label=[plain(name) for _, name in shown],
        color=[LINES[number % len(LINES)] for number, _ in shown],
        hatch=[("", "//", "..")[number // len(LINES) % 3] for number, _ in shown],
    )
    axis.set(xlabel="cells a frame", ylabel="frames")
    axis.yaxis.get_major_locator().set_params(integer=True)
    _legend_below(axis)


def _legend_below(axis: Any) -> None:
    axis.figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
