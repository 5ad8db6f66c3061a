"""What cellnet does: name the lineage, or count the cells. Whatever differs between the two as a fact stands here."""

from dataclasses import dataclass
from typing import Final, Literal

Task = Literal["classify", "count"]
Answer = Literal["lineage", "count"]
"""What is said of a frame, as labels and predictions call it."""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A row of the table."""

    model: str
    """What a model of the task is called in the registry unless told otherwise, and its role where models answer."""
    truth: Literal["label", "count"]
    """What is true of a tile: the column of the shards that a network of the task learns."""
    answer: Answer
    """What a model of the task says of a frame."""
    architecture: str
    """The network unless told otherwise."""
    crops: bool
    """Whether a training sees crops of its tiles too unless told otherwise. They make a counter worse: the same cells
    at another magnification."""
    views: Literal[1, 8]
    """Orientations that a prediction is the mean of unless told otherwise, in frames of one tile; of more it is one."""
    purpose: str
    """What a model of the task does, to begin a sentence with."""
    tag: str
    """What libraries of models call the task."""
    steering: str
    """The score of the test split that chooses between epochs and trials."""
    more_is_better: bool
    """Of that score."""
    epoch: str
    """What the scores of an epoch mean, for a person: of tiles that it does not learn from."""
    main: str
    """The score that is given with an interval, and decides a promotion."""
    figures: tuple[str, ...]
    """Scores of all tiles or frames that a person is shown."""
    per_lineage: tuple[str, ...]
    """Scores of each lineage that a person is shown."""


TASKS: Final[dict[Task, TaskFacts]] = {
    "classify": TaskFacts(
        model="classifier",
        truth="label",
        answer="lineage",
        architecture="residual",
        crops=True,
        views=1,
        purpose="Names the lineage of the cells",
        tag="classification",
        steering="balanced_accuracy",
        more_is_better=True,
        epoch="accuracy: the share named right; balanced: the mean of the lineages' shares",
        main="accuracy",
        figures=(
            *("n", "accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "f1_macro", "auc_macro"),
            "ece",
        ),
        per_lineage=("n", "precision", "recall", "f1", "auc"),
    ),
    "count": TaskFacts(
        model="regressor",
        truth="count",
        answer="count",
        architecture="density",
        crops=False,
        views=8,
        purpose="Counts the cells",
        tag="counting",
        steering="mae",
        more_is_better=False,
        epoch="mae: cells off in a tile, less is better; r2: 1 is best",
        main="mae",
        figures=("n", "mae", "mse", "rmse", "r", "r2", "bias", "mape"),
        per_lineage=("n", "mae", "rmse", "r", "r2", "bias", "mape"),
    ),
}
TASK_OF: Final[dict[str, Task]] = {facts.model: task for task, facts in TASKS.items()}
"""The task of each role: `classifier` and `regressor`."""
