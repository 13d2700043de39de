"""What the tasks of this room refuse in the same words: data that lacks what they need, keys that they would ignore.

No task itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from torch import Tensor

from segpipe.config import TrainConfig
from segpipe.data.batch import Batch
from segpipe.data.objects import Objects
from segpipe.errors import InputError
from segpipe.types import Annotation

T = TypeVar("T")


def unfilled(task: str, needs: Sequence[Annotation], there: Sequence[Annotation], *, where: str) -> str | None:
    """What to say where `where`, a dataset or its source, is without an annotation that a task needs; else None."""
    missing = [need for need in needs if need not in there]
    if not missing:
        return None
    return (
        f"task {task} needs {' and '.join(missing)}, which {where} does not fill (it fills: "
        f"{', '.join(there) or 'nothing'}); choose another task, or a format of `segpipe list sources` that does"
    )


def required(found: T | None, what: str, sample_ids: Sequence[str]) -> T:
    """`found`, a part of a batch. Raises InputError where the batch came without it; `what` names it."""
    if found is None:
        raise InputError(f"samples {', '.join(sample_ids[:4])}: came without {what}, which this task needs")
    return found


def labels_of(batch: Batch) -> Tensor:
    """(N, H, W) class ids of a batch, as narrow as they were stored. Raises InputError where it has none."""
    return required(batch.labels_NHW, "a label map", batch.sample_ids)


def objects_of(batch: Batch) -> tuple[Objects, ...]:
    """What the crops of a batch show. Raises InputError where it came without."""
    return required(batch.objects, "objects", batch.sample_ids)


def ignored_by_loss(config: TrainConfig, *, common: Collection[str] = ()) -> list[str]:
    """What to say of each key of `train` that a loss which is not chosen by `train.loss` would pass over; a weight of
    heads among the `common` ones is meant for other models."""
    faults = []
    if config.loss != config.default("loss"):
        faults.append(
            f"loss is {', '.join(config.loss.terms)}: that is for a model with logits for every pixel and nothing "
            "else, and this one's losses are its paper's; leave it out"
        )
    if config.sigmoid:
        faults.append("sigmoid is true: only a model with logits for every pixel and nothing else can be made so")
    if config.class_weights != "none":
        faults.append(
            f"class_weights is {config.class_weights}: weights come from pixels of label maps, and this loss has none; "
            "leave it out"
        )
    if "aux_weight" in config.told and "aux_weight" not in common:
        faults.append(f"aux_weight is {config.aux_weight:g}: these models have no auxiliary heads; leave it out")
    return faults


def refuse_ignored(config: TrainConfig, *, averages_mirrored: bool = False) -> None:
    """Raises InputError naming every key of `train` that a task of objects would pass over.

    With `averages_mirrored` it can make use of a mirror image, and of no other view.
    """
    faults = ignored_by_loss(config)
    mirror = config.inference.mirror and not averages_mirrored
    if mirror or config.inference.scales != (1.0,):
        faults.append(
            f"inference asks for scales {list(config.inference.scales)}{' and mirror' * mirror}: the objects of such "
            "views have no mean, so this task takes one of scale 1; leave them out, and set input_scale to enlarge or "
            "reduce what the model sees"
        )
    if config.inference.window is not None:
        faults.append(
            "inference.window is set: only a class for every pixel can be asked window by window, since objects would "
            "be cut in two; leave it out"
        )
    if config.inference.crf is not None:
        faults.append(
            "inference.crf is set: it refines what is said of each class at every pixel, and this task's answers are "
            "objects; leave it out"
        )
    if config.inference.samples:
        faults.append(
            f"inference.samples is {config.inference.samples}: of objects that differ from pass to pass there is no "
            "mean; leave it out"
        )
    if faults:
        raise InputError("train: " + "; ".join(faults))
