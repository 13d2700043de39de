"""A registered model asked about a dataset version or a folder; its answers become a dataset version."""

from __future__ import annotations

from prefect import flow, get_run_logger, task

from flows.artifacts import show_predictions
from flows.hooks import ANNOUNCED
from flows.retries import RETRIED
from segpipe.cli.parts import size_of
from segpipe.cli.progress import ingest_lines
from segpipe.stages import predict_dataset as stage
from segpipe.stages.predict_dataset import PredictedDataset


@task(task_run_name="predict {name}", **RETRIED)
def predict_images(
    model: str, source: str, name: str, split: str | None, version: str | None, window: str | None, batch_size: int
) -> PredictedDataset:
    """Predicts what is missing, part by part on Ray, and publishes; a retry goes on where the last one ended."""
    return stage.predict_dataset(
        model,
        source,
        name=name,
        split=split,
        version=version,
        window=size_of(window, flag="window") if window else None,
        batch_size=batch_size,
        on_progress=ingest_lines(get_run_logger().info, name),
    )


@flow(flow_run_name="predict {name}", **ANNOUNCED)
def predict(
    model: str,
    source: str,
    name: str,
    split: str | None = None,
    version: str | None = None,
    window: str | None = None,
    batch_size: int = 4,
) -> PredictedDataset:
    """Asks a model about many images, and publishes its masks, classes and uncertainty as a dataset version.

    Args:
        model: models:/NAME@champion, models:/NAME/3, or the model folder of a training.
        source: A dataset, by its name or place, or a folder of images.
        name: What the dataset of predictions is called; it lies in the home.
        split: One split of the dataset; all of them where none is named.
        version: The dataset's version, by its first 8 digits or more; the newest where none is named.
        window: HEIGHTxWIDTH, to see larger images window by window.
        batch_size: Images in one forward pass.
    """
    result = predict_images(model, source, name, split, version, window, batch_size)
    show_predictions(result)
    return result
