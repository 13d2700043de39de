"""What MLflow is shown of our files: runs, metrics, pictures, registered versions, aliases.

MLflow is a mirror and never memory. Everything here is made from files that lie in the home already, is keyed so that
doing it twice changes nothing, and gives way: when MLflow does not answer, the night goes on, the fault is logged, and
`reconcile` at the start of the next night catches up.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from segpipe import checkpoint, promotion, reports, storage, tracking
from segpipe.config import Recipe, RunConfig
from segpipe.errors import InputError, UnreachableError
from segpipe.leaderboard import BoardRow
from segpipe.shards import open_dataset
from segpipe.stages import layout
from segpipe.stages.identity import resolve
from segpipe.types import EvalReport, TrainResult
from segpipe.version import code_version

_log = logging.getLogger(__name__)
CHAMPION, CHALLENGER = "champion", "challenger"


@contextmanager
def giving_way(what: str) -> Iterator[None]:
    """Logs that MLflow does not answer, and goes on: what is shown there can be shown later."""
    try:
        yield
    except UnreachableError as error:
        _log.warning("%s is not in MLflow yet and will be caught up by the next run: %s", what, error)


def uri() -> str:
    """Where MLflow is: `$MLFLOW_TRACKING_URI`, or the embedded SQLite file of the home."""
    return tracking.default_uri(layout.local_home())


def open_parent(recipe: Recipe, *, data: str, version: str) -> tracking.RunRef | None:
    """The run under which a retrain's architectures appear: one a recipe, dataset version and code."""
    runs = [resolve(run) for run in recipe.run_configs()]
    labels = ", ".join(run.label for run in runs)
    with giving_way(f"the run of {recipe.name}"):
        tracking.reachable(uri())
        return tracking.open_parent(
            uri(),
            experiment=recipe.name,
            key=layout.key("retrain", version, code_version(), *(run.digest for run in runs)),
            name=f"retrain {version[:8]}",
            description=f"{recipe.description}\n\nArchitectures: {labels}. Dataset `{data}`.",
            tags={"dataset_version": version, "code_version": code_version(), "task": recipe.task},
            experiment_description=recipe.description,
        )
    return None


def open_child(parent: tracking.RunRef, run: RunConfig, *, version: str) -> tracking.RunRef | None:
    """The run of one architecture below `parent`, with its parameters. `run` is a resolved one, here and below."""
    with giving_way(f"the run of {run.label}"):
        return tracking.open_child(
            parent,
            key=layout.run_key(run.digest, version, code_version()),
            name=run.label,
            params=_params(run),
            tags={"arch": run.arch, "dataset_version": version, "code_version": code_version()},
            description=f"`{run.arch}` {dict(run.options)}",
        )
    return None


def show_run(
    recipe: Recipe,
    run: RunConfig,
    result: TrainResult,
    report: EvalReport,
    pictures: list[tuple[str, bytes]],
    *,
    parent: tracking.RunRef | None,
    data: str,
) -> None:
    """Everything about one trained and evaluated architecture; what live logging missed is filled in."""
    child = open_child(parent, run, version=result.dataset_version) if parent else None
    if child is None:
        return
    with giving_way(f"the evaluation of {run.label}"):
        tracking.mirror_history(child, result.history)
        manifest = open_dataset(data, version=result.dataset_version).manifest
        for split, context in (
            (run.train.train_split, "training"),
            (run.train.validation_split, "validation"),
            (report.split, "evaluation"),
        ):
            tracking.record_dataset(
                child,
                name=manifest.dataset,
                version=result.dataset_version,
                uri=data,
                split=split,
                context=context,
                profile={"samples": manifest.splits[split].samples, "classes": len(manifest.classes)},
            )
        tracking.record_evaluation(
            child,
            report=report,
            report_json=json.dumps(reports.to_plain(report), sort_keys=True).encode(),
            recipe_text=recipe.to_yaml(),
            pictures=[(name.removesuffix(".png"), data) for name, data in pictures],
        )
        tracking.finish(child, failed=False)


def show_failure(run: RunConfig, *, parent: tracking.RunRef | None, version: str) -> None:
    """Marks an architecture's run as failed."""
    child = open_child(parent, run, version=version) if parent else None
    if child is not None:
        with giving_way(f"the failure of {run.label}"):
            tracking.finish(child, failed=True)


def close_failed(experiment: str, *, parent: tracking.RunRef | None) -> None:
    """Marks a night that ended without a verdict as failed."""
    if parent is not None:
        with giving_way(f"the failed night of {experiment}"):
            tracking.finish(parent, failed=True)


def close_finished(experiment: str, *, parent: tracking.RunRef | None) -> None:
    """Ends the run of work that nobody judges, such as the training of a single architecture."""
    if parent is not None:
        with giving_way(f"the end of the run of {experiment}"):
            tracking.finish(parent, failed=False)


def show_verdict(
    experiment: str, verdict: promotion.Verdict, board: Sequence[BoardRow], *, parent: tracking.RunRef | None
) -> None:
    """Registers challenger and champion, and points the aliases at them. The ledger has decided already."""
    with giving_way(f"the verdict on {verdict.challenger.label}"):
        tracking.reachable(uri())
        challenger = _register(experiment, verdict.challenger, description=verdict.reason)
        tracking.set_alias(uri(), experiment, CHALLENGER, challenger)
        if verdict.champion is not None:
            champion = _register(experiment, verdict.champion, description=verdict.reason)
            tracking.set_alias(uri(), experiment, CHAMPION, champion)
        if parent is not None:
            tracking.describe(
                parent,
                section=_night_note(verdict, board),
                metrics={f"test/{board[0].primary}": board[0].value},
                tags={"outcome": verdict.outcome, "best": board[0].label},
            )
            tracking.finish(parent, failed=False)


def _night_note(verdict: promotion.Verdict, board: Sequence[BoardRow]) -> str:
    """The night as markdown: the verdict, then the board."""
    lines = [
        "## The night",
        "",
        f"**{verdict.outcome}**: {verdict.reason}",
        "",
        f"| rank | model | {board[0].primary} | 95 % interval | parameters |",
        "|---:|---|---:|---|---:|",
    ]
    for row in board:
        interval = f"{row.low:.4f} to {row.high:.4f}"
        lines.append(f"| {row.rank} | {row.label} | {row.value:.4f} | {interval} | {row.parameters / 1e6:.1f} M |")
    return "\n".join(lines)


def reconcile(experiment: str) -> None:
    """Makes the registry's `champion` alias say what the ledger says, whatever happened on earlier nights."""
    standing = promotion.champion(layout.ledger_uri(experiment))
    if standing is None or standing.champion is None:
        return
    with giving_way(f"the champion of {experiment}"):
        tracking.reachable(uri())
        version = _register(experiment, standing.champion, description=standing.reason)
        if tracking.alias_version(uri(), experiment, CHAMPION) != version:
            tracking.set_alias(uri(), experiment, CHAMPION, version)


def registry_page(experiment: str) -> str | None:
    """The address of the registered model's page, where MLflow is a server."""
    with giving_way("the page of the registered model"):
        version = tracking.alias_version(uri(), experiment, CHAMPION)
        return None if version is None else tracking.version_url(uri(), experiment, version)
    return None


def _register(experiment: str, contender: promotion.Contender, *, description: str) -> int:
    """The registered version of a contender's weights, made from its bundle when there is none yet."""
    bundle = checkpoint.load_bundle(contender.checkpoint)
    run = tracking.open_parent(
        uri(),
        experiment=experiment,
        key=layout.run_key(bundle.config_digest, bundle.dataset_version, bundle.code_version),
        name=contender.label,
        description=f"`{contender.arch}`, registered from {contender.checkpoint}",
        tags={"arch": contender.arch, "dataset_version": bundle.dataset_version},
    )
    tags = {
        "arch": contender.arch,
        "label": contender.label,
        "dataset": bundle.dataset,
        "dataset_version": bundle.dataset_version,
        "code_version": bundle.code_version,
        "config_digest": bundle.config_digest,
    }
    with _local_bundle(contender.checkpoint) as folder:
        return tracking.register(run, name=experiment, bundle_uri=str(folder), tags=tags, description=description)


@contextmanager
def _local_bundle(model_uri: str) -> Iterator[Path]:
    """The bundle as a folder on this machine: itself, or a copy of a remote one."""
    here = storage.local_path(model_uri)
    with nullcontext(here) if here else storage.scratch() as folder:
        if here is None:
            for name in (checkpoint.WEIGHTS, checkpoint.BUNDLE):
                (folder / name).write_bytes(storage.read_bytes(storage.join(model_uri, name)))
        if folder is None:
            raise InputError(f"{model_uri}: is neither a local folder nor readable from its store")
        yield folder


def _params(run: RunConfig) -> dict[str, str | float | int]:
    """The run's config as flat MLflow parameters: `train.learning_rate`, `options.backbone`, ..."""

    def flat(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str | float | int]]:
        for name, value in node.items():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Mapping):
                yield from flat(path, value)
            elif value is not None:
                yield path, value if isinstance(value, str | float | int) else json.dumps(value)

    return dict(flat("", run.model_dump(mode="json")))
