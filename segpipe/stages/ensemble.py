"""An ensemble instead of a training: its members' weights as one model bundle. Called by `train.py`.

Everything behind it (evaluation, board, gate, registry, serving) sees a bundle like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from segpipe import checkpoint, models, storage
from segpipe.config import EvaluateConfig
from segpipe.models.parts.ensemble import Ensemble
from segpipe.stages.evaluate import evaluate
from segpipe.train.session import TrainJob
from segpipe.types import TrainResult


def combine(
    job: TrainJob, results: Sequence[TrainResult], *, cpus: float, runtime: Literal["ray", "local"]
) -> TrainResult:
    """Writes the bundle of an ensemble into its run's folder, scored on the validation split as its members were: the
    run is a training (`RunConfig.training`), so that what comes after one is left out for all of them.

    Idempotent, as a killed attempt is made again: the same members give the same bytes.
    """
    run = job.run
    members, bundles = zip(*(checkpoint.load_model(result.model_uri) for result in results), strict=True)
    bundle = replace(
        bundles[0],
        arch=models.ENSEMBLE.name,
        options=run.options,
        config_digest=run.digest,
        code_version=job.code_version,
        weights_sha256="",
        members={result.label: result.weights_sha256 for result in results},
    )
    ensemble = Ensemble(members)
    written = checkpoint.save_model(job.run_uri, ensemble.state_dict(), bundle)
    model_uri = checkpoint.model_uri(job.run_uri)
    scores_uri = storage.join(job.run_uri, "validation")
    validation = evaluate(
        model_uri,
        data=job.data,
        version=job.version,
        to=scores_uri,
        config=EvaluateConfig(split=run.train.validation_split, pictures=0),
        experiment=run.experiment,
        label=run.label,
        cpus=min(1.0, cpus),
        runtime=runtime,
        with_card=False,
    )
    storage.delete_tree(scores_uri)  # a report of another split than the board's is for nobody to find
    return TrainResult(
        experiment=run.experiment,
        arch=run.arch,
        label=run.label,
        run_uri=job.run_uri,
        model_uri=model_uri,
        weights_sha256=written.weights_sha256,
        dataset_version=job.version,
        config_digest=run.digest,
        code_version=job.code_version,
        primary=validation.primary,
        best_value=validation.value,
        best_epoch=0,
        epochs=0,
        steps=0,
        stopped="finished",
        parameters=sum(p.numel() for p in ensemble.parameters()),
        train_seconds=0.0,
        history=(),
    )
