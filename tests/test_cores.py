"""The usable cores, on Linux and where the system cannot tell which ones are ours; and memory that is used again."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from segpipe.cores import keep_freed_memory, ray_address, usable_cores

HAS_AFFINITY = hasattr(os, "sched_getaffinity")


def test_it_is_a_number_of_cores_of_this_machine() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not HAS_AFFINITY, reason="this system does not bind processes to cores")
def test_a_process_bound_to_one_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); "
        "from segpipe.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(("counted", "expected"), [(6, 6), (None, 1)])
def test_without_affinity_it_is_what_the_machine_has(
    counted: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores() == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "local"), ("", "local"), ("local", "local"), ("head:6379", "head:6379")]
)
def test_an_empty_address_is_none(value: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert ray_address() == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is spoken to")
def test_freed_tensors_are_used_again_without_page_faults() -> None:
    code = """if True:
        import resource, sys, torch
        from segpipe.cores import keep_freed_memory
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                torch.ones(2**21)  # 8 MiB
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        given_back = faults()
        keep_freed_memory()
        torch.ones(2**21)
        print(given_back > 1000, faults() < 100)
    """
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True True\n"
    )


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
