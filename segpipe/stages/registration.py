"""The model registry of MLflow as the ledger wants it: versions, who is called `champion` and `challenger`, and the
pages that tell a person who is champion, why, and how to use it. Below `mirror.py`, which sees to it that it gives way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segpipe import checkpoint, models, storage, tracking
from segpipe.answers import form_of
from segpipe.errors import CorruptError
from segpipe.promotion import Contender, Record, Verdict
from segpipe.stages import dataset_inputs, layout
from segpipe.stages.tables import class_table
from segpipe.tasks import TASKS
from segpipe.types import AnswerForm, ModelBundle

CHAMPION, CHALLENGER = "champion", "challenger"


def show_challenger(store: str, experiment: str, verdict: Verdict) -> int:
    """The challenger's version, described by the verdict and with its alias. A champion keeps its own description."""
    version = _register(store, experiment, verdict.challenger, description=verdict.reason)
    is_champion = verdict.champion is not None and verdict.champion.weights_sha256 == verdict.challenger.weights_sha256
    if not is_champion:
        tracking.describe_version(store, experiment, version, "\n".join([verdict.reason, *class_table(verdict)]))
        tracking.tag_version(store, experiment, version, verdict_tags(verdict.outcome, verdict))
    tracking.set_alias(store, experiment, CHALLENGER, version)
    return version


def show_champion(store: str, experiment: str, standing: Record) -> int | None:
    """The version of the champion of a ledger's record, with its alias, its description, and the model's own page.

    The alias is set last: where it is right already, a crash has left nothing undone. It moves to a version only whose
    weights are to the last byte those of the ledger. None where nobody stands. Raises CorruptError for other weights.
    """
    if standing.champion is None:
        return None
    version = _register(store, experiment, standing.champion, description=standing.reason, standing=standing)
    before = tracking.alias_version(store, experiment, CHAMPION)
    if before != version:
        _require_weights(store, experiment, version, standing.champion)
    since = f"{standing.at[:16].replace('T', ' ')} UTC"
    story = [f"Champion since {since}: {standing.reason}.", *class_table(standing)]
    tracking.describe_version(store, experiment, version, "\n".join(story))
    tracking.tag_version(store, experiment, version, verdict_tags(standing.kind, standing))
    if before is not None and before != version:
        left = f"Champion until {since}, when `{standing.champion.label}` took over: {standing.reason}."
        tracking.describe_version(store, experiment, before, left)
    tracking.describe_model(
        store, experiment, model_page(experiment, standing, version, since), alias=CHAMPION, version=version
    )
    tracking.set_alias(store, experiment, CHAMPION, version)
    return version


def verdict_tags(kind: str, decision: Verdict | Record) -> dict[str, str]:
    """What a version's tags say of the decision on it: its kind, the ledger's record, how sure the difference is."""
    tags = {"verdict": kind, "ledger_record": str(decision.number)}
    if decision.comparison is not None:
        found = decision.comparison
        tags["verdict_delta"] = f"{found.delta:+.4f}"
        tags["verdict_interval"] = f"{found.low:+.4f} to {found.high:+.4f} (95 %)"
    return tags


def fetch(store: str, experiment: str, contender: Contender, folder: Path) -> Path:
    """The bundle of a contender as the registry holds it, below the local `folder`; registered now, if it was not."""
    version = _register(store, experiment, contender, description="Registered to be judged.")
    return tracking.fetch_bundle(store, experiment, version, folder)


def is_shown(store: str, experiment: str, standing: Record) -> bool:
    """Whether the alias is on the version of the champion of a ledger's record."""
    if standing.champion is None:
        return True
    version = tracking.registered_version(store, experiment, standing.champion.weights_sha256)
    return version is not None and version == tracking.alias_version(store, experiment, CHAMPION)


def model_page(experiment: str, standing: Record, version: int, since: str) -> str:
    """The registered model's description in markdown: what it is, who is champion and why."""
    champion, scored, score = standing.champion, standing.evaluation, standing.challenger_score
    lines = [
        f"The models of `{experiment}`. The best of each night is registered, and a gate decides whether "
        "it takes over from the champion."
    ]
    if champion is not None:
        lines += [
            "",
            f"## Champion: {champion.label}, version {version}",
            "",
            f"`{champion.arch}`, since {since}. {standing.reason}.",
        ]
    if score.value is not None:
        interval = "" if None in (score.low, score.high) else f" (95 % interval {score.low:.4f} to {score.high:.4f})"
        lines += [
            "",
            f"{scored.primary} **{score.value:.4f}**{interval} on {score.num_samples} images of `{scored.dataset}` / "
            f"`{scored.split}`, dataset version `{scored.dataset_version[:12]}`.",
        ]
    lines += [
        "",
        f"Record {standing.number} of the promotion ledger, by {standing.who}. The ledger decides, and the alias "
        f"`{CHAMPION}` follows it every night; `{CHALLENGER}` is the best of the last night. The run that a version "
        "comes from holds its curves, its recipe, its score of every class and pictures of its predictions.",
    ]
    return "\n".join(lines)


def answer_form(bundle: ModelBundle) -> AnswerForm:
    """How a model answers when MLflow has loaded it."""
    task = TASKS[bundle.task]
    sampled = bool(bundle.inference.samples)
    return form_of(task.prediction, len(bundle.classes), told=task.told(bundle), sampled=sampled)


def model_tags(bundle: ModelBundle, label: str) -> dict[str, str]:
    """What a logged model and a registered version are tagged with."""
    return {
        "arch": bundle.arch,
        "label": label,
        "task": str(bundle.task),
        "dataset": bundle.dataset,
        "dataset_version": bundle.dataset_version,
        "code_version": bundle.code_version,
        "config_digest": bundle.config_digest,
        **({"members": ", ".join(sorted(bundle.members))} if bundle.members else {}),
    }


@contextmanager
def local_bundle(model_uri: str) -> Iterator[Path]:
    """The bundle as a folder on this machine: itself, or a copy of a remote one."""
    here = storage.local_path(model_uri)
    if here is not None:
        yield here
        return
    with storage.scratch() as folder:
        for name in (checkpoint.WEIGHTS, checkpoint.BUNDLE):
            storage.write_once(str(folder / name), storage.read_bytes(storage.join(model_uri, name)))
        yield folder


def _require_weights(store: str, experiment: str, version: int, champion: Contender) -> None:
    with storage.scratch() as folder:
        bundle = tracking.fetch_bundle(store, experiment, version, folder)
        found = storage.sha256_file(str(bundle / checkpoint.WEIGHTS))
    if found != champion.weights_sha256:
        raise CorruptError(
            f"version {version} of {experiment} in MLflow holds weights of SHA-256 {found[:12]}, expected "
            f"{champion.weights_sha256[:12]} as the ledger has them: nobody shall serve them, and the alias stays "
            "where it is; delete that version there, and the next night registers it anew"
        )


def _register(
    store: str, experiment: str, contender: Contender, *, description: str, standing: Record | None = None
) -> int:
    """The registered version of a contender's weights, made from its bundle when there is none yet: a champion that is
    registered needs no bundle any more. `standing` is the ledger's record of a champion."""
    known = tracking.registered_version(store, experiment, contender.weights_sha256)
    if known is not None:
        return known
    bundle = checkpoint.load_bundle(contender.checkpoint)
    run = tracking.open_parent(
        store,
        experiment=experiment,
        key=layout.run_key(bundle.config_digest, bundle.dataset_version, bundle.code_version),
        name=contender.label,
        description=f"`{contender.arch}`, registered from {contender.checkpoint}",
        tags={"arch": contender.arch, "dataset_version": bundle.dataset_version},
    )
    dataset_inputs.record_of_model(run, contender, standing)
    with local_bundle(contender.checkpoint) as folder:
        version = tracking.register(
            run,
            name=experiment,
            bundle_uri=str(folder),
            tags=model_tags(bundle, contender.label),
            description=description,
            form=answer_form(bundle),
            requires=models.requirements(bundle.arch, bundle.options),
        )
    tracking.finish(run)
    return version
