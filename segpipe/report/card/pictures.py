"""The pictures of a card, ready for its template: panels as data URIs, and words for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.report import embedding, names
from segpipe.report.card.facts import CardFacts, Shown
from segpipe.report.drawing import Labels

COARSE_SIDE = 200  # images smaller than this are shown in squares, as they are


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    uri: str
    alt: str
    caption: str
    is_map: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One image with its panels; `told` is what is said of it in front of its name."""

    name: str
    told: str
    width: int
    height: int
    is_coarse: bool
    panels: tuple[Panel, ...]


def cases(facts: CardFacts, shown: Sequence[Shown], *, with_errors: bool = True) -> list[Case]:
    """Image, truth, prediction and errors of each; of one that the champion saw, its prediction before this model's."""
    return [_case(facts, each, with_errors=with_errors) for each in shown]


def _case(facts: CardFacts, shown: Shown, *, with_errors: bool) -> Case:
    panels = [Panel(uri=embedding.photograph(shown.image_hw3), alt=f"image {shown.name}", caption="image")]
    for ids_hw, what in (
        (shown.truth_hw, "truth"),
        (shown.champion_hw, "champion"),
        (shown.prediction_hw, "prediction" if shown.champion_hw is None else "this model"),
    ):
        if ids_hw is not None:
            alt = f"{what} of {shown.name}: {_described(facts, ids_hw)}"
            panels.append(Panel(uri=embedding.label_map(ids_hw, facts.classes), alt=alt, caption=what, is_map=True))
    if with_errors and shown.truth_hw is not None and shown.prediction_hw is not None and shown.champion_hw is None:
        uri = embedding.errors(shown.image_hw3, shown.prediction_hw, shown.truth_hw, facts.ignore_index)
        share = _wrong(shown.prediction_hw, shown.truth_hw, facts.ignore_index)
        panels.append(Panel(uri=uri, alt=f"errors of {shown.name}: {share} in red", caption=share))
    height, width = shown.image_hw3.shape[:2]
    return Case(
        name=shown.name,
        told=_told(shown),
        width=width,
        height=height,
        is_coarse=max(height, width) < COARSE_SIDE,
        panels=tuple(panels),
    )


def _told(shown: Shown) -> str:
    if shown.before is not None and shown.score is not None:
        return f"{names.share(shown.before)} → {names.share(shown.score)}"
    return "" if shown.score is None else names.share(shown.score)


def _wrong(prediction_hw: Labels, truth_hw: Labels, ignore_index: int) -> str:
    valid_hw = truth_hw != ignore_index
    if not valid_hw.any():
        return "nothing is labelled"
    return f"{names.percent(float((prediction_hw != truth_hw)[valid_hw].mean()))} wrong"


def _described(facts: CardFacts, ids_hw: Labels) -> str:
    """The largest classes of a map in words."""
    pixels_K = np.bincount(ids_hw[ids_hw < len(facts.classes)].ravel(), minlength=len(facts.classes))
    largest = [k for k in np.argsort(-pixels_K, kind="stable")[:4] if pixels_K[k]]
    return ", ".join(f"{facts.classes[k].name} {names.percent(pixels_K[k] / ids_hw.size)}" for k in largest)
