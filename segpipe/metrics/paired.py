"""Is one model better than another, or were the images kind to it? The paired bootstrap of a difference of scores.

Both models are scored on the same resampled images, so that what makes an image hard for both of them cancels out
(Efron, Tibshirani, An Introduction to the Bootstrap, 1993; of two systems on one test set: Koehn, 2004). The draws are
those of `bootstrap.py`.

Letter legend: n images, R resamples, K classes, C counts of a class in an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from segpipe.errors import InputError
from segpipe.metrics.bootstrap import bounds, check_draws, checked, dataset_miou, resampled_scores
from segpipe.metrics.bootstrap_ap import ApEvidence, mean_ap, resampled_mean_ap

Scores = npt.NDArray[np.float64]


def paired_bootstrap(
    champion_counts: npt.ArrayLike,
    challenger_counts: npt.ArrayLike,
    *,
    statistic: Callable[[Scores], Scores] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> dict[str, float]:
    """How much the challenger's score of the whole dataset exceeds the champion's: {"delta", "low", "high", "p"}.

    Both are counts (n, K, C) of the same images in the same order, and `statistic` and `groups` are as in `interval`.
    `delta` is the difference on the images themselves; `low` and `high` are the two-sided percentile bounds of the
    difference at `level`. `p` is one-sided: the share of resamples in which the challenger is not better, with one more
    counted on either side (Davison, Hinkley, 1997, section 4.2), so that it is never 0. Resamples in which one of the
    scores is undefined drop out; all four are nan when none is left, or when a score of the dataset is undefined.

    Raises InputError on counts of different shapes, and as `interval`.
    """
    check_draws(resamples, level)
    pair = [checked(counts, width=None if statistic else 3) for counts in (champion_counts, challenger_counts)]
    if pair[0].shape != pair[1].shape:
        raise InputError(
            f"paired bootstrap: counts of shape {pair[0].shape} against {pair[1].shape}; expected those of two models "
            "on the same images and classes"
        )
    score, width = statistic or dataset_miou, pair[0].shape[2]

    def difference(sums: Scores) -> Scores:
        return score(sums[..., width:]) - score(sums[..., :width])

    joined = np.concatenate(pair, axis=2)
    drawn_R = resampled_scores(joined, difference, groups=groups, resamples=resamples, seed=seed)
    return _told(float(difference(joined.sum(axis=0, dtype=np.float64)[None])[0]), drawn_R, level)


def paired_bootstrap_ap(
    champion: ApEvidence,
    challenger: ApEvidence,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> dict[str, float]:
    """As `paired_bootstrap`, of average precision: what both models find among the same objects of the same images.

    Raises InputError where the objects to be found differ.
    """
    check_draws(resamples, level)
    if not np.array_equal(champion.truths_nK, challenger.truths_nK):
        raise InputError("paired bootstrap: the two models were scored on different objects; expected the same ones")
    pair = (champion, challenger)
    drawn = [resampled_mean_ap(side, groups=groups, resamples=resamples, seed=seed) for side in pair]
    whole = [mean_ap(side) for side in pair]
    return _told(whole[1] - whole[0], drawn[1] - drawn[0], level)


def _told(delta: float, drawn_R: Scores, level: float) -> dict[str, float]:
    low, high = bounds(drawn_R, level)
    defined = drawn_R[~np.isnan(drawn_R)]
    if not defined.size or np.isnan(delta):
        return dict.fromkeys(("delta", "low", "high", "p"), float("nan"))
    p = (np.count_nonzero(defined <= 0) + 1) / (defined.size + 1)
    return {"delta": delta, "low": low, "high": high, "p": float(p)}
