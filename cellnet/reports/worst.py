"""The frames that a model got most wrong: what is true of them, what was said and found, and where it looked."""

from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.evaluation.evaluations import WORST, Evaluation, Picture, right, worst_rows
from cellnet.images.pictures import INK, with_centres
from cellnet.reports.overlays import WHITE, with_cells
from cellnet.reports.pages import picture
from cellnet.reports.words import Table
from cellnet.tasks import Task

WORST_HEADINGS: Final[dict[Task, str]] = {
    "classify": "Frames that were named wrong",
    "count": "Frames with the largest error",
}


class WorstFrame(NamedTuple):
    """A frame with a large error as the page shows it: the whole of it, and its worst tile plain and with Grad-CAM."""

    name: str
    words: str
    """What is true of it, and what was said."""
    frame: str
    tile: str
    overlay: str
    tile_words: str


def worst_note(evaluation: Evaluation) -> str:
    """How many frames were wrong, and how many of these are shown."""
    frames, task = evaluation.frames, evaluation.scores["task"]
    wrong, n = int((~right(task, frames)).sum()), len(frames.truth)
    if not wrong:
        return f"None: {n:,} of {n:,} were " + (
            "named right." if task == "classify" else "counted right to half a cell."
        )
    how = "named wrong" if task == "classify" else "off by half a cell or more"
    more = f"; the {WORST} worst are shown" if wrong > WORST else ""
    return f"{wrong:,} of {n:,} {'was' if wrong == 1 else 'were'} {how}{more}."


def legend(evaluation: Evaluation) -> dict[str, str]:
    """What is drawn on the frames, by the class of its mark."""
    folds = ", which learned from these frames afterwards" if evaluation.scores["split"] == "folds" else ""
    marks = {}
    if any(one.found_HW is not None for one in evaluation.worst):
        marks["found"] = f"cells that the published network finds{folds}: the brighter, the more"
    if any(one.centres_N2 is not None for one in evaluation.worst):
        marks["centre"] = "a known centre of a cell"
    return marks | {
        "tile": "the worst tile; below as the network sees it, and what spoke most for its answer in yellow"
    }


def worst_table(evaluation: Evaluation) -> Table:
    """The worst frames in words, where there are no pictures of them; nothing where there are none."""
    rows = worst_rows(evaluation.scores["task"], evaluation.frames)
    told = [[_name(evaluation, row), *_truth_and_prediction(evaluation, row)] for row in rows]
    return [["image", "true", "predicted"], *told] if told else []


def worst_frames(evaluation: Evaluation) -> list[WorstFrame]:
    """The frames of which there are pictures, ready for the page."""
    return [
        WorstFrame(
            _name(evaluation, one.row),
            _frame_words(evaluation, one),
            frame=picture(draw_worst(one)),
            tile=picture(one.tile_HW),
            overlay=picture(overlay(one.tile_HW, one.cam_HW)),
            tile_words=f"this tile: {_tile_words(evaluation, one)}",
        )
        for one in evaluation.worst
    ]


def _frame_words(evaluation: Evaluation, one: Picture) -> str:
    truth, prediction = _truth_and_prediction(evaluation, one.row)
    words = f"true {truth}, predicted {prediction}"
    if one.found_HW is None or evaluation.scores["split"] != "folds":
        return words
    return f"{words}; the published network finds {one.found_HW.sum():.1f}"


def _tile_words(evaluation: Evaluation, one: Picture) -> str:
    """What was said of the tile, and what is true of it as far as that is known."""
    if evaluation.scores["task"] == "classify":
        classes = evaluation.scores["tile"]["classes"]
        labels = dict.fromkeys((int(one.output.argmax()), int(one.truth)))
        return ", ".join(f"{classes[label]} {one.output[label]:.0%}" for label in labels)
    if np.isnan(one.truth):
        return f"{float(one.output):.1f} counted"
    truth = f"{one.truth:.0f} true" if one.centres_N2 is not None else f"{one.truth:.1f} by its share of the frame"
    return f"{float(one.output):.1f} counted, {truth}"


def _truth_and_prediction(evaluation: Evaluation, row: int) -> tuple[str, str]:
    """Of a frame, in words."""
    frames = evaluation.frames
    if evaluation.scores["task"] == "count":
        return f"{frames.truth[row]:.1f}", f"{frames.output[row]:.1f}"
    classes = evaluation.scores["tile"]["classes"]
    return classes[frames.truth[row]], f"{classes[frames.output[row].argmax()]} ({frames.output[row].max():.0%})"


def _name(evaluation: Evaluation, row: int) -> str:
    return Path(evaluation.sources[row]).name


def draw_worst(picture: Picture) -> NDArray[np.uint8]:
    """The frame of a picture (H, W, 3), BGR: the cells that were found, the known centres, and where the tile is."""
    drawn_HW3 = np.repeat(picture.frame_HW[..., None], 3, axis=2)
    if picture.found_HW is not None:
        drawn_HW3, _ = with_cells(drawn_HW3, picture.found_HW, picture.box)
    if picture.centres_N2 is not None:
        drawn_HW3 = with_centres(drawn_HW3, picture.centres_N2)
    corners = (picture.box.left, picture.box.top), (picture.box.right - 1, picture.box.bottom - 1)
    for colour, px in ((INK, 3), (WHITE, 1)):
        cv2.rectangle(drawn_HW3, *corners, colour, px)
    return drawn_HW3


def overlay(tile_HW: NDArray[np.uint8], cam_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A tile in grey with a saliency map of 0..1 over it (H, W, 3), from nothing to bright yellow; BGR."""
    heat_HW3 = cv2.applyColorMap((cam_HW * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight_HW1 = 0.65 * cam_HW[..., None]
    return np.asarray(tile_HW[..., None] * (1 - weight_HW1) + heat_HW3 * weight_HW1, np.uint8)
