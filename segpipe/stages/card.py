"""The model card of an evaluation: what lies in the home is read, and `report/card/` makes a page of it.

`evaluate.py` writes one beside every report. When a night has its verdict, `gallery.py` makes the challenger's anew,
with what changed against the champion. A card decides nothing: one that cannot be made is a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from segpipe import checkpoint, masks, models, sketches, storage
from segpipe.errors import ConflictError, SegpipeError
from segpipe.metrics.evidence import Floats, image_scores
from segpipe.predictions import shrunk
from segpipe.promotion import Verdict
from segpipe.report import choosing
from segpipe.report.card import Against, CardFacts, Drawn, Shown, render_card
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import small_maps
from segpipe.stages.card_about import costs_of, data_of, fingerprint_of, previewed, training_of, use_of, uses_of
from segpipe.stages.evaluations import CARD, load_pictures, shown_name
from segpipe.tasks import TASKS, TaskOps
from segpipe.types import EvalReport, Sample, Task

_log = logging.getLogger(__name__)
SHOWN, PREVIEWS = 3, 6  # images of a kind


def write(
    report: EvalReport,
    folder: str,
    *,
    data: str,
    verdict: Verdict | None = None,
    champion: tuple[EvalReport, str] | None = None,
) -> None:
    """Makes the card of a report whose maps and pictures lie in `folder`, in place of the one that is there.

    `champion` is the report, with its folder, that the verdict compared it with.
    """
    with making(f"the model card of {report.label}"):
        page = render_card(facts_of(report, folder, data=data, verdict=verdict, champion=champion)).encode()
        storage.replace(storage.join(folder, CARD), page)


@contextmanager
def making(page: str) -> Iterator[None]:
    """Inside, a page is made and written: where that fails, a warning says so, and its evaluation or night stands."""
    try:
        yield
    except ConflictError:
        pass  # somebody made the same just now
    except Exception as error:  # noqa: BLE001 - what it shows is done, and nothing depends on it
        _log.warning("%s could not be made: %s", page, error, exc_info=not isinstance(error, SegpipeError))


def facts_of(
    report: EvalReport,
    folder: str,
    *,
    data: str,
    verdict: Verdict | None = None,
    champion: tuple[EvalReport, str] | None = None,
) -> CardFacts:
    """All that the card of a report says. Raises what reading raises."""
    dataset, bundle = open_dataset(data, version=report.dataset_version), checkpoint.load_bundle(report.checkpoint)
    spec, seen, uses = models.spec(report.arch), fingerprint_of(dataset), uses_of(report, bundle, dataset)
    split = previewed(report, uses, dataset)
    previews = choosing.evenly(range(dataset.rows(split)), PREVIEWS)
    scores_n = image_scores(report)
    shown = _shown(report, folder, dataset, scores_n, champion)
    kinds = {name: shown[name] for name in ("best", "median", "worst") if name in shown}
    return CardFacts(
        report=report,
        classes=dataset.manifest.classes,
        ignore_index=dataset.manifest.ignore_index,
        image_scores=tuple(scores_n.tolist()),
        data=data_of(dataset, bundle, seen, uses, images_of(dataset, report.task, split, previews)),
        use=use_of(report, bundle),
        costs=costs_of(report, bundle, seen),
        paper=spec.paper,
        differs=spec.differs,
        training=training_of(report),
        against=None if verdict is None else _against(verdict, shown),
        drawn=()
        if any(kinds.values())
        else tuple(Drawn(name=shown_name(name), png=png) for name, png in load_pictures(folder)),
        **kinds,
    )


def images_of(dataset: Dataset, task: Task, split: str, rows: Sequence[int]) -> tuple[Shown, ...]:
    """Images of a split with their truth, as small as pages show them."""
    ops = TASKS[task](dataset.manifest.classes, dataset.manifest.ignore_index)
    return tuple(_image_and_truth(ops, sample, dataset) for sample in dataset.read(split, rows, extras=False))


def _image_and_truth(ops: TaskOps, sample: Sample, dataset: Dataset) -> Shown:
    truth, name, num_classes = ops.truth(sample), sample.sample_id, len(dataset.manifest.classes)
    return Shown(
        name=name,
        image_hw3=shrunk(masks.read_rgb(sample.image, file=name)),
        truth=None if truth is None else sketches.sketch(truth, num_classes=num_classes, what=name),
    )


def _shown(
    report: EvalReport,
    folder: str,
    dataset: Dataset,
    scores_n: Floats,
    champion: tuple[EvalReport, str] | None,
) -> dict[str, tuple[Shown, ...]]:
    """The images of a card by what they are shown for: where there are sketches the "best", "median" and "worst",
    beside a champion those that "improved" and were "harmed" most. Each is read once."""
    before_n = None if champion is None else image_scores(champion[0])
    kinds, moved = choosing.kinds(scores_n, SHOWN), dict[str, list[int]]()
    if before_n is not None:
        moved["improved"], moved["harmed"] = choosing.moved(scores_n, before_n, SHOWN)
    said = small_maps.read(folder, _rows(kinds, moved))
    theirs = {} if champion is None else small_maps.read(champion[1], _rows(moved))
    kinds = kinds if said else {}
    rows = _rows(kinds, moved)
    found = {
        row: replace(image, prediction=said.get(row), score=float(scores_n[row]))
        for row, image in zip(rows, images_of(dataset, report.task, report.split, rows), strict=True)
    }
    shown = {name: tuple(found[row] for row in some) for name, some in kinds.items()}
    if before_n is not None:
        shown |= {
            name: tuple(replace(found[row], champion=theirs.get(row), before=float(before_n[row])) for row in some)
            for name, some in moved.items()
        }
    return shown


def _rows(*kinds: Mapping[str, Sequence[int]]) -> list[int]:
    return sorted({row for each in kinds for some in each.values() for row in some})


def _against(verdict: Verdict, shown: Mapping[str, tuple[Shown, ...]]) -> Against:
    found = verdict.comparison
    return Against(
        outcome=verdict.outcome,
        reason=verdict.reason,
        champion=verdict.previous.label if verdict.previous else None,
        delta=verdict.delta,
        low=found.low if found else None,
        high=found.high if found else None,
        changes=verdict.changes,
        improved=shown.get("improved", ()),
        harmed=shown.get("harmed", ()),
    )
