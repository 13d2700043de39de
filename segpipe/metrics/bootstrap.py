"""How sure a score of a whole dataset is: the percentile bootstrap over images, or over groups that belong together.

For scores that are a function of sums over images: mIoU, panoptic quality. `bootstrap_ap.py` does the same for average
precision, with the draws and the bounds of this file.
Letter legend: n images, G groups, R resamples, K classes, C counts of a class in an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError

Scores = npt.NDArray[np.float64]
# Cells (resamples x groups) worked on at once: small enough for the cache, large enough for the matrix product.
BLOCK_CELLS = 250_000
# With fewer groups the bounds are those of a handful of distinct resamples: of two groups there are only three.
MIN_GROUPS = 10


def resampling_unit(groups: Sequence[Hashable]) -> Literal["groups", "images"]:
    """What `interval` should draw: whole groups, whose images resemble each other, if there are at least MIN_GROUPS.

    Drawing single images of few groups tells how sure the value is on those groups, not on ones never seen.
    """
    return "groups" if len(set(groups)) >= MIN_GROUPS else "images"


def interval(
    counts: npt.ArrayLike,
    *,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bounds of a score of the whole dataset: (low, high) at the two-sided `level`.

    `counts` is (n, K, C) finite numbers, and `statistic` maps their sums (R, K, C) to scores (R,), nan for undefined.
    By default it is `dataset_miou`, whose C = 3 are intersection, truth pixels and predicted pixels of each image and
    class. Each resample draws G groups with replacement (Efron 1979); images that share an entry of `groups` are drawn
    together, and without `groups` every image is its own. Resampled sums are one matrix product of how often each group
    was drawn with the groups' counts, exact for whole numbers since all sums stay below 2^53. Undefined resamples drop
    out; the bounds are nan when all do. Raises InputError on counts of another shape or kind.
    """
    check_draws(resamples, level)
    table = checked(counts, width=None if statistic else 3)
    drawn_R = resampled_scores(table, statistic or dataset_miou, groups=groups, resamples=resamples, seed=seed)
    return bounds(drawn_R, level)


def resampled_scores(
    table: npt.NDArray[Any],
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    groups: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """The score (R,) of each resample of `checked` counts, nan where it is undefined. The rest is as of `interval`."""
    return statistic(resampled_sums(table, groups=groups, resamples=resamples, seed=seed))


def resampled_sums(
    table: npt.NDArray[Any], *, groups: Sequence[Hashable] | None, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """The counts (R, K, C) of each resample of `checked` ones, of which any score can be made."""
    return _resample(_group_sums(table, groups), resamples, seed)


def resampled_class_scores(
    counts: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    groups: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    """The score (R, K) of each class in each resample, nan where it is undefined, by a `statistic` that is the mean
    over classes: their `mean_of_defined` is what `resampled_scores` gives. Raises InputError as `interval`."""
    sums_RKC = resampled_sums(checked(counts, width=None), groups=groups, resamples=resamples, seed=seed)
    return statistic(sums_RKC[..., None, :])


def mean_of_defined(scores_RK: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean (R,) over classes that are not nan; nan where none is left."""
    defined = ~np.isnan(scores_RK)
    total, count = np.where(defined, scores_RK, 0).sum(axis=1), defined.sum(axis=1)
    mean_R: npt.NDArray[np.float64] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean_R


def check_draws(resamples: int, level: float) -> None:
    """Raises InputError on numbers of which no interval can be made."""
    if resamples < 1 or not 0 < level < 1:
        raise InputError(f"bootstrap: expected resamples >= 1 and 0 < level < 1, found {resamples} and {level}")


def bounds(values: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """The two-sided percentile bounds of the values that are not nan; nan where none is left."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def dataset_miou(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """mIoU of summed counts (..., K, 3), shape (...); classes without truth and prediction drop out of the mean.

    nan where no class is left.
    """
    table = np.asarray(counts, dtype=np.float64)
    intersection, truth, predicted = table[..., 0], table[..., 1], table[..., 2]
    return mean_ratio(np.stack([intersection, truth + predicted - intersection], axis=-1))


def mean_ratio(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean over classes of right / all, from summed counts (..., K, 2) of both, shape (...): a `statistic`.

    A class of which there is nothing drops out; nan where no class is left.
    """
    table = np.asarray(counts, dtype=np.float64)
    present = table[..., 1] > 0
    ratio = np.divide(table[..., 0], table[..., 1], out=np.zeros(present.shape), where=present)
    classes = present.sum(axis=-1)
    mean: npt.NDArray[np.float64] = np.full(classes.shape, np.nan)
    np.divide(ratio.sum(axis=-1), classes, out=mean, where=classes > 0)
    return mean


def checked(counts: npt.ArrayLike, *, width: int | None) -> npt.NDArray[Any]:
    """The counts as int64 or float64, (n, K, C), C of them `width` where that is given. Raises InputError on others."""
    table: npt.NDArray[Any] = np.asarray(counts)
    kinds = "iu" if width else "iuf"
    right = table.ndim == 3 and table.shape[0] >= 1 and table.dtype.kind in kinds
    if not right or table.shape[2] != (width or table.shape[2]) or not np.isfinite(table).all():
        raise InputError(
            f"bootstrap: expected counts of shape (images >= 1, K, {width or 'C'}) in "
            f"{'integers' if width else 'finite numbers'}, found {table.shape} {table.dtype}"
        )
    return table.astype(np.float64 if table.dtype.kind == "f" else np.int64, copy=False)


def _group_sums(table: npt.NDArray[Any], groups: Sequence[Hashable] | None) -> npt.NDArray[Any]:
    if groups is None:
        return table
    numbers = group_numbers(groups, len(table))
    sums = np.zeros((numbers.max() + 1, *table.shape[1:]), dtype=table.dtype)
    np.add.at(sums, numbers, table)
    return sums


def group_numbers(groups: Sequence[Hashable] | None, num_images: int) -> npt.NDArray[np.int64]:
    """The group (n,) of each image, numbered from 0 as they come; without `groups` every image is its own."""
    if groups is None:
        return np.arange(num_images)
    if len(groups) != num_images:
        raise InputError(f"bootstrap: {len(groups)} groups for {num_images} images; expected one per image")
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.int64)


def draw(num_groups: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which groups each resample holds: (R, G) indices below G, uniform, with replacement."""
    return rng.integers(0, num_groups, size=(resamples, num_groups))


def _resample(sums: npt.NDArray[Any], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """The counts of every resample, (R, K, C)."""
    num_groups = len(sums)
    flat = sums.reshape(num_groups, -1).astype(np.float64)
    blocks = [weights.astype(np.float64) @ flat for weights in draw_weights(num_groups, resamples, seed)]
    return np.concatenate(blocks).reshape(resamples, *sums.shape[1:])


def draw_weights(num_groups: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each resample holds each group, in blocks (rows, G) of at most about BLOCK_CELLS, R rows in all."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK_CELLS // num_groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        # Row r counts in its own G bins; uniform draws counted are multinomial weights, and far faster to make.
        cells = draw(num_groups, rows, rng) + np.arange(rows)[:, None] * num_groups
        yield np.bincount(cells.ravel(), minlength=rows * num_groups).reshape(rows, num_groups)
