"""The pages of a night that has its verdict: the challenger's card, which now tells what changed against the champion,
and one page on which all its models stand side by side. Called by `retrain.py` and `promote.py`; like a card alone, a
page that cannot be made is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segpipe import storage
from segpipe.config import EvaluateConfig
from segpipe.leaderboard import rank
from segpipe.metrics.evidence import Floats, image_scores
from segpipe.promotion import Verdict
from segpipe.report import choosing
from segpipe.report.card import Shown
from segpipe.report.side_by_side import Compared, NightFacts, image_budget, render_night
from segpipe.shards import Dataset, open_dataset
from segpipe.sketches import Sketch
from segpipe.stages import card, layout, mirror, small_maps
from segpipe.stages.evaluate import location
from segpipe.stages.evaluations import CARD, finished_report, load_pictures, shown_name
from segpipe.tracking import RunRef
from segpipe.types import EvalReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Where a night's pages lie: the challenger's `card` and the page `side_by_side`; None where one was not made."""

    card: str | None
    side_by_side: str | None


def show(
    experiment: str,
    verdict: Verdict,
    evaluations: Mapping[str, EvalReport],
    *,
    config: EvaluateConfig,
    data: str,
    failures: Mapping[str, str],
    parent: RunRef | None = None,
) -> Gallery:
    """Makes the pages of a night, whose reports these are by the folder that each lies in, and puts them where MLflow
    shows them: `parent` is the night's run there."""
    found, is_new = make(experiment, verdict, evaluations, config=config, data=data, failures=failures)
    if is_new:
        _, challenger = _folder_and_report(verdict, evaluations)
        mirror.show_pages(experiment, challenger, card=found.card, side_by_side=found.side_by_side, parent=parent)
    return found


def make(
    experiment: str,
    verdict: Verdict,
    evaluations: Mapping[str, EvalReport],
    *,
    config: EvaluateConfig,
    data: str,
    failures: Mapping[str, str],
) -> tuple[Gallery, bool]:
    """The pages of a night, whose champion was scored with this `config`, and whether they were made now: by the name
    of what decides it, the page of the same night is there."""
    folder, challenger = _folder_and_report(verdict, evaluations)
    name = _name(verdict, challenger.dataset_version, evaluations)
    place, own = storage.join(layout.pages_uri(experiment), name), storage.join(folder, CARD)
    is_new = not storage.exists(place)
    if is_new:
        champion = _champion(verdict, challenger, config=config, to=layout.evaluations_uri(experiment))
        card.write(challenger, folder, data=data, verdict=verdict, champion=champion)
        _write(place, evaluations, verdict, failures, data)
    card_uri, page_uri = (uri if storage.exists(uri) else None for uri in (own, place))
    return Gallery(card=card_uri, side_by_side=page_uri), is_new


def _folder_and_report(verdict: Verdict, evaluations: Mapping[str, EvalReport]) -> tuple[str, EvalReport]:
    """Those of the challenger."""
    weights = verdict.challenger.weights_sha256
    return next((folder, report) for folder, report in evaluations.items() if report.weights_sha256 == weights)


def _name(verdict: Verdict, version: str, folders: Iterable[str]) -> str:
    """By the evaluations and by what was decided of them."""
    return f"{version[:12]}-{layout.key(*sorted(folders), verdict.outcome, verdict.reason)}.html"


def _champion(
    verdict: Verdict, challenger: EvalReport, *, config: EvaluateConfig, to: str
) -> tuple[EvalReport, str] | None:
    """The report that the challenger was compared with, and its folder."""
    previous = verdict.previous
    if previous is None or previous.weights_sha256 == challenger.weights_sha256:
        return None
    version = challenger.dataset_version
    folder = location(previous.weights_sha256, label=previous.label, version=version, config=config, to=to)
    report = finished_report(folder)
    if report is None or report.sample_ids != challenger.sample_ids:
        return None
    return report, folder


def _write(
    place: str,
    evaluations: Mapping[str, EvalReport],
    verdict: Verdict,
    failures: Mapping[str, str],
    data: str,
) -> None:
    order = [row.weights_sha256 for row in rank(list(evaluations.values()))]
    folders = sorted(evaluations, key=lambda folder: order.index(evaluations[folder].weights_sha256))
    ranked = [evaluations[folder] for folder in folders]
    with card.making("the page of this night's models"):
        dataset = open_dataset(data, version=ranked[0].dataset_version)
        images, chosen = _images(ranked, folders, dataset)
        facts = NightFacts(
            reports=tuple(ranked),
            classes=dataset.manifest.classes,
            ignore_index=dataset.manifest.ignore_index,
            outcome=verdict.outcome,
            reason=verdict.reason,
            champion=verdict.champion.label if verdict.champion else None,
            failures=failures,
            images=images,
            chosen=chosen,
        )
        storage.write_once(place, render_night(facts).encode())


def _images(
    reports: Sequence[EvalReport], folders: Sequence[str], dataset: Dataset
) -> tuple[tuple[Compared, ...], str]:
    """The images of the viewer, and a sentence on how they were chosen."""
    budget = image_budget(len(reports))
    scores = [image_scores(report) for report in reports]
    if rows := choosing.telling(scores, budget):
        maps = [small_maps.read(folder, rows) for folder in folders]
        if all(maps):
            shown = card.images_of(dataset, reports[0].task, reports[0].split, rows)
            compared = tuple(_compared(row, image, maps, scores) for row, image in zip(rows, shown, strict=True))
            told = "first those of which the models' scores differ most, then some that are spread evenly"
            return compared, f"{len(compared)} images of the split: {told}."
    drawn = [dict(load_pictures(folder)) for folder in folders]
    common = [name for name in drawn[0] if all(name in each for each in drawn)]
    names = choosing.evenly(common, image_budget(len(reports), drawn=True))
    pictures = tuple(Compared(name=shown_name(name), pictures=tuple(each[name] for each in drawn)) for name in names)
    return pictures, f"{len(pictures)} images, spread evenly over the split."


def _compared(row: int, image: Shown, maps: Sequence[Mapping[int, Sketch]], scores: Sequence[Floats]) -> Compared:
    return Compared(
        name=image.name,
        image_hw3=image.image_hw3,
        truth=image.truth,
        maps=tuple(each[row] for each in maps),
        scores=tuple(float(each[row]) for each in scores),
    )
