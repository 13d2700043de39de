"""What a card says in words: the few sentences that a reader should leave with, and what the numbers do not tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segpipe.metrics.evidence import class_score, found_objects, is_scored
from segpipe.report import sketched
from segpipe.report.card.facts import CardFacts
from segpipe.report.card.numbers import Calibration
from segpipe.report.names import count, metric, percent
from segpipe.types import CLASS_COUNTS, EvalReport

NOTHING = 0.005  # a best class below this is none
CALIBRATED = 0.02  # how far mean confidence and share of right pixels may lie apart
CONFUSED = 0.05  # share of a class's pixels that must be taken for another one to be worth a sentence
FEW_IMAGES, FEW_GROUPS = 50, 10
RARE = 0.001  # share of the labelled pixels below which a class's score rests on little


def glance(facts: CardFacts, sure: Calibration | None, mistakes: Sequence[tuple[str, str, float]]) -> Iterator[str]:
    """What stands out, in a few sentences; `mistakes` are its `confusions`."""
    report, name = facts.report, class_score(facts.report)
    if (counted := found_objects(report)) is not None and counted[1]:
        matched, there, told = counted
        noun = "segments" if sketched.is_whole(report) else "objects"
        right = f"of what it takes for one, {percent(matched / told)} is right" if told else "it is sure of none"
        yield f"It finds {percent(matched / there)} of the {count(there)} {noun}; {right}."
    found = {each: report.per_class[each].get(name) for each in report.classes}
    scored = sorted(((value, each) for each, value in found.items() if value is not None), reverse=True)
    if scored and scored[0][0] < NOTHING:
        yield "No class is found: it has learnt nothing that counts here."
    elif len(scored) > 1 and scored[0][0] > scored[-1][0]:
        (best, first), (worst, last) = scored[0], scored[-1]
        yield f"Best at {first} ({best:.2f}), weakest at {last} ({worst:.2f})."
    if mistakes and mistakes[0][2] >= CONFUSED:
        truth, said, part = mistakes[0]
        yield f"Of {truth}, {percent(part)} of the pixels are taken for {said}."
    if sure is not None:
        mean_sure = sum(a * b for a, b in zip(sure.sure, sure.share, strict=True))
        mean_right = sum(a * b for a, b in zip(sure.right, sure.share, strict=True))
        gap = mean_sure - mean_right
        how = "" if abs(gap) <= CALIBRATED else "too sure" if gap > 0 else "not sure enough"
        says = f"on average {percent(mean_sure)} sure and {percent(mean_right)} right"
        yield f"It is {how}: {says}." if how else f"Its confidence can be believed: {says}."


def confusions(report: EvalReport) -> list[tuple[str, str, float]]:
    """(truth, prediction, share of the truth's pixels) of wrong pairs, the largest share first."""
    if not report.confusion:
        return []
    table = np.asarray(report.confusion, dtype=np.float64)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:12]
    pairs = (np.unravel_index(place, shares.shape) for place in order)
    return [(report.classes[i], report.classes[j], float(shares[i, j])) for i, j in pairs if shares[i, j] > 0]


def limits(facts: CardFacts) -> Iterator[str]:
    """What the scores do not say, and where not to trust them."""
    report, data = facts.report, facts.data
    yield (
        f"All scores are of the {report.num_samples} images of the split {report.split} of {report.dataset}. Of other "
        "cameras, places, seasons or annotators they say nothing."
    )
    use = next((split.use for split in data.splits if split.name == report.split), "")
    if "validation" in use or "training" in use:
        yield f"The split {report.split} had a part in the training ({use}): the scores flatter the model."
    groups = len(set(report.groups))
    if report.resampled == "images" and groups < report.num_samples:
        yield (
            f"The images come from {groups} group{'s' * (groups > 1)}, too few to resample: the interval tells how "
            "sure the score is on these, not on new ones."
        )
    elif report.num_samples < FEW_IMAGES:
        yield f"{report.num_samples} images are few: read the interval before the value."
    total = sum(report.truth_counts)
    rare = [name for name, n in zip(report.classes, report.truth_counts, strict=True) if 0 < n < RARE * total]
    absent = [
        info.name
        for info, n in zip(facts.classes, report.truth_counts, strict=True)
        if not n and is_scored(report, info)
    ]
    if rare and _counted(report) == "pixels":
        yield f"Less than {percent(RARE)} of the labelled pixels are {_list(rare)}: their scores rest on little."
    if absent:
        yield f"The split shows no {_list(absent)}: nothing is known of how they are found."
    if data.trained_on != data.version:
        yield f"It was trained on another version of its data ({data.trained_on[:12]})."
    if report.primary == "miou":
        yield "A pixel of a border counts like any other: see the boundary scores before measuring areas or widths."
    yield f"{metric(report.primary)} follows the protocol {report.protocol}; other papers' numbers may follow another."


def _counted(report: EvalReport) -> str:
    return next((name for name in CLASS_COUNTS if name in report.per_class[report.classes[0]]), "")


def _list(names: list[str], at_most: int = 6) -> str:
    more = len(names) - at_most
    shown = names[:at_most] + ([f"{more} more"] if more > 0 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
