"""Which Ray this process works on: the cluster at `$RAY_ADDRESS`, or a Ray of its own. Used by `stages/`."""

from __future__ import annotations

import logging
import os
import queue
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray

import segpipe
from segpipe.cores import ray_address, usable_cores
from segpipe.errors import InputError, UnreachableError

_connecting = threading.Lock()

# What Ray reads from the environment. A value that the user has set stays.
_SETTINGS = {
    # A training whose CPUs are taken waits in the cluster's queue. After Ray's 60 s it would lose its place in it.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # a training's end is seen after 0.2 s; with Ray's 2 s after 1.0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a recipe mean the same in a worker
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
}
_EMBEDDED_SETTINGS = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # nobody takes away our own node
_OBJECT_STORE_BYTES = 128 * 1024**2  # only tasks' arguments and results pass through it
_LONGEST_TEMP_DIR = 40  # a Unix socket's path has at most 107 bytes, and Ray adds about 65
_ANSWER_SECONDS = 5


def connect(*, num_cpus: int | None = None) -> None:
    """Connects this process to the cluster at `$RAY_ADDRESS`, or starts a Ray of its own. Doing it again is free.

    A Ray of our own has all CPUs (at least two logical ones, so that one training can start while another trains) and
    ends with this process. Raises UnreachableError when nobody answers at `$RAY_ADDRESS`.
    """
    with _connecting:
        if ray.is_initialized():
            return
        for name, value in (_SETTINGS if joined() else _SETTINGS | _EMBEDDED_SETTINGS).items():
            os.environ.setdefault(name, value)
        logging.getLogger("ray").setLevel(logging.ERROR)
        options = _cluster_options(ray_address()) if joined() else _embedded_options(num_cpus)
        try:
            _init(options)
        except Exception as error:  # Ray raises bare Exceptions, too
            raise UnreachableError(_no_ray(ray_address(), error)) from error


def joined() -> bool:
    """Whether Ray is a cluster that others started and may watch, and not one of our own."""
    return ray_address() != "local"


def answers() -> bool:
    """Whether the head of the cluster that this process joined is still there; a Ray of our own ends with us.

    Of a lost one nothing may be asked: Ray waits a minute for it, and then ends this process with a message of its own.
    """
    if not joined():
        return True
    try:
        _reach(ray.get_runtime_context().gcs_address)
    except (OSError, AttributeError):  # the latter after `ray.shutdown`
        return False
    return True


def resources() -> dict[str, float]:
    """What the whole cluster has, taken or free: {"CPU": 2.0, ...}."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return there


def gpu_share() -> float:
    """What one evaluation task asks of the cluster's GPUs: one where there are any, else none."""
    return 1.0 if resources().get("GPU") else 0.0


def _embedded_options(num_cpus: int | None) -> dict[str, Any]:
    temp_dir = tempfile.gettempdir()
    return {
        "address": "local",  # never another Ray on this host, such as one left by a driver that was killed
        "num_cpus": num_cpus or max(2, usable_cores()),
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": f"{temp_dir if len(temp_dir) <= _LONGEST_TEMP_DIR else '/tmp'}/ray",  # noqa: S108 - Ray's own
    }


def _cluster_options(address: str) -> dict[str, Any]:
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS={address}: Ray Train does not run through Ray Client; give HOST:PORT of the head node's GCS "
            "(6379 unless chosen otherwise) and run on a machine of the cluster, or use `ray job submit`"
        )
    if address != "auto":
        try:
            _reach(address)
        except (OSError, ValueError) as error:
            raise UnreachableError(_no_ray(address, error)) from error
    return {
        "address": address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        # The workers run this very code, whatever version their image carries.
        "runtime_env": {"py_modules": [str(Path(segpipe.__file__).parent)]},
    }


def _reach(address: str) -> None:
    """Raises OSError where nobody listens there, ValueError where it is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()


def _no_ray(address: str, error: Exception) -> str:
    if address == "local":
        return f"Ray did not start on this machine: {error}. `segpipe doctor` looks at memory, disk and shared memory"
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there: {error}. Start it (`ray start --head`), mend the "
        "address, or unset RAY_ADDRESS to use this machine. A cluster with token authentication also needs "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) here"
    )


def _init(options: dict[str, Any]) -> None:
    """`ray.init` in a thread that stays for as long as the process.

    Linux ends Ray's daemons together with the thread that started them, and a caller may be a worker thread of Prefect.
    Outside the main thread Ray also leaves the process's SIGTERM handler alone.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def stay() -> None:
        try:
            ray.init(**options)
        except Exception as error:  # noqa: BLE001 - raised again in the calling thread
            outcome.put(error)
            return
        outcome.put(None)
        threading.Event().wait()

    threading.Thread(target=stay, name="segpipe-ray", daemon=True).start()
    if (error := outcome.get()) is not None:
        raise error
