"""The narrow task door: how a task collates, what its loss is, how it predicts and what it measures.

One file per task, one line in `TASKS`. The training and the evaluation loop know no task by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from segpipe.data.batch import Batch
from segpipe.data.decode import DecodedSample
from segpipe.tasks.semantic import SemanticOps
from segpipe.types import Annotation, ModelBundle, Task


class TaskOps(Protocol):
    """Everything that the loops need to know of a task. Meters and outputs are the task's own types."""

    needs: tuple[Annotation, ...]
    primary: str
    protocol: str

    def collate(self, samples: Sequence[DecodedSample]) -> Batch:
        """Equal-sized decoded samples -> one batch."""

    def loss(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """The terms of the training loss, already weighted; their sum is what is minimised."""

    def predict(self, model: nn.Module, batch: Batch, bundle: ModelBundle) -> list[Tensor]:
        """Predictions at original resolution, one an image, on the model's device. Never changes the model."""

    def meter(self) -> Any:
        """A fresh meter: additive integer counts, mergeable in any order."""

    def measure(self, meter: Any, predictions: Sequence[Tensor], batch: Batch) -> None:
        """Counts predictions against the batch's labels, each sample once."""

    def counts(self, meter: Any) -> Tensor:
        """The meter's totals as an int64 tensor that validation sums over ranks."""

    def scores(self, counts: Tensor) -> dict[str, float]:
        """Metrics by name from such totals; undefined ones are left out."""

    def report_fields(self, meter: Any, sample_ids: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
        """The task's part of an `EvalReport`: metrics, per class, counts in dataset order, value with interval."""


TASKS: Mapping[Task, Callable[..., TaskOps]] = {Task.SEMANTIC: SemanticOps}
