"""What a training says of itself while it runs: the worker leaves its newest values, the driver picks them up.

They pass through the key-value store of Ray's head, which both can reach wherever they run. Only the newest stay there.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from ray.exceptions import RayError
from ray.experimental import internal_kv

from segpipe.train.on_ray import cluster
from segpipe.train.runtime import OnProgress
from segpipe.types import TrainProgress

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 2.0


def leave(key: str, progress: TrainProgress) -> None:
    """Called in the worker. News that get lost are no reason to stop a training."""
    with suppress(RayError, RuntimeError):
        internal_kv._internal_kv_put(key, json.dumps(asdict(progress)))


@contextmanager
def passed_on(key: str, on_progress: OnProgress | None) -> Iterator[None]:
    """While the block runs, a thread calls `on_progress` with what is new; once more at its end. Then the key goes."""
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(key, on_progress, ended), name="segpipe-progress", daemon=True)
    if on_progress is not None:
        watcher.start()
    try:
        yield
    finally:
        ended.set()
        if on_progress is not None:
            watcher.join()
        forget(key)


def forget(key: str) -> None:
    """Removes a key of a training that ended. With Ray itself gone, as after Ctrl-C, the key is gone, too."""
    if not cluster.answers():
        return
    with suppress(RayError, RuntimeError, AttributeError):
        internal_kv._internal_kv_del(key)


def _watch(key: str, on_progress: OnProgress, ended: threading.Event) -> None:
    seen: bytes | None = None
    is_last = False
    while not is_last:
        is_last = ended.wait(_EVERY_SECONDS)
        try:
            found = internal_kv._internal_kv_get(key) if cluster.answers() else None
            if found is not None and found != seen:
                seen = found
                on_progress(TrainProgress(**json.loads(found)))
        except Exception as error:  # noqa: BLE001 - whoever watches must not end what is watched
            _log.debug("progress was not shown: %s", error)
