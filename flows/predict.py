"""A registered model asked about a dataset version or a folder; its answers become a dataset version."""

from __future__ import annotations

import uuid

from prefect import flow, get_run_logger, task
from prefect.events import emit_event

from flows.artifacts import show_predictions
from flows.hooks import ANNOUNCED
from flows.retries import RETRIED
from segpipe.cli.parts import size_of
from segpipe.cli.progress import ingest_lines
from segpipe.stages import predict_dataset as stage
from segpipe.stages.drift import THRESHOLD
from segpipe.stages.predict_dataset import PredictedDataset


@task(task_run_name="predict {name}", **RETRIED)
def predict_images(
    model: str,
    source: str,
    name: str,
    split: str | None,
    version: str | None,
    window: str | None,
    least_score: float,
    batch_size: int,
    drift_threshold: float,
) -> PredictedDataset:
    """Predicts what is missing, part by part on Ray, and publishes; a retry goes on where the last one ended."""
    return stage.predict_dataset(
        model,
        source,
        name=name,
        split=split,
        version=version,
        window=size_of(window, flag="window") if window else None,
        least_score=least_score,
        batch_size=batch_size,
        drift_threshold=drift_threshold,
        on_progress=ingest_lines(get_run_logger().info, name),
    )


def tell_drift(result: PredictedDataset) -> None:
    """Says in the log whether the images are like those of the training, and on what that rests; if not, emits
    `segpipe.drift.detected`.

    On that a retrain can start. Its resource is the model's experiment, which is the name of its recipe too; its id is
    that of the answers and the threshold, so that the server keeps it once however often that is asked.
    """
    found, log = result.drift, get_run_logger()
    (log.warning if found.has_drifted or found.is_undecided else log.info)(found.sentence)
    for note in found.notes:
        log.info(note)
    if found.has_drifted:
        emit_event(
            "segpipe.drift.detected",
            resource={
                "prefect.resource.id": f"segpipe.model.{found.experiment or 'unnamed'}",
                "prefect.resource.name": result.model,
                "segpipe.dataset": found.dataset,
                "segpipe.weights": result.weights_sha256,
            },
            payload={
                "sentence": found.sentence,
                "moved": {each.statistic: each.distance for each in found.shifts if each.has_moved},
                "threshold": found.threshold,
                "images": found.images,
                "to_label": list(found.to_label),
                "uri": result.uri,
                "version": result.version,
            },
            id=uuid.uuid5(
                uuid.NAMESPACE_URL, f"{result.uri}#{result.version}#{result.weights_sha256}#{found.threshold}"
            ),
        )


@flow(flow_run_name="predict {name}", **ANNOUNCED)
def predict(
    model: str,
    source: str,
    name: str,
    split: str | None = None,
    version: str | None = None,
    window: str | None = None,
    least_score: float = 0.5,
    batch_size: int = 4,
    drift_threshold: float = THRESHOLD,
) -> PredictedDataset:
    """Asks a model about many images, and publishes its masks, classes and uncertainty as a dataset version.

    Where the images, or its answers, are not like those that it was trained and scored on, that is announced.

    Args:
        model: models:/NAME@champion, models:/NAME/3, or the model folder of a training.
        source: A dataset, by its name or place, or a folder of images.
        name: What the dataset of predictions is called; it lies in the home.
        split: One split of the dataset; all of them where none is named.
        version: The dataset's version, by its first 8 digits or more; the newest where none is named.
        window: HEIGHTxWIDTH, to see larger images window by window.
        least_score: Objects of a lower score are no labels, 0 to 1.
        batch_size: Images in one forward pass.
        drift_threshold: How far a statistic of the images or answers may be from what the model was trained and scored
            on, before it is told as drift: a Jensen-Shannon distance, more than 0 and at most 1.
    """
    result = predict_images(model, source, name, split, version, window, least_score, batch_size, drift_threshold)
    tell_drift(result)  # before all that can fail
    show_predictions(result)
    return result
