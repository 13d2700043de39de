"""The model card of an evaluation: what lies in the home is read, and `report/card/` makes a page of it.

`evaluate.py` writes one beside every report. When a night has its verdict, `gallery.py` makes the challenger's anew,
with what changed against the champion. A card decides nothing: one that cannot be made is a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from segpipe import checkpoint, masks, models, storage
from segpipe.errors import ConflictError, SegpipeError
from segpipe.metrics.evidence import class_intervals, image_scores
from segpipe.predictions import LabelMap, PanopticMap, class_map, shrunk
from segpipe.promotion import Verdict
from segpipe.report import choosing
from segpipe.report.card import Against, CardFacts, Drawn, Shown, render_card
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import small_maps
from segpipe.stages.card_about import costs_of, data_of, previewed, training_of, use_of
from segpipe.stages.evaluations import CARD, load_pictures, shown_name
from segpipe.tasks import TASKS
from segpipe.types import EvalReport, Sample

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
    path = storage.join(folder, CARD)
    try:
        page = render_card(facts_of(report, folder, data=data, verdict=verdict, champion=champion)).encode()
        storage.delete(path)
        storage.write_once(path, page)
    except ConflictError:
        pass  # somebody made the same just now
    except Exception as error:  # noqa: BLE001 - the evaluation is done, and nothing depends on its page
        fault = not isinstance(error, SegpipeError)
        _log.warning("the model card of %s could not be made: %s", report.label, error, exc_info=fault)


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
    spec = models.spec(report.arch)
    scores_n = image_scores(report)
    kinds = choosing.kinds(scores_n, SHOWN)
    chosen = [row for rows in kinds.values() for row in rows]
    found = shown_images(report, folder, dataset, chosen, scores=scores_n)
    shown = {name: tuple(found[chosen.index(row)] for row in rows) for name, rows in kinds.items()}
    has_maps = any(each.prediction_hw is not None for each in found)
    return CardFacts(
        report=report,
        classes=dataset.manifest.classes,
        ignore_index=dataset.manifest.ignore_index,
        intervals=tuple(class_intervals(report)),
        image_scores=() if scores_n is None else tuple(scores_n.tolist()),
        data=data_of(report, dataset, bundle, _previews(report, dataset)),
        use=use_of(report, bundle),
        costs=costs_of(report, bundle, dataset),
        paper=spec.paper,
        differs=spec.differs,
        training=training_of(report),
        against=None if verdict is None else _against(report, folder, dataset, verdict, champion),
        drawn=() if has_maps else tuple(Drawn(name=shown_name(name), png=png) for name, png in load_pictures(folder)),
        **(shown if has_maps else {}),
    )


def shown_images(
    report: EvalReport,
    folder: str,
    dataset: Dataset,
    rows: Sequence[int],
    *,
    scores: Any = None,
    champion: tuple[EvalReport, str] | None = None,
) -> tuple[Shown, ...]:
    """Images of the evaluated split with their truth and what the model said, and the champion where there is one."""
    found, theirs = small_maps.read(folder, rows), {} if champion is None else small_maps.read(champion[1], rows)
    before = None if champion is None else image_scores(champion[0])
    shown = []
    for row, sample in zip(rows, dataset.read(report.split, rows, extras=False), strict=True):
        image, truth = _image_and_truth(report, dataset, sample)
        shown.append(
            Shown(
                name=sample.sample_id,
                image_hw3=image,
                truth_hw=truth,
                prediction_hw=found.get(row),
                champion_hw=theirs.get(row),
                score=None if scores is None else float(scores[row]),
                before=None if before is None else float(before[row]),
            )
        )
    return tuple(shown)


def _moved(
    report: EvalReport, folder: str, dataset: Dataset, champion: tuple[EvalReport, str]
) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
    """The images whose own score rose most above the champion's, and those whose fell most."""
    ours, theirs = image_scores(report), image_scores(champion[0])
    if ours is None or theirs is None:
        return (), ()
    up, down = choosing.moved(ours, theirs, SHOWN)
    shown = shown_images(report, folder, dataset, [*up, *down], scores=ours, champion=champion)
    return shown[: len(up)], shown[len(up) :]


def _previews(report: EvalReport, dataset: Dataset) -> tuple[Shown, ...]:
    """Images spread evenly over the split of the training, with their truth."""
    split = previewed(report, dataset)
    known = dataset.rows(split)
    rows = [at * known // PREVIEWS for at in range(PREVIEWS)] if known > PREVIEWS else list(range(known))
    return tuple(
        Shown(name=sample.sample_id, image_hw3=image, truth_hw=truth)
        for sample in dataset.read(split, rows, extras=False)
        for image, truth in [_image_and_truth(report, dataset, sample)]
    )


def _image_and_truth(report: EvalReport, dataset: Dataset, sample: Sample) -> tuple[Any, Any]:
    """As small as pages show them: a class for every pixel, or no truth where a task has objects alone."""
    ops = TASKS[report.task](dataset.manifest.classes, dataset.manifest.ignore_index)
    truth = ops.truth(sample)
    image = shrunk(masks.read_rgb(sample.image, file=sample.sample_id))
    if isinstance(truth, PanopticMap):
        return image, shrunk(class_map(truth, nothing=dataset.manifest.ignore_index))
    return image, shrunk(truth.ids_HW) if isinstance(truth, LabelMap) else None


def _against(
    report: EvalReport, folder: str, dataset: Dataset, verdict: Verdict, champion: tuple[EvalReport, str] | None
) -> Against:
    found = verdict.comparison
    improved, harmed = ((), ()) if champion is None else _moved(report, folder, dataset, champion)
    return Against(
        outcome=verdict.outcome,
        reason=verdict.reason,
        champion=verdict.previous.label if verdict.previous else None,
        delta=verdict.delta,
        low=found.low if found else None,
        high=found.high if found else None,
        changes=verdict.changes,
        improved=improved,
        harmed=harmed,
    )
