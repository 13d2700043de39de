"""How MLflow shows a night: its run, the run of each architecture below it, the verdict and the board.

Below `mirror.py`. Everything here raises when MLflow is down or refuses, may be done twice, and reads nothing but what
it is given: a night of yesterday is shown as one of today.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segpipe import checkpoint, models, promotion, reports, tracking
from segpipe.config import Recipe, RunConfig
from segpipe.leaderboard import BoardRow
from segpipe.stages import costs, dataset_inputs, layout
from segpipe.stages.registration import answer_form, local_bundle, model_tags
from segpipe.stages.tables import board_table
from segpipe.types import EvalReport, TrainResult


def open_night(store: str, recipe: Recipe, *, key: str, data: str, version: str, code: str) -> tracking.RunRef:
    """The run under which a night's architectures appear. `key` names it by recipe, dataset version and code."""
    labels = ", ".join(run.label for run in recipe.run_configs())
    return tracking.open_parent(
        store,
        experiment=recipe.name,
        key=key,
        name=night_name(version),
        description=f"{recipe.description}\n\nArchitectures: {labels}. Dataset `{data}`.",
        tags={"dataset_version": version, "code_version": code, "task": recipe.task},
        experiment_description=recipe.description,
    )


def night_name(version: str) -> str:
    """What the run of a night on a dataset version is called."""
    return f"retrain {version[:8]}"


def show_question(night: tracking.RunRef, recipe: Recipe, *, data: str, version: str) -> None:
    """What the night asks: the recipe, and the dataset version with the splits that it works on."""
    tracking.record_recipe(night, recipe.to_yaml())
    uses = _uses(recipe.run_configs(), evaluated=recipe.evaluate.split)
    dataset_inputs.record(night, uses, data=data, version=version)


def open_architecture(night: tracking.RunRef, run: RunConfig, *, key: str, version: str, code: str) -> tracking.RunRef:
    """The run of one architecture below its night's, with its parameters. `run` is a resolved one, here and below."""
    return tracking.open_child(
        night,
        key=key,
        name=run.label,
        params=parameters(run),
        tags={"arch": run.arch, "dataset_version": version, "code_version": code},
        description=f"`{run.arch}` " + ", ".join(f"{name} {value}" for name, value in run.options.items()),
    )


def show_architecture(
    recipe: Recipe,
    run: RunConfig,
    result: TrainResult,
    report: EvalReport,
    pictures: Sequence[tuple[str, bytes]],
    *,
    night: tracking.RunRef,
    data: str,
    card: bytes | None,
) -> None:
    """Everything about one trained and evaluated architecture; what live logging missed is filled in."""
    version = result.dataset_version
    key = layout.run_key(result.config_digest, version, result.code_version)
    child = open_architecture(night, run, key=key, version=version, code=result.code_version)
    tracking.mirror_history(child, result.history)
    costs.show(child, run, report, data=data)
    dataset_inputs.record(child, _uses([run], evaluated=report.split), data=data, version=version)
    tracking.record_evaluation(
        child,
        report=report,
        report_json=json.dumps(reports.to_plain(report), sort_keys=True).encode(),
        recipe_text=recipe.to_yaml(),
        pictures=[(name.removesuffix(".png"), picture) for name, picture in pictures],
        card=card,
    )
    if not tracking.has_model(child, result.weights_sha256):
        bundle = checkpoint.load_bundle(result.model_uri)
        with local_bundle(result.model_uri) as folder:
            tracking.log_model(
                child,
                bundle_uri=str(folder),
                tags=model_tags(bundle, run.label),
                form=answer_form(bundle),
                requires=models.requirements(bundle.arch, bundle.options),
            )
    tracking.finish(child)


def show_board(
    night: tracking.RunRef, verdict: promotion.Verdict, board: Sequence[BoardRow], versions: Mapping[str, int]
) -> None:
    """Ends a night's run with the verdict and the board. `versions` are the registered ones, by their alias."""
    best = board[0]
    tracking.describe(
        night,
        story=_night_note(night, verdict, board, [_linked(verdict.name, *entry) for entry in versions.items()]),
        metrics={tracking.evaluation_metric(best.split, best.primary): best.value},
        tags={"outcome": verdict.outcome, "best": best.label},
    )
    tracking.finish(night)


def parameters(run: RunConfig) -> dict[str, str | float | int]:
    """The run's config as flat MLflow parameters: `train.learning_rate`, `options.backbone`, ..."""

    def flat(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str | float | int]]:
        for name, value in node.items():
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(value, Mapping):
                yield from flat(path, value)
            elif value is not None:
                yield path, value if isinstance(value, str | float | int) else json.dumps(value)

    # Other trainings have runs that tell what they are; an ensemble has none of its own.
    others = {"start_from": run.start_from, "trained_as": run.trained_as}
    told = run.model_dump(mode="json", exclude={"members", "common", *others} | ({"train"} if run.members else set()))
    return dict(flat("", {**told, **{key: other.label for key, other in others.items() if other is not None}}))


def _uses(runs: Sequence[RunConfig], *, evaluated: str) -> Iterator[tuple[str, str]]:
    """The splits that the runs train, validate and are scored on."""
    for run in runs:
        yield run.train.train_split, "training"
        yield run.train.validation_split, "validation"
    yield evaluated, "evaluation"


def _linked(name: str, alias: str, version: int) -> str:
    return f"{alias}: [version {version}]({tracking.version_link(name, version)})"


def _night_note(
    night: tracking.RunRef, verdict: promotion.Verdict, board: Sequence[BoardRow], registered: Sequence[str]
) -> str:
    """The night as markdown: the verdict, then the board."""
    best = board[0]
    page = f"[`{tracking.SIDE_BY_SIDE}`]({tracking.artifact_link(night, tracking.SIDE_BY_SIDE)})"
    lines = [
        f"**{verdict.outcome}**: {verdict.reason}",
        "",
        f"Scored on the split `{best.split}`, protocol `{best.protocol}`. Registered as {'; '.join(registered)}.",
        "",
        *board_table(board),
        "",
        # Made after the verdict, of which this tells; where it fails, a warning says so.
        f"Any two of these models on the same image, and all scores side by side, if that page could be made: {page}.",
    ]
    return "\n".join(lines)
