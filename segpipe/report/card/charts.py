"""The charts of a card, from its facts and numbers; None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from segpipe.report import names, svg
from segpipe.report.card.facts import CardFacts
from segpipe.report.card.numbers import Calibration, Curve
from segpipe.types import TrainResult

IMAGE_BINS = 20
MOST_STEPS = 300  # points of a curve of losses
LEAST_SHARE = 0.001  # of all pixels: what fewer say of a confidence is chance
SMOOTHED = 0.9  # weight of what was before in the running mean of losses


def confidence(sure: Calibration) -> Markup:
    """The reliability diagram."""
    x = _shares("how sure (probability)")
    points = [p for p in zip(sure.sure, sure.right, sure.share, strict=True) if p[2] >= LEAST_SHARE]
    line = svg.Line(name="right pixels", xs=[p[0] for p in points], ys=[p[1] for p in points], kind="marked")
    label = f"reliability diagram: expected calibration error {sure.error:.3f}"
    return svg.lines([line], x, _shares("how often right"), label=label, diagonal=True)


def curves(found: Sequence[Curve | None], facts: CardFacts) -> Markup | None:
    """Precision over recall of every class."""
    known = [(info, curve) for info, curve in zip(facts.classes, found, strict=True) if curve is not None]
    drawn = [
        svg.Line(name=info.name, xs=curve.recall, ys=curve.precision, colour=info.colour, kind="thin")
        for info, curve in known
    ]
    label = f"precision and recall of {len(drawn)} classes"
    return svg.lines(drawn, _shares("recall"), _shares("precision"), label=label) if drawn else None


def images(facts: CardFacts) -> Markup | None:
    """How many images score how much."""
    scores = np.array([each for each in facts.image_scores if each == each])
    if len(scores) < 2:
        return None
    counts, _ = np.histogram(scores, bins=IMAGE_BINS, range=(0.0, 1.0))
    median = float(np.median(scores))
    told = f"median {median:.2f}"
    label = f"histogram of the scores of {len(scores)} images, {told}"
    x = _shares("score of an image")
    return svg.columns(counts.tolist(), x, label=label, y_title="images", marked=(median, told))


def losses(training: TrainResult) -> Markup | None:
    """The loss of the batches, and its running mean."""
    points = [
        (each["step"], each["metrics"]["train/loss"]) for each in training.history if "train/loss" in each["metrics"]
    ]
    if len(points) < 2:
        return None
    smooth, weighed, weight = [], 0.0, 0.0
    for _, loss in points:
        weighed, weight = SMOOTHED * weighed + loss, SMOOTHED * weight + 1
        smooth.append(weighed / weight)
    every = max(1, len(points) // MOST_STEPS)
    steps = [step for step, _ in points[::every]]
    # A first loss that is far above all others would leave the rest on the floor.
    high = max(float(np.quantile([loss for _, loss in points], 0.98)), max(smooth[1:]))
    x, y = _steps(training.steps), svg.Axis(title="loss", low=0.0, high=high, ticks=svg.ticks(0, high))
    lines = [
        svg.Line(name="batches", xs=steps, ys=[min(loss, high) for _, loss in points[::every]], kind="faint"),
        svg.Line(name="running mean", xs=steps, ys=smooth[::every]),
    ]
    return svg.lines(lines, x, y, label=f"training loss, from {points[0][1]:.3g} to {smooth[-1]:.3g}")


def validation(training: TrainResult) -> Markup | None:
    """The metric that decides, whenever it was measured."""
    name = f"val/{training.primary}"
    points = [(each["step"], each["metrics"][name]) for each in training.history if name in each["metrics"]]
    if len(points) < 2:
        return None
    line = svg.Line(
        name=names.metric(training.primary), xs=[a for a, _ in points], ys=[b for _, b in points], kind="marked"
    )
    label = f"{names.metric(training.primary)} on the validation split, at best {training.best_value:.3f}"
    return svg.lines([line], _steps(training.steps), _shares(names.metric(training.primary)), label=label)


def _shares(title: str) -> svg.Axis:
    return svg.Axis(title=title, low=0.0, high=1.0, ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), form="{:.1f}".format)


def _steps(steps: int) -> svg.Axis:
    high = float(max(steps, 1))
    return svg.Axis(title="optimiser steps", low=0.0, high=high, ticks=svg.ticks(0, high, 4), form=names.count)
