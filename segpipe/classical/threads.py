"""One thread for what the libraries of this room would do in several: those add floats in an order that may differ."""

from __future__ import annotations

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Within it, OpenMP and BLAS of this process have one thread."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(limits=1)
    return limits
