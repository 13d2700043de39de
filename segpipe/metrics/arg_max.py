"""The class of every pixel from its scores: the arg max on which evaluation on CPU spends its time. Used by `tasks/`.

torch's reductions over channels take NCHW scores pixel by pixel. Here one class's plane after the other is compared
with the best so far, in NumPy's vector instructions, and in bytes where ids are concerned: some 25 times as fast as
argmax(1) at 12 classes and 5 times at 150, or 3 and 2 times as fast as max(1). `benchmarks/metrics.py` times it.
Letter legend: N batch, K classes, H W image size, P pixels of a strip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

# The best scores so far take 1 MiB. Images up to 512x512 are one strip: shorter ones cost more calls than they save.
STRIP_PIXELS = 1 << 18
MAX_BYTE_CLASSES = 255  # 255 is the id of what is ignored
# Scores that lie pixel by pixel are laid plane by plane first: of 11 classes in half of the time that max(1) takes, of
# 19 in three quarters, of 66 in twice the time.
MOST_TURNED = 32


def first_maximum(scores_NKHW: Tensor) -> Tensor:
    """The class of the highest score, the first of equal ones: (N, H, W), uint8, or int32 where K > 255.

    As argmax(1), NaN is higher than any number. Float32 scores on CPU that lie plane by plane, or are of few classes,
    take the fast way; all others go through max(1), which on CPU is 2 to 4 times as fast as argmax(1) and picks the
    same class.
    """
    import torch

    num_classes = scores_NKHW.shape[1]
    is_plain = scores_NKHW.device.type == "cpu" and scores_NKHW.dtype == torch.float32
    if is_plain and num_classes <= MOST_TURNED and scores_NKHW.stride(1) == 1:
        scores_NKHW = scores_NKHW.contiguous()
    if is_plain and scores_NKHW.stride()[2:] == (scores_NKHW.shape[3], 1) and num_classes <= MAX_BYTE_CLASSES:
        ids_NHW = _by_planes(scores_NKHW.detach().numpy())
        if ids_NHW is not None:
            return torch.from_numpy(ids_NHW)
    return scores_NKHW.max(1).indices.to(torch.uint8 if num_classes <= MAX_BYTE_CLASSES else torch.int32)


def _by_planes(scores_NKHW: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8] | None:
    """The ids, or None where a score is NaN, which comparison by comparison would be lost."""
    num_images, num_classes, height, width = scores_NKHW.shape
    planes: npt.NDArray[Any] = scores_NKHW.reshape(num_images, num_classes, height * width)
    ids: npt.NDArray[np.uint8] = np.zeros((num_images, height * width), dtype=np.uint8)
    longest = min(STRIP_PIXELS, height * width)
    best_P, higher_P = np.empty(longest, dtype=np.float32), np.empty(longest, dtype=np.bool_)
    for image_KP, ids_P in zip(planes, ids, strict=True):
        for start in range(0, height * width, STRIP_PIXELS):
            strip = slice(start, min(start + STRIP_PIXELS, height * width))
            best, higher = best_P[: strip.stop - start], higher_P[: strip.stop - start]
            candidate, id_ = higher.view(np.uint8), ids_P[strip]
            np.copyto(best, image_KP[0, strip])
            for k, plane in enumerate(image_KP[1:, strip], start=1):
                np.greater(plane, best, out=higher)  # not >=: the first of equal scores stands
                np.maximum(best, plane, out=best)  # NaN stays once met
                # Where class k is higher, its id is above all ids so far: a maximum is as good as a choice, and faster.
                np.multiply(candidate, k, out=candidate)
                np.maximum(id_, candidate, out=id_)
            if np.isnan(best).any():
                return None
    return ids.reshape(num_images, height, width)
