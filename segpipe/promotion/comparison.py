"""How much better a challenger is than the champion, and how sure that is: two reports, paired by image. Pure.

Below `gate.py`. A report holds what was counted in each image; its score follows from that, and so does the score that
any resample of its images would have had. Both models are resampled alike (`metrics/paired.py`).

Letter legend: n images, K classes, C counts of a class in an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segpipe.metrics import mean_ap, paired_bootstrap, paired_bootstrap_ap, resampling_unit
from segpipe.metrics.evidence import (
    DETECTIONS,
    KEYPOINTS,
    PIXELS,
    SEGMENTS,
    STATISTICS,
    VIDEOS,
    ap_evidence,
    class_score,
    sample_counts,
)
from segpipe.types import ClassScores, EvalReport

# Which of the numbers of an image say, added up, how much of a class an image holds in truth: no model changes that.
TRUTHS = {DETECTIONS: (0,), PIXELS: (1,), SEGMENTS: (1, 3), KEYPOINTS: (1,), VIDEOS: (2,)}
RESAMPLES = 10_000
AP_RESAMPLES = 2_000  # each sorts nothing, but passes over every detection of both models
# Of fewer pairs, even if the challenger wins them all, a coin would do so in more than 2.5 % of all nights.
LEAST_IMAGES = 6
# A report's score and what its evidence comes to may differ by the order of sums.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Challenger minus champion in the primary metric: `delta`, its 95 % interval, and the one-sided `p`: the share of
    resamples in which the challenger is not better. `resamples` drew whole `groups` or single `images`."""

    delta: float
    low: float
    high: float
    p: float
    resamples: int
    resampled: str


def changes(challenger: EvalReport, champion: EvalReport) -> tuple[ClassScores, ...]:
    """Every class's scores, in the order of the dataset."""
    name = class_score(champion)
    return tuple(
        ClassScores(
            name=each, champion=champion.per_class[each].get(name), challenger=challenger.per_class[each].get(name)
        )
        for each in champion.classes
    )


def compare(challenger: EvalReport, champion: EvalReport) -> Comparison:
    """The paired bootstrap of two comparable reports whose evidence has no faults."""
    unit = resampling_unit(champion.groups)
    drawn: dict[str, Any] = {"groups": champion.groups if unit == "groups" else None}
    if champion.count_names == DETECTIONS:
        drawn["resamples"] = AP_RESAMPLES
        found = paired_bootstrap_ap(ap_evidence(champion), ap_evidence(challenger), **drawn)
    else:
        drawn["resamples"] = RESAMPLES
        statistic = STATISTICS[champion.count_names]
        found = paired_bootstrap(sample_counts(champion), sample_counts(challenger), statistic=statistic, **drawn)
    return Comparison(**found, resamples=drawn["resamples"], resampled=unit)


def evidence_faults(report: EvalReport) -> Iterator[str]:
    """Why a report's evidence is not what its score was made of, in a sentence; nothing where it is."""
    said = f"the report of {report.label}"
    expected = (len(report.sample_ids), len(report.classes), len(report.count_names))
    if report.count_names != DETECTIONS and report.count_names not in STATISTICS:
        yield f"{said} counts {', '.join(report.count_names) or 'nothing'} in each image, of which no score is made"
        return
    try:
        counts_nKC, images = sample_counts(report), len(report.detections)
        if counts_nKC.shape != expected or not np.isfinite(counts_nKC).all():
            yield f"{said} holds counts of shape {counts_nKC.shape}, expected finite ones of {expected}"
        elif len(report.groups) != expected[0]:
            yield f"{said} says the groups of {len(report.groups)} images, expected {expected[0]}"
        elif report.count_names == DETECTIONS and images != expected[0]:
            yield f"{said} holds the detections of {images} images, expected {expected[0]}"
        elif not abs((value := _value(report, counts_nKC)) - report.value) <= ROUNDING:  # nan is not, either
            counted = f"what it counted in its images comes to {value:.6f}"
            yield f"{said} has {report.primary} = {report.value:.6f}, and {counted}"
    except (ValueError, IndexError, TypeError):
        yield f"{said} holds evidence of uneven length; evaluate the model again"


def evidence_unlike(challenger: EvalReport, champion: EvalReport) -> Iterator[str]:
    """Why two reports of the same samples, whose evidence has no faults, are no pair, in a sentence; nothing where they
    are."""
    ours, theirs = challenger.count_names, champion.count_names
    if ours != theirs:
        yield (
            f"{challenger.label} counts {', '.join(ours)} in each image, and {champion.label} {', '.join(theirs)}; "
            "evaluate both by the same code"
        )
        return
    columns = list(TRUTHS[theirs])
    ours_nK, theirs_nK = (sample_counts(report)[..., columns].sum(axis=2) for report in (challenger, champion))
    odd = np.argwhere(ours_nK != theirs_nK)
    if odd.size:
        image, of_class = odd[0]
        yield (
            f"{challenger.label} and {champion.label} were scored on different truths: of {champion.classes[of_class]} "
            f"in {champion.sample_ids[image]}, {ours_nK[image, of_class]:g} and {theirs_nK[image, of_class]:g}"
        )


def _value(report: EvalReport, counts_nKC: npt.NDArray[np.float64]) -> float:
    """The primary metric, from the evidence alone."""
    if report.count_names == DETECTIONS:
        return mean_ap(ap_evidence(report))
    return float(STATISTICS[report.count_names](counts_nKC.sum(axis=0)[None])[0])
