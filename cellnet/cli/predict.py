"""`cellnet predict`: images are named and counted, on stdout and into a folder."""

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cellnet.cli.options import (
    CHANNEL,
    JSON,
    LEFT_OUT,
    PAGE,
    PIXEL_UM,
    READS_REGISTRY,
    STRICT,
    images_of,
    named_place,
    places_of,
)
from cellnet.cli.parsing import OneOf, Option, command, number
from cellnet.cli.printing import counted, print_csv, print_json, say, tell
from cellnet.cli.progress import Meter
from cellnet.errors import ConfigError
from cellnet.images.quality import FLAGS, NO_USE, WORDS, Flag, in_words
from cellnet.prediction.answers import Prediction
from cellnet.prediction.tables import COLUMNS, csv_line, row_of

if TYPE_CHECKING:
    from pipelines.predict import Job

SKIPPED_SHOWN: Final = 3
"""Files that were skipped, or images that are flagged, named one by one."""
CONDITIONS_SHOWN: Final = 12
"""Lineages and treatments whose growth is told one by one."""


def add_to(commands: Any) -> None:
    command(
        commands,
        "predict",
        predict,
        Option("images", nargs="+", metavar="IMAGES"),
        Option("--classifier", metavar="REF", help="(classifier:champion)"),
        Option("--regressor", metavar="REF", help="(regressor:champion)"),
        PIXEL_UM,
        PAGE,
        CHANNEL,
        Option(
            "--well-pattern",
            metavar="REGEX",
            help="where in file names the well is: one group like B03, or two, row and column; in whole paths where "
            "it holds a / (names as instruments write them, and words like B03)",
        ),
        Option(
            "--hours-between",
            type=number(float, above=0, what="hours"),
            metavar="H",
            help="hours between frames that names number (t03, T0001, sk3, TimePoint_3), for growth curves",
        ),
        Option(
            "--layout",
            metavar="FILE",
            help="a CSV of what was done to wells: well,treatment and, if known, dose, lineage and plate, for growth "
            "curves (a manifest's columns of these names, or the layout of a Harmony export)",
        ),
        Option("--control", metavar="NAME", help="the treatment with whose growth that of the others is compared"),
        Option(
            "--out",
            metavar="DIR",
            help="also keep results there as they come, so that the same command goes on after an interruption; at "
            "the end predictions.csv, predictions.parquet and, where file names tell wells, predictions_wells.csv and "
            "plate.png; where they were recorded over time, growth.csv, doubling.csv and growth.html",
        ),
        Option("--overwrite", action="store_true", help="forget the results that --out holds"),
        OneOf(
            Option("--csv", action="store_true", help="CSV on stdout"),
            JSON.but(help="a JSON object a line on stdout"),
        ),
        STRICT.but(help=f"exit {LEFT_OUT} where an image was not predicted or a file was skipped"),
        *READS_REGISTRY,
        help="name and count what images show",
        description=(
            "Name and count what images show. IMAGES are image files, folders of them, Harmony exports or a "
            "manifest.csv (image and, if known, pixel_um, time_h, treatment), here or as s3://bucket/prefix. Results "
            "come on stdout, and with --out are kept in a folder too."
        ),
    )


def predict(arguments: argparse.Namespace) -> int:
    from pipelines.predict import prepare

    if arguments.overwrite and not arguments.out:
        raise ConfigError("--overwrite is about the folder of --out; give that too, or leave it out")
    for name in ("hours_between", "layout", "control"):
        if getattr(arguments, name) is not None and not arguments.out:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} is for the growth curves in the folder of --out; give that too, or leave it out"
            )
    job = prepare(
        images_of(arguments.images, arguments),
        places_of(arguments),
        classifier=arguments.classifier,
        regressor=arguments.regressor,
        pixel_um=arguments.pixel_um,
        page=arguments.page,
        channel=arguments.channel,
        well_pattern=arguments.well_pattern,
        hours_between=arguments.hours_between,
        layout=images_of([arguments.layout], arguments)[0] if arguments.layout else None,
        control=arguments.control,
        out=named_place(arguments.out, arguments) if arguments.out else None,
        overwrite=arguments.overwrite,
    )
    for note in job.notes:
        say(f"note: {note}")
    if job.skipped:
        more = f" and {len(job.skipped) - SKIPPED_SHOWN} more" if len(job.skipped) > SKIPPED_SHOWN else ""
        say(f"skipped, not an image: {len(job.skipped):,}, {'; '.join(job.skipped[:SKIPPED_SHOWN])}{more}")
    if job.kept:
        say(f"{len(job.kept):,} of {len(job.files):,} images were predicted before, and are in {arguments.out}")
    flagged: dict[Flag, list[str]] = {flag: [] for flag in FLAGS}
    tally = _print_predictions(job, arguments, flagged)
    say(f"{counted(tally['good'], 'image')} predicted, {tally['bad']} not")
    if tally["assumed"]:
        say(
            "note: the pixel size of images, or of the training frames, is not known; these images are taken to be of "
            "the training frames' magnification"
        )
    for doubted in ("lineage and count", "lineage", "count", "answer"):
        if tally[doubted]:
            strange = counted(tally[doubted], "image")
            say(f"warning: {strange} unlike the training images; do not rely on the {doubted} there")
    for line in job.soft:
        say(f"note: {line}")
    flagged["out_of_focus"] = [image for image in flagged["out_of_focus"] if image not in job.as_sharp]
    for line in quality_lines(flagged):
        say(line)
    for line in job.growth[:CONDITIONS_SHOWN]:
        say(f"growth: {line}")
    if len(job.growth) > CONDITIONS_SHOWN:
        say(f"growth: {len(job.growth) - CONDITIONS_SHOWN} more conditions, in doubling.csv")
    for place in job.written:
        say(f"written: {place}")
    if not tally["good"]:
        raise ConfigError("no image could be predicted; the reasons are above")
    return LEFT_OUT if arguments.strict and (tally["bad"] or job.skipped) else 0


def _print_predictions(job: "Job", arguments: argparse.Namespace, flagged: Mapping[Flag, list[str]]) -> Counter[str]:
    """Print each prediction as it comes, count what they come to, and add to `flagged` what they are no use for."""
    show = _print_json if arguments.json else _csv_printer() if arguments.csv else _print_prediction
    tally: Counter[str] = Counter()
    meter = Meter(len(job.files) - len(job.kept), sys.stderr, noun="images")
    try:
        with contextlib.closing(job.run()) as predictions:
            for prediction in predictions:
                if sys.stdout.isatty():
                    meter.clear()
                show(prediction)
                tally["bad" if prediction.error else "good"] += 1
                tally["assumed"] += prediction.magnification == "assumed"
                tally[prediction.doubted] += prediction.unfamiliar is True
                for flag in prediction.quality or ():
                    flagged[flag].append(prediction.image)
                meter.update(job.done)
    except KeyboardInterrupt:
        meter.clear()
        if arguments.out:
            say(f"what has come is kept in {arguments.out}; the same command goes on with it")
        raise
    finally:
        meter.clear()
    return tally


def quality_lines(flagged: Mapping[Flag, Sequence[str]]) -> Iterator[str]:
    """What is said of images that are of no use, a line a flag with the first of them.

    >>> print(*quality_lines({"out_of_focus": ["a.png"], "saturated": [], "empty": ["b.png", "c.png"]}), sep="\\n")
    warning: 1 image out of focus, left out of the value of its well: a.png
    note: 2 images empty, with a part in the values of their wells all the same: b.png, c.png
    """
    for flag, images in flagged.items():
        if images:
            wells = "the value of its well" if len(images) == 1 else "the values of their wells"
            number = f"{counted(len(images), 'image')} {WORDS[flag]}"
            said = f"warning: {number}, left out of {wells}"
            if flag not in NO_USE:
                said = f"note: {number}, with a part in {wells} all the same"
            more = f" and {len(images) - SKIPPED_SHOWN:,} more" if len(images) > SKIPPED_SHOWN else ""
            yield f"{said}: {', '.join(images[:SKIPPED_SHOWN])}{more}"


def _print_json(prediction: Prediction) -> None:
    print_json(json.loads(prediction.model_dump_json()))


def _csv_printer() -> Callable[[Prediction], None]:
    """Prints the header at once, and then rows."""
    print_csv(csv_line(COLUMNS))

    def show(prediction: Prediction) -> None:
        row = row_of(prediction)
        print_csv(csv_line(row[name] for name in COLUMNS))

    return show


def _print_prediction(prediction: Prediction) -> None:
    tell(refusal_line(prediction) if prediction.error else prediction_line(prediction))


def refusal_line(prediction: Prediction) -> str:
    """Why an image was not predicted, in one line; its name, with which the reason may begin, is not said twice.

    >>> refusal_line(Prediction(image="plate/a.tif#2", error="a.tif#2: blank, every pixel has the value 7"))
    'plate/a.tif#2: not predicted: blank, every pixel has the value 7'
    """
    name = prediction.image.rpartition("/")[2]
    reason = (prediction.error or "").removeprefix(f"{name}: ").removeprefix(f"{name.rpartition('#')[0]}: ")
    return f"{prediction.image}: not predicted: {reason}"


def prediction_line(prediction: Prediction) -> str:
    """A prediction in one line for a person."""
    parts = [prediction.image]
    if prediction.lineage is not None and prediction.probabilities is not None:
        parts.append(f"{prediction.lineage} ({prediction.probabilities[prediction.lineage]:.0%})")
    if prediction.count is not None:
        parts.append(f"{prediction.count:.1f} cells{_interval(prediction)}")
    parts.append(f"[{counted(prediction.tiles or 0, 'tile')}]")
    if prediction.unfamiliar:
        parts.append(f"UNFAMILIAR, do not rely on the {prediction.doubted}: {prediction.unfamiliar_reason}")
    if prediction.quality:
        parts.append(
            in_words(prediction.quality).upper() + ", not in its well's value" * (not prediction.has_part_in_well)
        )
    return "  ".join(parts)


def _interval(prediction: Prediction) -> str:
    if prediction.count_low is None or prediction.count_high is None or prediction.interval_level is None:
        return ""
    return f" ({prediction.count_low:.1f}-{prediction.count_high:.1f} at {prediction.interval_level:.0%})"
