"""What a flow run shows on Prefect's page: the dataset, and the night or the verdict in one look.

One page a night, not one for each thing: an artifact is three clicks away, and a person who comes in the morning wants
to know at the first who is champion, why, and what failed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

from prefect.artifacts import create_markdown_artifact

from segpipe.stages.drift import Drift
from segpipe.stages.halving.report import summed_up
from segpipe.stages.predict_dataset import PredictedDataset
from segpipe.stages.results import BudgetReport, IngestResult, RetrainResult, Verdict
from segpipe.stages.tables import board_table, class_table, rung_table, split_table

MOST_LISTED = 20  # of bad images: the dataset's quarantine file has all of them


def show_dataset(result: IngestResult) -> None:
    """The dataset version: samples a split, what was refused, what was noticed."""
    lines = [
        f"**{result.name}** `{result.version[:12]}` ({result.status.replace('_', ' ')})",
        "",
        *split_table(result.splits),
        "",
        f"{len(result.quarantined)} samples in quarantine.",
        *(f"- {text}" for text in result.warnings),
    ]
    create_markdown_artifact("\n".join(lines), key=_key("dataset", result.name), description="Dataset version")


def show_predictions(result: PredictedDataset) -> None:
    """The version of predictions: samples a split, by which model, what could not be used."""
    lines = [
        f"**{result.name}** `{result.version[:12]}` ({result.status.replace('_', ' ')})",
        "",
        f"by `{result.model}`, weights `{result.weights_sha256[:12]}`",
        "",
        *split_table(result.splits),
        "",
        f"{result.kept} of {result.parts} parts were there.",
        *([f"{result.images_per_second:.1f} images/s."] if result.images_per_second else []),
        f"{len(result.quarantined)} images in quarantine.",
        *(f"- {entry.file}: {entry.reason}" for entry in result.quarantined[:MOST_LISTED]),
        "",
        *_drift(result.drift),
    ]
    create_markdown_artifact("\n".join(lines), key=_key("predictions", result.name), description="Predictions")


def _drift(found: Drift) -> Iterator[str]:
    """Whether the images are like those of the training: the statistics that moved, and which images to label."""
    if not found.has_drifted:
        yield from (found.sentence, "", *(f"- {note}" for note in found.notes))
        return
    yield from ("## Drift: images or answers are not like those of the training", "")
    yield from (f"- {shift.sentence}" for shift in found.shifts if shift.has_moved)
    yield from ("", "Medians of the images, in brackets where 80 % of them lie; a distance of 1 is the furthest.", "")
    yield "A retrain finds nothing new until some of these images are labelled. Those least like the training:"
    yield from ("", *(f"- `{name}`" for name in found.to_label), "", *(f"- {note}" for note in found.notes))


def show_verdict(experiment: str, verdict: Verdict) -> None:
    """Who is champion, and why."""
    story = [*_verdict(verdict), *class_table(verdict, padding="")]
    create_markdown_artifact("\n".join(story), key=_key("verdict", experiment), description=_headline(verdict))


def show_night(result: RetrainResult, picture: bytes | None) -> None:
    """A night on one page: the verdict, what failed, the leaderboard, the classes, the data, a picture of the best
    model's predictions, and where there is more. The headline stands in the list of artifacts as well."""
    verdict, dataset = result.verdict, result.dataset
    images = ", ".join(f"{samples} {split}" for split, samples in dataset.splits.items())
    story = [
        *_verdict(verdict),
        *_failed(result.failures),
        "",
        *board_table(result.board, padding=""),
        *_rungs(result.budget),
        *(["", "### By class"] if verdict.changes else []),
        *class_table(verdict, padding=""),
        *([] if picture is None else ["", "### Best model of this night", "", _image(picture)]),
        "",
        "### Look closer",
        "",
        *([f"- [curves, pictures and parameters in MLflow]({result.mlflow_url})"] if result.mlflow_url else []),
        *([f"- all models side by side: `{result.side_by_side}`"] if result.side_by_side else []),
        *([f"- model card of the challenger: `{result.card}`"] if result.card else []),
        f"- dataset `{dataset.name}`, version `{dataset.version[:12]}`: {images} images",
        f"- {result.seconds / 60:.0f} minutes; on this home: `segpipe board {result.experiment}`, "
        f"`segpipe history {result.experiment}`",
    ]
    create_markdown_artifact("\n".join(story), key=_key("night", result.experiment), description=_headline(verdict))


def show_failed_night(experiment: str, failures: Mapping[str, str], budget: BudgetReport | None = None) -> None:
    """A night that left no model: what became of each architecture, also of those that a `budget` dropped."""
    among = " of those that the budget left" if budget else ""
    told = f"failed: no architecture{among} could be trained and evaluated"
    story = [f"## {told}", *_failed(failures), *_rungs(budget)]
    create_markdown_artifact("\n".join(story), key=_key("night", experiment), description=told)


def _headline(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.reason}"


def _verdict(verdict: Verdict) -> list[str]:
    champion = verdict.champion.label if verdict.champion else "nobody yet"
    return [f"## {verdict.outcome}", "", verdict.reason, "", f"Champion: **{champion}**"]


def _failed(failures: Mapping[str, str]) -> list[str]:
    return ["", *(f"- **{label}** failed: {message}" for label, message in failures.items())] if failures else []


def _rungs(budget: BudgetReport | None) -> list[str]:
    if budget is None:
        return []
    return ["", "### The budget", "", summed_up(budget), "", *rung_table(budget)]


def _image(picture: bytes) -> str:
    return f"![predictions](data:image/png;base64,{base64.b64encode(picture).decode()})"


def _key(kind: str, name: str) -> str:
    """Under which Prefect keeps the history of an artifact: it takes letters, digits and dashes, names have `_` too."""
    return f"{kind}-{name}".replace("_", "-")
