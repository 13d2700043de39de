"""A card's facts -> its page: the numbers, sentences, charts and pictures that the template asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from segpipe.metrics.evidence import class_score, image_score, is_scored
from segpipe.predictions import GRID_PIXELS
from segpipe.report import choosing, embedding, names, sketched
from segpipe.report.card import charts, numbers, pictures, sentences
from segpipe.report.card.facts import CardFacts
from segpipe.report.pages import named, render, ribbon
from segpipe.types import CLASS_COUNTS, TrainResult

MOST_BYTES = 8_000_000
MOST_DRAWN = 24  # pictures, each of `embedding.DRAWN_BYTES`
MOST_CLASSES = 30  # rows of a table that is seen at once; the rest unfolds
MOST_CONFUSED = 24  # classes of the confusion table
COUNTED_AS = {"pixels": "of the pixels", "objects": "objects", "segments": "segments", "keypoints": "keypoints"}


def render_card(facts: CardFacts) -> str:
    """The card as HTML, at most `MOST_BYTES` long."""
    sure = numbers.calibration(facts.report.details) if facts.report.details else None
    mistakes = sentences.confusions(facts.report)
    content = {**_head(facts, sure, mistakes), **_scores(facts), **_details(facts, sure), **_shown(facts)}
    content |= {**_training(facts), **_data(facts), "mistakes": [each for each in mistakes if each[2] >= 0.01][:8]}
    return render("card.html.j2", **content, sections=_sections(content))


def _head(
    facts: CardFacts, sure: numbers.Calibration | None, mistakes: Sequence[tuple[str, str, float]]
) -> dict[str, Any]:
    report = facts.report
    told = [
        ("images", names.count(report.num_samples), f"split {report.split} of {report.dataset}"),
        ("parameters", f"{report.parameters / 1e6:.2f} M", ""),
    ]
    if report.latency is not None:
        told.append(("time for an image", names.seconds(report.latency), report.timed_on))
    told += [(name, value, "") for name, value in facts.costs.items() if name == "weights" or name.startswith("GFLOP")]
    if facts.training is not None and facts.training.train_seconds:
        told.append(("training", names.seconds(facts.training.train_seconds), _epochs(facts.training)))
    return {
        "title": f"{report.label} · {names.metric(report.primary)} {report.value:.3f} on {report.dataset}",
        "report": report,
        "paper": facts.paper,
        "ribbon": ribbon(report, facts.classes),
        "glance": list(sentences.glance(facts, sure, mistakes)),
        "facts": told,
        "against": facts.against,
        "costs": facts.costs,
        "differs": facts.differs,
        "limits": list(sentences.limits(facts)),
        "use": facts.use,
    }


def _scores(facts: CardFacts) -> dict[str, Any]:
    report, score = facts.report, class_score(facts.report)
    counted = [name for name in CLASS_COUNTS if name in report.per_class[report.classes[0]]]
    total = {name: sum(report.per_class[each].get(name) or 0.0 for each in report.classes) for name in counted}
    rows = []
    known = report.class_bounds or (None,) * len(facts.classes)
    for info, bounds in zip(facts.classes, known, strict=True):
        if not is_scored(report, info):
            continue
        low, high = bounds or (None, None)
        found = report.per_class[info.name]
        rows.append(
            {
                **named(info),
                "value": found.get(score),
                "low": low,
                "high": high,
                "counts": [_count(name, found.get(name) or 0.0, total[name]) for name in counted],
            }
        )
    # Of the classes of street scenes one has keypoints: seven empty rows would say less than a sentence.
    truth = dict(zip(report.classes, report.truth_counts, strict=True))
    absent = [row["name"] for row in rows if row["value"] is None and not truth[row["name"]]]
    rows = [row for row in rows if row["name"] not in absent]
    confusion, is_cut = _confusion(facts)
    return {
        "absent": absent,
        "score_name": names.metric(score),
        "class_rows": rows[:MOST_CLASSES],
        "more_class_rows": rows[MOST_CLASSES:],
        "count_names": [COUNTED_AS[name] for name in counted],
        "confusion_rows": confusion,
        "confusion_columns": [row["name"] for row in confusion],
        "is_cut": is_cut,
    }


def _count(name: str, value: float, total: float) -> str:
    return names.percent(value / (total or 1)) if name == "pixels" else names.count(value)


def _confusion(facts: CardFacts) -> tuple[list[dict[str, Any]], bool]:
    """The rows of the table, in shares of the truth, of the most frequent classes; and whether there are more."""
    if not facts.report.confusion:
        return [], False
    table = np.asarray(facts.report.confusion, dtype=np.float64)
    truth_K = table.sum(axis=1)
    chosen = sorted(np.argsort(-truth_K, kind="stable")[:MOST_CONFUSED].tolist())
    rows = []
    for k in chosen:
        info, shares = facts.classes[k], table[k, chosen] / max(truth_K[k], 1)
        rows.append({**named(info), "shares": shares.tolist() if truth_K[k] else [None] * len(chosen)})
    return rows, len(chosen) < len(table)


def _details(facts: CardFacts, sure: numbers.Calibration | None) -> dict[str, Any]:
    """Confidence, sizes, images and borders; None and empty where the report has no such counts."""
    details = facts.report.details
    content: dict[str, Any] = dict.fromkeys(("confidence_chart", "curves_chart", "border_mean"))
    content |= {"grid_pixels": GRID_PIXELS, "calibration_error": 0.0, "curve_areas": [], "size_columns": []}
    content |= {"size_rows": [], "border_rows": [], "images_chart": charts.images(facts)}
    if details is None:
        return content
    if sure is not None:
        found = numbers.precision_recall(details)
        areas = [(info, curve) for info, curve in zip(facts.classes, found, strict=True) if curve is not None]
        content |= {
            "confidence_chart": charts.confidence(sure),
            "calibration_error": sure.error,
            "curves_chart": charts.curves(found, facts),
            "curve_areas": [(info.name, info.colour, curve.area) for info, curve in areas],
        }
    borders, sizes = numbers.boundary_ious(details), numbers.size_ious(details)
    score = class_score(facts.report)
    content |= {
        "border_rows": [
            {**named(info), "border": border, "value": facts.report.per_class[info.name].get(score)}
            for info, border in zip(facts.classes, borders, strict=True)
            if border is not None
        ],
        "border_mean": numbers.mean_of(borders),
        "size_rows": [{**named(info), "shares": row} for info, row in zip(facts.classes, sizes, strict=True)],
        "size_columns": list(_size_names(details.size_edges)),
    }
    return content


def _size_names(edges: tuple[float, ...]) -> Iterator[str]:
    told = [f"{100 * edge:g} %" for edge in edges]
    yield f"below {told[0]}"
    yield from (f"{low} to {high}" for low, high in pairwise(told))
    yield f"{told[-1]} and more"


def _shown(facts: CardFacts) -> dict[str, Any]:
    against = facts.against
    groups = {"The best": facts.best, "In the middle": facts.median, "The worst": facts.worst}
    moved = {"Most improved": against.improved, "Most harmed": against.harmed} if against else {}
    whole = sketched.is_whole(facts.report)
    known = [each for shown in groups.values() for case in shown for each in (case.truth, case.prediction) if each]
    has_objects = any(each.objects is not None for each in known)
    return {
        "changes": [each for each in against.changes if (each.champion, each.challenger) != (None, None)]
        if against
        else [],
        "image_score_name": names.metric(image_score(facts.report)),
        "has_objects": has_objects,
        "are_striped": whole or not has_objects,
        "map_legend": sketched.legend(facts.classes, known, whole=whole),
        "error_legend": sketched.error_legend(objects=has_objects),
        "cases": [(title, pictures.cases(facts, shown)) for title, shown in groups.items() if shown],
        "moved": [(title, pictures.cases(facts, shown)) for title, shown in moved.items() if shown],
        "drawn": [_drawn(each.name, each.png) for each in choosing.evenly(facts.drawn, MOST_DRAWN)],
        "previews": pictures.cases(facts, facts.data.previews, with_errors=False),
    }


def _drawn(name: str, png: bytes) -> dict[str, Any]:
    uri, width, height = embedding.drawn(png)
    alt = f"{name}: image, truth and prediction in panels, with a legend"
    return {"uri": uri, "width": width, "height": height, "name": name, "alt": alt}


def _training(facts: CardFacts) -> dict[str, Any]:
    training = facts.training
    if training is None:
        return {"loss_chart": None, "validation_chart": None, "training_told": ""}
    ended = {"finished": "as long as was asked", "patience": "until it no longer improved"}
    why = ended.get(training.stopped, training.stopped)
    told = (
        f"{names.count(training.steps)} steps in {_epochs(training)}, {why}, "
        f"{names.seconds(training.train_seconds)} in all. The weights are those of epoch {training.best_epoch}, which "
        f"scored {training.best_value:.3f} on the validation split."
    )
    return {
        "loss_chart": charts.losses(training),
        "validation_chart": charts.validation(training),
        "training_told": told,
    }


def _epochs(training: TrainResult) -> str:
    return f"{training.epochs} epoch{'s' * (training.epochs != 1)}"


def _data(facts: CardFacts) -> dict[str, Any]:
    splits = [split for split in facts.data.splits if any(split.shares)]
    rows = [
        {**named(info), "shares": [split.shares[k] for split in splits]}
        for k, info in enumerate(facts.classes)
        if splits
    ]
    return {
        "data": facts.data,
        "balance": rows,
        "balance_splits": [split.name for split in splits],
        "balance_most": max((share for split in splits for share in split.shares), default=1.0),
    }


def _sections(content: dict[str, Any]) -> dict[str, str]:
    """The sections that the page has: their names by id."""
    against = content["against"]
    has = {
        ("classes", "Classes"): True,
        ("mistakes", "Mistakes"): content["confusion_rows"],
        ("confidence", "Confidence"): content["confidence_chart"],
        ("where", "Where it fails"): content["size_rows"] or content["images_chart"] or content["border_rows"],
        ("pictures", "Predictions"): content["cases"] or content["drawn"],
        ("champion", "Against the champion"): against and against.champion,
        ("training", "Training"): content["loss_chart"] or content["validation_chart"],
        ("cost", "Cost"): True,
        ("data", "Data"): True,
        ("use", "Use"): True,
        ("limits", "Limits and licence"): True,
    }
    return dict(section for section, is_there in has.items() if is_there)
