"""Red or green: the state in which a flow run ends, and with it the exit status of `--watch` and `python -m flows`.

A run that ends green is a run that nobody looks at. So one of which something was refused or failed ends red, as the
command line then ends with status 1, though all the rest is done and its result is there. A champion that was kept in
a fair comparison is an ordinary night, and green.
"""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Failed

from segpipe.stages.results import RetrainResult, Verdict


class EndedRedError(Exception):
    """Why a run that did its work is red. `result` is what it came to all the same.

    An exception, since that is what Prefect's worker looks for in a failed state: of anything else it complains, with a
    traceback of its own, as the last lines of a night's log.
    """

    def __init__(self, message: str, result: RetrainResult | Verdict) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        # Crosses processes: the default pickling would call __init__ with the message alone.
        return EndedRedError, (str(self), self.result)


def of_night(result: RetrainResult) -> RetrainResult | State[RetrainResult]:
    """The result itself, or a Failed state that carries it: an architecture failed, or the challenger was refused."""
    if result.is_clean:
        return result
    failed = [f"{label} failed: {message}" for label, message in result.failures.items()]
    since = f" (since {result.refused_since[:16]} UTC; nothing has changed)" if result.refused_since else ""
    return _red("; ".join([_said(result.verdict) + since, *failed]), result)


def of_verdict(verdict: Verdict) -> Verdict | State[Verdict]:
    """The verdict itself, or a Failed state that carries it: the challenger was refused."""
    return _red(_said(verdict), verdict) if verdict.outcome == "refused" else verdict


def _red(message: str, result: RetrainResult | Verdict) -> State[Any]:
    return Failed(data=EndedRedError(message, result), message=message)


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.reason}"
