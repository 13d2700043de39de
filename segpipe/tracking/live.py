"""Metrics on their way to MLflow while training runs. Below `stages.train`, which hands the logger to the workers.

Training never waits for a server: values go into a bounded queue, and a daemon thread ships them. What it cannot ship
is not lost, because `mirror_history` fills the gaps from the run's own files afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from segpipe.errors import UnreachableError
from segpipe.tracking.connect import RefusedError, RunRef, metric_name, talking_to
from segpipe.tracking.runs import METRICS_PER_CALL, RecordedSteps, columns

_log = logging.getLogger(__name__)
Value = tuple[str, float, int, int]  # name, value, timestamp in ms, step

INTERVAL_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
CAPACITY = 50_000


class MetricLogger:
    """`logger({"train/loss": 0.3}, step)` from any thread: never blocks, never raises.

    Picklable: a copy in another process starts its own queue and thread with its first value. A value that the run
    already has for that metric and step (a resumed training repeats some) is not sent again. When the queue is full
    the oldest values go first.
    """

    def __init__(self, run: RunRef) -> None:
        self.run = run
        self._pending: deque[Value] = deque()
        self._lost = 0
        self._sending = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._known: RecordedSteps | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return MetricLogger, (self.run,)

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        """Queues the values of one step."""
        now = int(time.time() * 1000)
        with self._lock:
            for name, value in columns(metrics).items():
                try:
                    self._pending.append((metric_name(name), float(value), now, int(step)))
                except (TypeError, ValueError) as error:
                    self._lost += 1
                    _log.warning("metric %s of step %s is not a number and is left out: %s", name, step, error)
            while len(self._pending) > CAPACITY:
                self._pending.popleft()
                self._lost += 1
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="segpipe-metrics", daemon=True)
                self._thread.start()

    def close(self, timeout: float = 5.0) -> int:
        """Ships what is queued, for at most `timeout` seconds; returns the number of values that were not sent."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._lock:
            return len(self._pending) + self._sending + self._lost

    def _run(self) -> None:
        wait = INTERVAL_SECONDS
        while True:
            last_round = self._closing.wait(wait)
            try:
                while self._ship_one_batch():
                    pass
                wait = INTERVAL_SECONDS
            except UnreachableError as error:
                if wait == INTERVAL_SECONDS:
                    _log.warning("live metrics are waiting, training goes on: %s", error)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            if last_round:
                return

    def _ship_one_batch(self) -> bool:
        """Sends up to one call's worth of values; False when there are none. Puts them back if the store is away."""
        with self._lock:
            batch = [self._pending.popleft() for _ in range(min(METRICS_PER_CALL, len(self._pending)))]
            self._sending = len(batch)
        if not batch:
            return False
        try:
            self._send(batch)
        except UnreachableError:
            with self._lock:
                self._pending.extendleft(reversed(batch))
                self._sending = 0
            raise
        except Exception as error:  # noqa: BLE001 - training goes on; the log says what is missing in MLflow and why
            is_bug = not isinstance(error, RefusedError)
            _log.warning("%d live metric values are not in MLflow: %s", len(batch), error, exc_info=is_bug)
            with self._lock:
                self._lost += len(batch)
        with self._lock:
            self._sending = 0
        return True

    def _send(self, batch: list[Value]) -> None:
        with talking_to(self.run.tracking_uri) as client:
            from mlflow.entities import Metric

            if self._known is None:
                self._known = RecordedSteps(client, self.run.run_id)
            fresh = [Metric(*value) for value in batch if not self._known.has(value[0], value[3])]
            if fresh:
                client.log_batch(self.run.run_id, metrics=fresh)
