"""The narrow task door: what a task needs, what its loss is, how it predicts and what it measures.

One file per task, one line in `TASKS`; `headline.py`, `objects.py`, `painting.py`, `pixel_losses.py`, `regions.py`,
`queries.py`, `thing_maps.py`, `given_boxes.py`, `told.py`, `views.py`, `memory.py`, `finite.py` and `refusals.py` are
what several are made of. The training and the evaluation loop know no task by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from segpipe.config import RunConfig, TrainConfig
from segpipe.data.batch import Batch
from segpipe.predictions import Beside, Prediction
from segpipe.tasks.detection import DetectionOps
from segpipe.tasks.instance import InstanceOps
from segpipe.tasks.keypoints import KeypointsOps
from segpipe.tasks.panoptic import PanopticOps
from segpipe.tasks.semantic import SemanticOps
from segpipe.types import Annotation, ClassInfo, ModelBundle, Sample, Split, Task


class TaskOps(Protocol):
    """Everything that the loops need to know of a task. Meters and outputs are the task's own types."""

    needs: ClassVar[tuple[Annotation, ...]]
    prediction: ClassVar[type[Prediction]]
    primary: ClassVar[str]
    # Whether training batches are to carry the objects of each crop, and these their keypoints.
    trains_on_objects: ClassVar[bool]
    trains_on_keypoints: ClassVar[bool]
    # Whether it decides what is learnt and scored that a class is a thing.
    tells_things_from_stuff: ClassVar[bool]
    protocol: str

    def __init__(
        self,
        classes: Sequence[ClassInfo],
        ignore_index: int,
        *,
        config: TrainConfig | None = None,
        statistics: Split | None = None,
    ) -> None:
        """For a set of classes; training adds its config and the statistics of its split.

        Raises InputError on a config or on classes with which the task cannot be trained, whatever the architecture.
        """

    @classmethod
    def check_run(cls, run: RunConfig, *, num_keypoints: int | None, is_counted: bool, where: str) -> None:
        """Raises InputError on what an architecture of the task cannot do with the run's config or with the data.

        `num_keypoints` are the most that an object of `where` has, None where nobody knows; `is_counted` where they
        were counted over all samples, else a source says that there may be so many.
        """

    @classmethod
    def told(cls, bundle: ModelBundle) -> tuple[str, ...]:
        """What a served model must be told beside each image, by name and in this order; most want nothing.

        "boxes" of the objects that it is to look at; "class_ids" of these, where they may be of several classes.
        """

    def losses(self, forward: Callable[..., Any], images_N3HW: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms of the training loss, already weighted; their sum is what is minimised, and each is logged.

        `forward` is the model in the configured precision; `images_N3HW` lie on the device, normalised. The task calls
        it, since some models need the truth to know what to compute a loss of (proposals that are sampled around it).
        """

    def predict(
        self, model: nn.Module, batch: Batch, bundle: ModelBundle, *, beside: Collection[Beside] = ()
    ) -> Sequence[Prediction]:
        """Predictions at original resolution, one an image, on the host. Never changes the model.

        `beside` is what a map of classes tells of each pixel besides; other predictions have scores and pass it over.
        """

    def truth(self, sample: Sample) -> Prediction | None:
        """What a perfect model would say of a stored sample; None where the sample lacks what the task needs."""

    def meter(self, *, closely: bool = False) -> Any:
        """A fresh meter: it can be pickled, and those of parts of a split merge in any order to the same state.

        `closely` where a report is made of it: then it also counts what a model card alone shows.
        """

    def measure(self, meter: Any, predictions: Sequence[Any], batch: Batch) -> None:
        """Counts predictions against the batch's labels, each sample once."""

    def scores(self, meter: Any) -> dict[str, float]:
        """Metrics by name of what was counted; undefined ones are left out."""

    def report_fields(self, meter: Any, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        """The task's part of an `EvalReport`: metrics, per class, evidence in dataset order, value with interval."""


TASKS: Mapping[Task, type[TaskOps]] = {
    Task.SEMANTIC: SemanticOps,
    Task.INSTANCE: InstanceOps,
    Task.DETECTION: DetectionOps,
    Task.PANOPTIC: PanopticOps,
    Task.KEYPOINTS: KeypointsOps,
}
