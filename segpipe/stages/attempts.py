"""The attempts of one night, side by side or one after the other, and how each ended. Called by `retrain.py`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from segpipe.errors import SegpipeError

_log = logging.getLogger(__name__)
T = TypeVar("T")


def attempt_all(
    attempts: Mapping[str, Callable[[], T]],
    *,
    side_by_side: bool,
    awaited: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, T | Exception]:
    """What each attempt came to, in the order given: what it gave, or the exception that ended it.

    `awaited` names for some those, given before, whose endings they wait for. One that fails does not stop the others,
    nor those that waited for it: they see for themselves what it left. Ctrl-C ends the wait at once, and the process
    may end while attempts of `side_by_side` still run: what they wait for in another process (Ray's workers) is not
    theirs to tidy up.
    """
    endings: dict[str, Future[T | Exception]] = {}
    for label, attempt in attempts.items():
        before = [endings[other] for other in (awaited or {}).get(label, ())]
        work = partial(_outcome, label, attempt, before)
        endings[label] = _started(work) if side_by_side else _ended(work)
    return {label: ending.result() for label, ending in endings.items()}


def message_of(error: Exception) -> str:
    """What a record and a person are told: our own errors are written for that, of others the first line."""
    if isinstance(error, SegpipeError):
        return str(error)
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line} (no fault that segpipe knows; its traceback is in the log)"


def _outcome(label: str, attempt: Callable[[], T], before: Sequence[Future[T | Exception]]) -> T | Exception:
    for ending in before:
        ending.result()
    try:
        return attempt()
    except Exception as error:  # noqa: BLE001 - out of memory, a wrong shape, a bug: the night goes on without it
        unknown = not isinstance(error, SegpipeError)
        _log.log(logging.ERROR if unknown else logging.INFO, "%s failed", label, exc_info=error if unknown else None)
        return error


def _ended(work: Callable[[], T]) -> Future[T]:
    ending: Future[T] = Future()
    ending.set_result(work())
    return ending


def _started(work: Callable[[], T]) -> Future[T]:
    """`work` in a daemon thread. An executor's threads are waited for when the process ends: hours, after a Ctrl-C."""
    ending: Future[T] = Future()

    def run() -> None:
        try:
            ending.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`; a silent thread would be waited for
            ending.set_exception(error)

    threading.Thread(target=run, name="segpipe-attempt", daemon=True).start()
    return ending
