"""Worker processes end with the process that started them. A file of its own, since a worker imports little else."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """The initializer of a pool of processes: ends this one when the one that started it is gone, however it went.

    A killed parent cannot tell its workers, and they would wait for their next piece of work for ever, each with its
    memory and a temporary folder that looks as if somebody was at work in it.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
