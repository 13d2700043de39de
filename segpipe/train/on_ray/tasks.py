"""A plain function over the cluster's nodes: ingest's shards, evaluation's shares. Called by `stages/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayError,
    RaySystemError,
    RayTaskError,
)

from segpipe.errors import SegpipeError, UnreachableError
from segpipe.train.on_ray import cluster

T = TypeVar("T")
R = TypeVar("R")
LOST_CLUSTER = (LocalRayletDiedError, NodeDiedError, ObjectLostError, RaySystemError)


def fan_out(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    on_done: Callable[[int], None] | None = None,
) -> list[R]:
    """`[function(item) for item in items]` as tasks over the cluster's nodes; results in the order of `items`.

    `on_done(n)` is told when n items are done. The first error that the function raises is raised here, and what has
    not begun is cancelled. A task whose worker or node died is run again.
    """

    def work(item: T) -> R:  # of whatever can be called: Ray itself takes functions, and a `partial` is none
        return function(item)

    task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(work)
    results = [task.remote(item) for item in items]
    waiting = list(results)
    try:
        while waiting:
            ready, waiting = ray.wait(waiting)
            ray.get(ready)
            if on_done is not None:
                on_done(len(results) - len(waiting))
        return list(ray.get(results))
    except RayTaskError as error:
        raise error.cause from error
    except LOST_CLUSTER as error:
        raise UnreachableError(f"lost the Ray cluster; run the same again: {error}") from error
    except RayError as error:
        raise SegpipeError(f"Ray lost the workers of a task again and again: {error}") from error
    finally:
        for unfinished in waiting if cluster.answers() else ():
            ray.cancel(unfinished)
