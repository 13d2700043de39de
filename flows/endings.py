"""Red or green: the state in which a flow run ends, and with it the exit status of `--watch` and `python -m flows`.

A run that ends green is a run that nobody looks at. So one of which something was refused or failed ends red, as the
command line then ends with status 1, though all the rest is done and its result is there. A champion that was kept in
a fair comparison is an ordinary night, and green.
"""

from __future__ import annotations

from prefect.client.schemas.objects import State
from prefect.states import Failed

from segpipe.stages.results import RetrainResult, Verdict


def of_night(result: RetrainResult) -> RetrainResult | State[RetrainResult]:
    """The result itself, or a Failed state that carries it: an architecture failed, or the challenger was refused."""
    if result.is_clean:
        return result
    failed = [f"{label} failed: {message}" for label, message in result.failures.items()]
    return Failed(data=result, message="; ".join([_said(result.verdict), *failed]))


def of_verdict(verdict: Verdict) -> Verdict | State[Verdict]:
    """The verdict itself, or a Failed state that carries it: the challenger was refused."""
    return Failed(data=verdict, message=_said(verdict)) if verdict.outcome == "refused" else verdict


def _said(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.reason}"
