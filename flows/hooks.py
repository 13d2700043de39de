"""What happens when a flow run ends badly. Prefect's worker calls hooks by keyword: the three names are fixed."""

from __future__ import annotations

import os
import time
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.flows import Flow

GRACE_SECONDS = 5.0  # for the announcement and the last lines of the log to leave


def announce_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Emits `segpipe.flow.failed`, on which an automation can page somebody; nothing has to be cleaned up.

    Logs nothing: Prefect has, and a logger that ships to its API warns where the worker calls hooks, outside a run.
    """
    emit_event(
        "segpipe.flow.failed",
        resource={"prefect.resource.id": f"segpipe.flow.{flow.name}", "segpipe.flow-run": str(flow_run.id)},
        payload={"run": flow_run.name, "state": state.name or "", "message": state.message or ""},
    )


def end_what_hangs(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Ends this process once its run has passed its time limit.

    The state is set by now, but Prefect would wait for the thread that hangs, without end; and as long as the process
    lives, it holds its trainings, so that every next night would be refused them.
    """
    if state.name == "TimedOut":
        time.sleep(GRACE_SECONDS)
        os._exit(1)


# The settings of every `@flow`: what it returns is stored by the stages, and a bad end is announced.
ANNOUNCED: dict[str, Any] = {
    "persist_result": False,
    "on_failure": [announce_failure, end_what_hangs],
    "on_crashed": [announce_failure],
    "on_cancellation": [announce_failure],
}
