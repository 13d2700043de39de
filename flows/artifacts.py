"""What a flow run shows on Prefect's page: the leaderboard as a table, pictures, and where MLflow is."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from segpipe.stages.halving.report import rung_rows, summed_up
from segpipe.stages.predict_dataset import PredictedDataset
from segpipe.stages.registration import class_table
from segpipe.stages.results import IngestResult, RetrainResult, Verdict

MOST_LISTED = 20  # of bad images: the dataset's quarantine file has all of them


def show_dataset(result: IngestResult) -> None:
    """The dataset version: samples a split, what was refused, what was noticed."""
    lines = [
        f"**{result.name}** `{result.version[:12]}` ({result.status.replace('_', ' ')})",
        "",
        "| split | samples |",
    ]
    lines += ["|---|---:|", *(f"| {split} | {samples} |" for split, samples in result.splits.items())]
    lines += ["", f"{len(result.quarantined)} samples in quarantine.", *(f"- {text}" for text in result.warnings)]
    create_markdown_artifact("\n".join(lines), key=_key("dataset", result.name), description="Dataset version")


def show_predictions(result: PredictedDataset) -> None:
    """The version of predictions: samples a split, by which model, what could not be used."""
    lines = [
        f"**{result.name}** `{result.version[:12]}` ({result.status.replace('_', ' ')})",
        "",
        f"by `{result.model}`, weights `{result.weights_sha256[:12]}`",
        "",
        "| split | samples |",
        "|---|---:|",
        *(f"| {split} | {samples} |" for split, samples in result.splits.items()),
        "",
        f"{result.kept} of {result.parts} parts were there.",
        *([f"{result.images_per_second:.1f} images/s."] if result.images_per_second else []),
        f"{len(result.quarantined)} images in quarantine.",
        *(f"- {entry.file}: {entry.reason}" for entry in result.quarantined[:MOST_LISTED]),
    ]
    create_markdown_artifact("\n".join(lines), key=_key("predictions", result.name), description="Predictions")


def show_verdict(experiment: str, verdict: Verdict, failures: Mapping[str, str]) -> None:
    """Who is champion, and why; what was not there to be judged."""
    champion = verdict.champion.label if verdict.champion else "nobody yet"
    failed = [f"- **{label}** failed: {message}" for label, message in failures.items()]
    story = [
        f"## {verdict.outcome}",
        "",
        verdict.reason,
        "",
        f"Champion: **{champion}**",
        "",
        *failed,
        *class_table(verdict),
    ]
    create_markdown_artifact("\n".join(story), key=_key("verdict", experiment), description="Who is champion, and why")


def show_retrain(result: RetrainResult, picture: bytes | None) -> None:
    """The leaderboard, the verdict, the rungs of a night within a budget, a picture of the best model, the way to
    MLflow."""
    rows = [
        {
            "rank": row.rank,
            "model": row.label,
            row.primary: f"{row.value:.4f}",
            "95 % interval": f"{row.low:.4f} to {row.high:.4f}",
            "parameters": f"{row.parameters / 1e6:.1f} M",
        }
        for row in result.board
    ]
    create_table_artifact(rows, key=_key("leaderboard", result.experiment), description=result.verdict.reason)
    show_verdict(result.experiment, result.verdict, result.failures)
    if result.budget is not None:
        create_table_artifact(
            rung_rows(result.budget), key=_key("rungs", result.experiment), description=summed_up(result.budget)
        )
    if picture is not None:
        data = base64.b64encode(picture).decode()
        create_image_artifact(
            image_url=f"data:image/png;base64,{data}",
            key=_key("predictions", result.experiment),
            description="Predictions of the best model of this run",
        )
    if result.mlflow_url is not None:
        create_link_artifact(
            result.mlflow_url,
            link_text="runs in MLflow",
            key=_key("mlflow", result.experiment),
            description="Loss curves, pictures and parameters of every architecture",
        )


def _key(kind: str, name: str) -> str:
    """Under which Prefect keeps the history of an artifact: it takes letters, digits and dashes, names have `_` too."""
    return f"{kind}-{name}".replace("_", "-")
