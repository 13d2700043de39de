"""The confusion matrix, the scores that follow from it, and the meter that gathers both over a split.

Everything is counted in integers, merged by addition and divided once at the end, so that the result does not depend
on the order of images, the batches or the number of workers. Letter legend: N images, K classes, H W image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.arrays import as_array, is_tensor
from segpipe.metrics.once import in_order, refuse_twice, refuse_unlike

if TYPE_CHECKING:
    from torch import Tensor

IntArray = npt.NDArray[np.int64]
UINT16_VALUES = 1 << 16


def confusion_matrix(predictions: Any, labels: Any, num_classes: int, ignore_index: int = 255) -> Any:
    """Counts pixels by (truth, prediction): int64 (K, K), rows truth, columns prediction.

    `predictions` and `labels` are integer arrays of one shape, NumPy or torch; the result is a torch tensor (on the
    predictions' device) when they are. Pixels labelled `ignore_index` do not count, whatever was predicted there.
    Raises InputError on other shapes, types that are no integers, and ids outside 0..K-1.
    """
    if tuple(predictions.shape) != tuple(labels.shape):
        raise InputError(
            f"confusion matrix: predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} must be alike"
        )
    if not is_tensor(predictions):
        return count_numpy(as_array(predictions), as_array(labels), num_classes, ignore_index)
    import torch

    if predictions.is_cuda:
        return count_torch(predictions, torch.as_tensor(labels, device=predictions.device), num_classes, ignore_index)
    return torch.from_numpy(count_numpy(as_array(predictions), as_array(labels), num_classes, ignore_index))


def count_numpy(
    predictions: npt.NDArray[Any], labels: npt.NDArray[Any], num_classes: int, ignore_index: int
) -> IntArray:
    """The count on the CPU: keys of 16 bits where they fit, and a bin behind the table for ignored pixels."""
    predictions, labels = predictions.ravel(), labels.ravel()
    _check_integers(predictions.dtype.kind in "iub" and labels.dtype.kind in "iub", predictions.dtype, labels.dtype)
    ignored = labels == ignore_index
    labels = np.where(ignored, 0, labels)
    _check_range("label", _range(labels), num_classes)
    low, high = _range(predictions)
    if low < 0 or high >= num_classes:
        predictions = np.where(ignored, 0, predictions)
        _check_range("prediction", _range(predictions), num_classes)
    cells = num_classes * num_classes
    key: Any = np.uint16 if cells < UINT16_VALUES else np.int64
    keys = labels.astype(key) * key(num_classes) + predictions.astype(key)
    counts = np.bincount(np.where(ignored, key(cells), keys), minlength=cells)
    return counts[:cells].reshape(num_classes, num_classes).astype(np.int64, copy=False)


def count_torch(predictions: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """The same count by torch, on the tensors' device."""
    import torch

    is_integer = not (predictions.is_floating_point() or labels.is_floating_point())
    _check_integers(is_integer, predictions.dtype, labels.dtype)
    predictions, labels = predictions.reshape(-1).long(), labels.reshape(-1).long()
    ignored = labels == ignore_index
    labels, predictions = labels.masked_fill(ignored, 0), predictions.masked_fill(ignored, 0)
    for what, ids in (("label", labels), ("prediction", predictions)):
        if ids.numel():
            _check_range(what, (int(ids.min()), int(ids.max())), num_classes)
    cells = num_classes * num_classes
    keys = (labels * num_classes + predictions).masked_fill(ignored, cells)
    return torch.bincount(keys, minlength=cells)[:cells].reshape(num_classes, num_classes)


def semantic_scores(confusion: Any) -> dict[str, Any]:
    """Scores of a confusion matrix (K, K), rows truth, columns prediction; NumPy, torch or nested lists.

    "iou" and "dice" are float64 (K,), nan where truth and prediction are both empty; the rest are floats: "miou" is the
    mean over the classes with an IoU, "miou_present" over those with truth, "mean_accuracy" the mean recall over the
    latter, "pixel_accuracy" the share of right pixels, "frequency_weighted_iou" weighs by truth pixels (Long et al.,
    2015, section 5). Each is nan when there is nothing to divide by. Raises InputError on a table that is not (K, K).
    """
    table = as_array(confusion)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.dtype.kind not in "iu":
        raise InputError(f"scores: expected a (K, K) matrix of counts, found {table.shape} {table.dtype}")
    intersection = np.diagonal(table).astype(np.float64)
    truth, predicted = table.sum(axis=1).astype(np.float64), table.sum(axis=0).astype(np.float64)
    total = truth.sum()
    iou = _divide(intersection, truth + predicted - intersection)
    present = truth > 0
    recall = _divide(intersection, truth)
    return {
        "iou": iou,
        "dice": _divide(2 * intersection, truth + predicted),
        "miou": _mean(iou[~np.isnan(iou)]),
        "miou_present": _mean(iou[present]),
        "pixel_accuracy": float(intersection.sum() / total) if total else float("nan"),
        "mean_accuracy": _mean(recall[present]),
        "frequency_weighted_iou": float((truth * iou)[present].sum() / total) if total else float("nan"),
    }


class ConfusionMeter:
    """Gathers the confusion matrix of a split and, per image and class, what the paired tests need.

    Every image counts exactly once: a sample id that comes again is an error. Meters of parts of a split merge in any
    order to the same state. `per_sample[sample_id]` is (K, 3): intersection, truth and predicted pixels. `state()` is
    plain data (dicts, lists, ints, strings), fit for JSON and other processes.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.confusion: IntArray = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.per_sample: dict[str, IntArray] = {}

    def update(
        self, predictions_NHW: Tensor | Sequence[Any], labels_NHW: Tensor | Sequence[Any], sample_ids: Sequence[str]
    ) -> None:
        """Counts N images: (N, H, W) class ids, or sequences of N (H, W) arrays of their own sizes.

        Raises InputError on unequal lengths, a repeated sample id or a bad class id; nothing is counted then.
        """
        if not len(predictions_NHW) == len(labels_NHW) == len(sample_ids):
            raise InputError(
                f"meter: {len(predictions_NHW)} predictions, {len(labels_NHW)} label maps and {len(sample_ids)} "
                "sample ids; expected one of each per image"
            )
        part = ConfusionMeter(self.num_classes, self.ignore_index)
        for prediction, labels, sample_id in zip(predictions_NHW, labels_NHW, sample_ids, strict=True):
            part._count(prediction, labels, sample_id)
        self.merge(part)

    def _count(self, prediction: Any, labels: Any, sample_id: str) -> None:
        try:
            counts = confusion_matrix(prediction, labels, self.num_classes, self.ignore_index)
        except InputError as error:
            raise InputError(f"sample {sample_id}: {error}") from None
        refuse_twice([sample_id], self.per_sample)
        confusion = as_array(counts)
        self.confusion += confusion
        self.per_sample[sample_id] = np.stack((np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)), 1)

    def merge(self, other: ConfusionMeter) -> None:
        """Adds what `other` counted. Raises InputError on other classes or ignore index, or a sample in both."""
        mine, theirs = ({"classes": meter.num_classes, "ignored id": meter.ignore_index} for meter in (self, other))
        refuse_unlike(mine, theirs)
        refuse_twice(other.per_sample, self.per_sample)
        self.confusion += other.confusion
        self.per_sample.update(other.per_sample)

    def counts(self, sample_ids: Sequence[str] | None = None) -> IntArray:
        """(n, K, 3) int64: intersection, truth and predicted pixels, in the order of `sample_ids` (default: sorted).

        Raises InputError when one of them was not counted, or one that was counted is not among them.
        """
        wanted = in_order(sample_ids, self.per_sample)
        if not wanted:
            return np.zeros((0, self.num_classes, 3), dtype=np.int64)
        return np.stack([self.per_sample[sample_id] for sample_id in wanted])


def _range(ids: npt.NDArray[Any]) -> tuple[int, int]:
    return (int(ids.min()), int(ids.max())) if ids.size else (0, 0)


def _check_integers(is_integer: bool, *dtypes: object) -> None:
    if not is_integer:
        raise InputError(f"confusion matrix: expected integer class ids, found {' and '.join(map(str, dtypes))}")


def _check_range(what: str, low_high: tuple[int, int], num_classes: int) -> None:
    low, high = low_high
    if low < 0 or high >= num_classes:
        raise InputError(
            f"confusion matrix: {what} {low if low < 0 else high} is outside 0..{num_classes - 1} and is not ignored"
        )


def _divide(above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    out: npt.NDArray[np.float64] = np.full(below.shape, np.nan)
    return np.divide(above, below, out=out, where=below > 0)


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
