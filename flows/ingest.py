"""Source files -> a published dataset version, announced by an event on which a retrain can start."""

from __future__ import annotations

import uuid
from contextlib import suppress

from prefect import flow, get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.artifacts import show_dataset
from flows.hooks import ANNOUNCED
from flows.retries import RETRIED
from segpipe.cli.progress import ingest_lines
from segpipe.config import DatasetConfig
from segpipe.errors import SegpipeError
from segpipe.stages import ingest as stage
from segpipe.stages import nights
from segpipe.stages.results import IngestResult


@task(task_run_name="ingest {dataset.name}", **RETRIED)
def ingest_dataset(dataset: DatasetConfig) -> IngestResult:
    """Publishes the present content of the source; does nothing when it was ingested before."""
    return stage.ingest(dataset, on_progress=ingest_lines(get_run_logger().info, dataset.name))


def announce(result: IngestResult) -> None:
    """Emits `segpipe.dataset.ingested`; its id is the version's own, so that it is known whether that was said."""
    emit_event(
        "segpipe.dataset.ingested",
        resource={"prefect.resource.id": f"segpipe.dataset.{result.name}"},
        payload={"dataset": result.name, "version": result.version, "uri": result.uri, "splits": result.splits},
        id=_event_id(result),
    )


def is_untold(result: IngestResult) -> bool:
    """Whether a version that was found there may have lost its announcement, as the run that published it was killed:
    no experiment's last night was on it, and the server has not heard of it."""
    with suppress(SegpipeError):  # a damaged record of a night must not end an ingest that is done
        if nights.on_version(result.version):
            return False
    return not _was_heard(result)


def _was_heard(result: IngestResult) -> bool:
    """Whether the server has the announcement. One that does not answer has not: saying it twice costs seconds, as the
    retrain finds nothing to do, and not at all costs a night."""
    with suppress(Exception), get_client(sync_client=True) as client:
        asked = {"filter": {"id": {"id": [str(_event_id(result))]}}, "limit": 1}
        return bool(client.request("POST", "/events/filter", json=asked).json()["events"])
    return False


def _event_id(result: IngestResult) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{result.uri}#{result.version}")


@flow(flow_run_name="ingest {dataset.name}", **ANNOUNCED)
def ingest(dataset: DatasetConfig) -> IngestResult:
    """Ingests one dataset and announces a version that is new.

    A version that was there is announced too where nobody heard of it: the run that published it may have ended before
    it could say so. As a part of another flow it announces only what it publishes: a model that is evaluated must not
    start a night. A retrain announces nothing (it calls `ingest_dataset`): the retrain that an announcement would start
    is under way.

    Args:
        dataset: Which source to read, from where, and what the dataset is called.
    """
    result = ingest_dataset(dataset)
    if result.status == "published" or (flow_run.parent_flow_run_id is None and is_untold(result)):
        announce(result)  # before all that can fail
    show_dataset(result)
    return result
