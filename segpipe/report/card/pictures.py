"""The pictures of a card, ready for its template: panels as data URIs, and words for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segpipe.report import embedding, names, sketched
from segpipe.report.card.facts import CardFacts, Shown

COARSE_SIDE = 200  # images smaller than this are shown in squares, as they are


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """`style` is a class of `page.css`."""

    uri: str
    alt: str
    caption: str
    style: str = ""


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
    whole, truth = sketched.is_whole(facts.report), shown.truth
    known = None if truth is None else sketched.colours(truth, facts.classes, whole=whole)
    panels = [Panel(uri=embedding.photograph(shown.image_hw3), alt=f"image {shown.name}", caption="image")]
    for sketch, what in (
        (truth, "truth"),
        (shown.champion, "champion"),
        (shown.prediction, "prediction" if shown.champion is None else "this model"),
    ):
        if sketch is not None:
            of_ids = sketched.colours(sketch, facts.classes, whole=whole, truth=None if sketch is truth else known)
            alt = f"{what} of {shown.name}: {sketched.told(sketch, facts.classes)}"
            background = "map" if whole or sketch.objects is None else "map bare"
            caption = what
            if sketch.objects is not None and sketch is not truth and shown.champion is not None:
                caption += f": {sketched.counts(sketch.objects)}"
            panels.append(Panel(uri=sketched.flat(sketch, of_ids), alt=alt, caption=caption, style=background))
    if with_errors and truth is not None and shown.prediction is not None and shown.champion is None:
        ignored, said = facts.ignore_index, shown.prediction
        uri = sketched.errors(shown.image_hw3, said, truth, ignore_index=ignored, whole=whole)
        wrong = sketched.told_errors(said, truth, ignore_index=ignored, whole=whole)
        panels.append(Panel(uri=uri, alt=f"errors of {shown.name}: {wrong}", caption=wrong))
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
