"""How far a file is from the model that it was made of, by the task's own way to a score. Part of `portable`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from segpipe.data.batch import Batch, evaluation_inputs
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from segpipe.portable.network import largest_difference
from segpipe.tasks import TaskOps
from segpipe.types import Inference, ModelBundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far a file is from the model on `images` images: the largest difference of a logit as a share of the largest
    logit of its image, and both mean IoUs, 0..1."""

    images: int
    logits: float
    miou: float
    exported_miou: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """The logits of each batch, and the mean IoU that they come to."""

    logits: tuple[Tensor, ...]
    miou: float


class _Asked(nn.Module):
    """A function of images in the place of the model, and what it last said."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.logits_NKHW = network, torch.empty(0)

    def forward(self, images_N3HW: Tensor) -> DenseOutput:
        self.logits_NKHW = self.network(images_N3HW)
        return DenseOutput(scores_NKhw=self.logits_NKHW)


def answers(network: nn.Module, batches: Sequence[Batch], bundle: ModelBundle, ops: TaskOps) -> Answers:
    """What a function images_N3HW -> logits_NKHW says of the batches, in one pass an image, and by the task's own way
    from there to the mean IoU. Raises InputError where no pixel of the batches is labelled."""
    one_pass = replace(bundle, inference=Inference(scales=(1.0,), mirror=False))
    asked, meter, logits = _Asked(network), ops.meter(), []
    with torch.no_grad():
        for batch in batches:
            ops.measure(meter, ops.predict(asked, batch, one_pass), batch)
            logits.append(asked.logits_NKHW)
    scores = ops.scores(meter)
    if ops.primary not in scores:
        raise InputError(
            f"{ops.primary} of the {len(batches)} images that a file is compared on is undefined, since nothing in "
            "them is labelled: ask for more --images, or another --split"
        )
    return Answers(logits=tuple(logits), miou=scores[ops.primary])


def agreement(expected: Answers, found: Answers) -> Agreement:
    """Of the model's answers and a file's to the same batches."""
    differences = [largest_difference(*each) for each in zip(expected.logits, found.logits, strict=True)]
    worst = next((each for each in differences if each != each), max(differences))  # a NaN is no maximum
    return Agreement(images=len(differences), logits=worst, miou=expected.miou, exported_miou=found.miou)


def inputs(batch: Batch, bundle: ModelBundle) -> Tensor:
    """What of a batch goes into a file: images_N3HW, float32 on the CPU."""
    return evaluation_inputs(batch, bundle, torch.device("cpu"))
