"""What a model card is made of: everything that it says, read before by whoever knows where it lies (`stages/card.py`).

Legend: h w size of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segpipe.report.drawing import Pixels
from segpipe.sketches import Sketch
from segpipe.types import ClassInfo, ClassScores, EvalReport, TrainResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One image of a card with what is known of it, all of one size; `champion` is what the champion said of it.

    `score` is the image's own, `before` the champion's.
    """

    name: str
    image_hw3: Pixels
    truth: Sketch | None = None
    prediction: Sketch | None = None
    champion: Sketch | None = None
    score: float | None = None
    before: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A picture that a task has of its own: PNG with panels and legend."""

    name: str
    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """One split: how many samples, and what share of its labelled pixels each class has (empty: no label maps)."""

    name: str
    samples: int
    shares: tuple[float, ...]
    use: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """The dataset version that the model was scored on. `trained_on` is that of its training."""

    name: str
    version: str
    trained_on: str
    source: str
    licence: str
    splits: tuple[SplitFacts, ...]
    quarantined: int
    warnings: tuple[str, ...]
    previews: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Against:
    """How the model stands to the champion that it challenged: what the gate said, and the images of which the score
    rose and fell most. `delta` with `low` and `high` is None where they were not compared."""

    outcome: str
    reason: str
    champion: str | None
    delta: float | None
    low: float | None
    high: float | None
    changes: tuple[ClassScores, ...]
    improved: tuple[Shown, ...]
    harmed: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UseFacts:
    """How the model is loaded, asked and served: lines of code."""

    python: str
    serving: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """A model card's content; what is empty or None has no section.

    `image_scores` are the score of each image, nan where it has none. `best`, `median` and `worst` are images with
    sketches, `drawn` pictures of tasks that have none. `costs` are what a model takes, by name. `paper` and `differs`
    are of its architecture.
    """

    report: EvalReport
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    image_scores: tuple[float, ...]
    data: DataFacts
    use: UseFacts
    costs: Mapping[str, str]
    paper: str
    differs: tuple[str, ...]
    training: TrainResult | None = None
    against: Against | None = None
    best: tuple[Shown, ...] = ()
    median: tuple[Shown, ...] = ()
    worst: tuple[Shown, ...] = ()
    drawn: Sequence[Drawn] = ()
