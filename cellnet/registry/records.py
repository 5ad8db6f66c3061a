"""What a registry writes down: versions, their cards, and the moves of aliases."""

import operator
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from cellnet.certainty.calibration import Calibration
from cellnet.config.choices import NotNegative, Number, Side
from cellnet.config.loading import Frozen, Stored, is_none
from cellnet.config.train import Preprocess, StartedFrom, TrainConfig
from cellnet.errors import ConfigError
from cellnet.images.quality import Focus
from cellnet.store.objects import MOST_BYTES
from cellnet.tasks import Task

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RECORD_BYTES: Final = 64 * 2**20
"""Of a version or a move; more is not read."""
ONNX: Final = "model.onnx"
REPORT: Final = "report.html"
ANSWERS: Final = "out-of-fold.parquet"
"""Of a version that learned from the frames that it was scored on: cellnet.registry.kept."""
NEW_ANSWERS: Final = "out-of-batch.parquet"
"""Likewise, of networks that had learned from no frame of its batch."""
LEARNED: Final = "learned.sha256"
"""The frames that shaped a version (`cellnet.registry.learned`)."""


class OnnxCheck(Frozen):
    """What was compared when a model was exported: its outputs in ONNX Runtime beside those in torch."""

    opset: Annotated[int, Field(ge=1)]
    """Version of ONNX's operators."""
    tiles: Number
    """Tiles compared."""
    max_difference: NotNegative
    """Largest difference of a probability, or of a count as a share of it (of 1 where it is below)."""


class CrossValidation(Frozen):
    """How a version was scored that learned from all of these frames: by networks that had not learned from them."""

    folds: Annotated[int, Field(ge=1)]
    """Networks, each of which answered the groups that were held back from it. 1: the network that was trained on the
    train split, and answered the test split, before this one learned from both."""
    frames: Number
    """That were answered."""
    groups: Number
    """Of these frames."""
    one_group: tuple[str, ...] = ()
    """Lineages of one group, whose frames were held back one by one: not measured on other wells."""
    unmeasured: tuple[str, ...] = ()
    """Lineages that no network answered, since one frame, or copies of one, is all there is of them; by batch, one
    batch."""
    by_batch: bool = Field(default=False, exclude_if=operator.not_)
    """Whether each held back a whole batch, and so was asked about a new one."""

    def __str__(self) -> str:
        """In words, to follow a score.

        >>> str(CrossValidation(folds=5, frames=16, groups=15)), str(CrossValidation(folds=1, frames=4, groups=1))
        ('cross-validated over 5 folds of 15 groups', 'of 1 test group, before it learned from that too')
        """
        groups = f"{self.groups} {'test ' * (self.folds == 1)}group{'s' * (self.groups != 1)}"
        if self.folds == 1:
            return f"of {groups}, before it learned from {'that' if self.groups == 1 else 'these'} too"
        if self.by_batch:
            return f"each of {self.folds} batches left out in turn, {groups}"
        return f"cross-validated over {self.folds} folds of {groups}"

    def gaps(self) -> Iterator[str]:
        """What the scores do not say."""
        if self.one_group:
            yield f"{', '.join(self.one_group)}: one group only, so not measured on other wells"
        if self.unmeasured:
            yield f"{', '.join(self.unmeasured)}: one {'batch' if self.by_batch else 'frame'} only, so not measured"


class MainScore(Frozen):
    """The score that decides a promotion, over some rows."""

    score: str
    value: float
    interval: tuple[float, float]
    """95 %, over groups."""
    n: int


class Chosen(Frozen):
    """How many of the frames that were scored were labelled for what they would teach (`cellnet suggest`)."""

    frames: Number
    of: Number
    """All that were scored."""
    others: dict[str, MainScore] | None = None
    """Over those that were not chosen, per `tile` and `frame`; None where they are too few."""

    def __str__(self) -> str:
        """In words.

        >>> str(Chosen(frames=7, of=30))
        '7 of 30 frames were chosen because they are hard: the score is not that of a usual frame'
        """
        are = "was chosen because it is hard" if self.frames == 1 else "were chosen because they are hard"
        return f"{self.frames} of {self.of} frames {are}: the score is not that of a usual frame"


class CountedFrame(Frozen):
    """A frame of a plate whose cells somebody counted."""

    image: str
    """Its file's name."""
    sha256: str
    """Of its pixels, as a bank knows it."""
    count: NotNegative


class Recount(Frozen):
    """What a counter was fitted to a plate by: its scale, its offset, its intervals and the flag."""

    frames: list[CountedFrame]
    made: str
    """UTC, ISO 8601."""
    before: dict[str, float | None]
    """What its parent says of these frames is worth: `n`, `mae`, `bias`, and shares `coverage` and `unfamiliar`."""
    after: dict[str, float | None]
    """Likewise its own, each frame by a fit to the others."""


class Relearned(Frozen):
    """What a version learned from that its parent did not, or of which its parent was told otherwise."""

    corrected: Number
    """Frames of which a person has said something since the parent learned."""
    new: Number
    """Others, which came since."""
    entries: tuple[int, int] | None = None
    """The first and the last entry of the bank's log in which that was said."""

    def __str__(self) -> str:
        """In words, to follow "learned from".

        >>> str(Relearned(corrected=10, new=0, entries=(7, 9))), str(Relearned(corrected=1, new=2, entries=(7, 7)))
        ('10 corrections of entries 7 to 9', '1 correction of entry 7 and 2 new frames')
        >>> str(Relearned(corrected=0, new=0))
        'nothing new'
        """
        told = []
        if self.corrected:
            first, last = self.entries or (0, 0)
            of = f"entry {first}" if first == last else f"entries {first} to {last}"
            told.append(f"{self.corrected} correction{'s' * (self.corrected != 1)} of {of}")
        if self.new:
            told.append(f"{self.new} new frame{'s' * (self.new != 1)}")
        return " and ".join(told) or "nothing new"


class Card(Frozen):
    """What is told of a model, besides its weights."""

    task: Task
    classes: list[str]
    """The lineages in the order of the logits; empty for a counter."""
    config: TrainConfig
    preprocess: Preprocess
    frame_px: tuple[Side, Side]
    """Median height and width of the training frames, in pixels."""
    bank: str
    bank_digest: str
    bank_entry: int | None = Field(default=None, exclude_if=is_none)
    """The entry of the bank's log that it learned from, by which the bank can be opened as it was; None of models
    published before they were kept, and of banks without a log."""
    scores: dict[str, dict[str, Any]]
    """By split; `test` chose this model, `holdout` is its report; `folds` is of cross-validation."""
    history: list[dict[str, Any]]
    """One row an epoch: loss and test scores."""
    code_version: str
    packages: dict[str, str]
    created: str
    """UTC, ISO 8601."""
    search: list[dict[str, Any]] | None = None
    """The trials of the search that chose this model, if one did."""
    calibration: Calibration | None = None
    """Temperature and intervals; None of models published before there were any."""
    onnx: OnnxCheck | None = None
    """What the ONNX export was compared by; None of models published before there was one."""
    parent: str | None = None
    """The version that this one was made from, `name@number`, if one was."""
    relearned: Relearned | None = Field(default=None, exclude_if=is_none)
    """What it learned that its parent, which a training started from, had not; None of other versions."""
    sweep: str | None = None
    """Place of the search that chose this model, if one did."""
    cross_validation: CrossValidation | None = Field(default=None, exclude_if=is_none)
    """Of a version that learned from the frames that it was scored on."""
    batch_validation: CrossValidation | None = Field(default=None, exclude_if=is_none)
    """Beside that: batches were left out in turn, to say what a new one brings."""
    start: StartedFrom | None = Field(default=None, exclude_if=is_none)
    """The weights that its network started from; None for one that started by chance."""
    lineages: tuple[str, ...] | None = Field(default=None, exclude_if=is_none)
    """Of a counter: the lineages, as far as they are known, of the frames that shaped it; None of counters published
    before they were kept."""
    batches: tuple[str | None, ...] | None = Field(default=None, exclude_if=is_none)
    """Those of the frames that shaped this model, null among them where a frame's is not known; None of models
    published before they were kept."""
    batch_scores: dict[str, dict[str, MainScore] | None] | None = Field(default=None, exclude_if=is_none)
    """Over the frames of the bank's holdout, or of a cross-validation, in batches that the model learned from, `same`,
    and in others, `new`, per `tile` and `frame`; None of a side without frames, and of models published before there
    were any."""
    chosen: Chosen | None = Field(default=None, exclude_if=is_none)
    """Of the frames that its report is on; None where none was chosen."""
    focus: Focus | None = Field(default=None, exclude_if=is_none)
    """What the frames that shaped it have of fine structure, at its magnification; None where that was not measured."""
    recount: Recount | None = Field(default=None, exclude_if=is_none)
    """Of a counter that was fitted to a plate, whose scores and history are those of its parent."""
    once: str | None = Field(default=None, exclude_if=is_none)
    """What its training was called, which publishes one version however often it is started (`--once`)."""

    @field_validator("config", mode="before")
    @classmethod
    def _as_before(cls, config: Any) -> Any:
        """Versions of before there was a setting were trained without, and settings that say so are not stored."""
        return {"folds": 0, "holdout": "keep", "greys": "bank"} | config if isinstance(config, dict) else config

    @model_validator(mode="after")
    def _is_of_one_model(self) -> Self:
        if self.task != self.config.task:
            raise ValueError(f"it is to {self.task}, and was trained to {self.config.task}")
        if len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise ValueError("its classes are not lineages, each once")
        if self.task == "count" and self.classes:
            raise ValueError(f"it counts, and names {', '.join(self.classes)[:80]}")
        return self


class Blob(Frozen):
    """Stored bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MOST_BYTES)]


Role = Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]


class Origin(Frozen):
    """Where a version was imported from."""

    registry: str
    ref: str
    record_sha256: str
    """Of its record there."""


class ModelVersion(Stored):
    """An immutable model: `name@number`."""

    FORMAT: ClassVar[int] = 2
    """2: counts have a scale and an offset, or tiles are evened out, which readers of 1 would leave out where they run
    torch; or there is a choice that they do not know, so that they would take the record for a damaged one."""

    name: str
    number: int
    blobs: dict[Role, Blob]
    """By role: `weights.safetensors`, `model.onnx`, and so on."""
    card: Card
    origin: Origin | None = None
    """Of a version that was imported."""
    id: str = ""
    """Of this publishing alone, so that its record is like no other's."""

    @property
    def written_format(self) -> int:
        """1 of all that readers of 1 can use."""
        card = self.card
        is_later = (
            card.calibration is not None and card.calibration.scale is not None,
            card.preprocess.illumination != "none",
            card.preprocess.intensity.rule == "background",
            card.config.model.architecture == "efficientnet_lite0",
            card.config.folds == "batch",
        )
        return 2 if any(is_later) else 1

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"


class Evidence(Frozen):
    """A version beside the one that an alias points at, on the same frames that neither was trained on."""

    champion: int
    """The number of the version that the alias pointed at, or of `against`."""
    against: str | None = Field(default=None, exclude_if=is_none)
    """`name@number` of a champion of another model: the one that counted a lineage before it had a counter."""
    lineage: str | None = Field(default=None, exclude_if=is_none)
    """The one lineage that the frames were of; None for all."""
    bank: str
    bank_digest: str
    bank_entry: int | None = Field(default=None, exclude_if=is_none)
    """The entry of the bank's log whose labels both were scored on."""
    split: str
    unit: Literal["tile", "frame"]
    score: str
    n: int
    groups: int
    values: tuple[float, float]
    """The score of the challenger, and of the champion."""
    difference: float
    """Above 0 where the challenger is better."""
    interval: tuple[float, float]
    """95 % of a paired bootstrap over groups."""
    same_bank: tuple[bool, bool]
    """Whether the challenger, and the champion, were trained on this state of the bank."""
    seen: int | None = Field(default=None, exclude_if=is_none)
    """Frames of the split that are left out, since one of both learned from them or from near-duplicates; None where it
    is not known of both what they learned from."""
    batches: Literal["new"] | None = Field(default=None, exclude_if=is_none)
    """`new`: the frames are those of batches that neither learned from; None: of all."""
    frames: Literal["since"] | None = Field(default=None, exclude_if=is_none)
    """`since`: those that the champion did not learn from and the challenger did, whose answers are of its folds."""
    before: "Evidence | None" = Field(default=None, exclude_if=is_none)
    """Beside that, on the frames that both learned from, by what both keep of them."""

    @property
    def shows_better(self) -> bool:
        """Whether the challenger is better beyond chance: all of the interval is above 0, of two groups or more.

        And not worse beyond chance on the frames of before.
        """
        forgot = self.before is not None and self.before.interval[1] < 0
        return self.groups > 1 and self.interval[0] > 0 and not forgot

    def __str__(self) -> str:
        """In one line for a person."""
        (new, old), (low, high) = self.values, self.interval
        other = f" of {self.against}" if self.against else ""
        frames = f"{self.lineage} in the {self.split}" if self.lineage else f"the {self.split}"
        frames += ", new batches alone" if self.batches else ""
        frames += ", frames learned since" if self.frames else ""
        before = f"; on those learned before {self.before}" if self.before else ""
        seen = f", without {self.seen} that one of both learned from" if self.seen else ""
        word, difference = ("better", self.difference) if self.difference >= 0 else ("worse", -self.difference)
        if word == "worse":
            low, high = -high, -low
        return (
            f"{self.score} {new:.3f} against {old:.3f}{other} per {self.unit} of {frames} (n={self.n}, "
            f"{self.groups} group{'s' * (self.groups != 1)}{seen}), "
            f"{word} by {difference:.3f} ({low:.3f} to {high:.3f}){before}"
        )


class AliasMove(Stored):
    """One entry of an alias's log."""

    name: str
    alias: str
    entry: Annotated[int, Field(ge=1)]
    number: Annotated[int, Field(ge=1)]
    previous: Annotated[int, Field(ge=1)] | None
    reason: str
    moved: str
    """UTC, ISO 8601."""
    evidence: Evidence | None = None
    """Of a move that was decided by a comparison."""
    fixed: bool = False
    """Whether this is a tag, which does not move."""
    id: str = ""
    """Of this move alone, so that its record is like no other's."""
    settles: tuple[int, ...] = Field(default=(), exclude_if=operator.not_)
    """The moves before it that were damaged when it was made; what it points at is that of the last one before them."""


def parse_ref(ref: str) -> tuple[str, int | None, str | None]:
    """(name, number, None) of `name@7`, or (name, None, alias) of `name:alias`. Raises ConfigError.

    >>> parse_ref("classifier@7"), parse_ref("classifier:champion")
    (('classifier', 7, None), ('classifier', None, 'champion'))
    """
    match = re.fullmatch(rf"({NAME.pattern})(?:@([1-9][0-9]{{0,8}})|:({NAME.pattern}))", ref)
    if match is None:
        raise ConfigError(f"{ref!r} is not a reference; write name@7 or name:alias, like classifier:champion")
    name, number, alias = match.groups()
    return name, int(number) if number else None, alias


def check_name(name: str) -> None:
    """Raise ConfigError for what cannot name a model or an alias."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name; use up to 64 letters, digits, '.', '_' and '-'")
