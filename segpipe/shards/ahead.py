"""Doing what will be asked for next while the present is in use: in threads, in order, so much and no more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from segpipe.errors import UnreachableError

T = TypeVar("T")
R = TypeVar("R")


def ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    most: int,
    most_bytes: int,
    weigh: Callable[[T], int],
) -> Generator[R]:
    """`function(item)` of each item, in order. Beside the one that is waited for, at most `most` later ones of together
    `most_bytes` are in work or done: where that is more than nothing, at least one.

    An error comes at its item's place. Closing the generator starts nothing more and waits for what is running.
    """
    remaining = iter(items)
    upcoming = next(remaining, None)
    started: deque[tuple[int, Future[R]]] = deque()
    waited: Future[R] | None = None
    weight = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="segpipe-reader")
    try:
        while True:
            while upcoming is not None and (
                not started or (len(started) < most and weight + weigh(upcoming) <= most_bytes)
            ):
                started.append((weigh(upcoming), pool.submit(function, upcoming)))
                weight += started[-1][0]
                upcoming = next(remaining, None)
            if waited is not None:
                yield waited.result()
            if not started:
                return
            size, waited = started.popleft()
            weight -= size
    finally:
        pool.shutdown(cancel_futures=True)


class Flights:
    """Work that several threads want is done by the first of them, and the others wait for it."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def run(self, key: Hashable, work: Callable[[], R]) -> R:
        """What `work` gives, here or in the thread that came first."""
        while True:
            with self._lock:
                theirs = self._running.get(key)
                if theirs is None:
                    ours = self._running[key] = Future()
                    break
            try:
                result: R = theirs.result()
                return result
            except UnreachableError:
                continue  # their budget was spent or their reader closed, which need not be so with ours
        try:
            result = work()
        except BaseException as error:
            self._end(key)
            ours.set_exception(error)
            raise
        self._end(key)
        ours.set_result(result)
        return result

    def _end(self, key: Hashable) -> None:
        with self._lock:
            del self._running[key]
