"""Source files -> a published dataset version. A new version is announced by an event, on which a retrain can start."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.artifacts import show_dataset
from flows.hooks import announce_failure
from segpipe.config import DatasetConfig
from segpipe.stages import ingest as stage
from segpipe.stages.results import IngestResult


@task(task_run_name="ingest {dataset.name}", cache_policy=NO_CACHE, persist_result=False)
def ingest_dataset(dataset: DatasetConfig) -> IngestResult:
    """Publishes the present content of the source; does nothing when it was ingested before."""
    return stage.ingest(dataset)


@flow(
    flow_run_name="ingest-{dataset.name}",
    persist_result=False,
    on_failure=[announce_failure],
    on_crashed=[announce_failure],
    on_cancellation=[announce_failure],
)
def ingest(dataset: DatasetConfig) -> IngestResult:
    """Ingests one dataset and announces a version that was not there before.

    As a part of a retrain it announces nothing: the retrain that an announcement would start is under way.

    Args:
        dataset: Which source to read, from where, and what the dataset is called.
    """
    result = ingest_dataset(dataset)
    show_dataset(result)
    if result.status == "published" and flow_run.parent_flow_run_id is None:
        emit_event(
            "segpipe.dataset.ingested",
            resource={"prefect.resource.id": f"segpipe.dataset.{result.name}"},
            payload={"uri": result.uri, "version": result.version},
        )
    return result
