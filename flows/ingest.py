"""Source files -> a published dataset version, announced by an event on which a retrain can start."""

from __future__ import annotations

import uuid

from prefect import flow, get_run_logger, task
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.artifacts import show_dataset
from flows.hooks import ANNOUNCED
from flows.retries import RETRIED
from segpipe.cli.progress import ingest_lines
from segpipe.config import DatasetConfig
from segpipe.stages import ingest as stage
from segpipe.stages.results import IngestResult


@task(task_run_name="ingest {dataset.name}", **RETRIED)
def ingest_dataset(dataset: DatasetConfig) -> IngestResult:
    """Publishes the present content of the source; does nothing when it was ingested before."""
    return stage.ingest(dataset, on_progress=ingest_lines(get_run_logger().info, dataset.name))


def announce(result: IngestResult) -> None:
    """Emits `segpipe.dataset.ingested`; its id is the version's own, so that a repetition can be known as one."""
    emit_event(
        "segpipe.dataset.ingested",
        resource={"prefect.resource.id": f"segpipe.dataset.{result.name}"},
        payload={"uri": result.uri, "version": result.version},
        id=uuid.uuid5(uuid.NAMESPACE_URL, f"{result.uri}#{result.version}"),
    )


@flow(flow_run_name="ingest {dataset.name}", **ANNOUNCED)
def ingest(dataset: DatasetConfig) -> IngestResult:
    """Ingests one dataset and announces the version that it has now.

    Whoever runs it gets an announcement, also of a version that was there: the run that published it may have ended
    before it could say so, and a retrain for which nothing is left to do costs seconds. As a part of another flow it
    announces only what it publishes: a model that is evaluated must not start a night. A retrain announces nothing
    (it calls `ingest_dataset`): the retrain that an announcement would start is under way.

    Args:
        dataset: Which source to read, from where, and what the dataset is called.
    """
    result = ingest_dataset(dataset)
    if result.status == "published" or flow_run.parent_flow_run_id is None:
        announce(result)  # before all that can fail
    show_dataset(result)
    return result
