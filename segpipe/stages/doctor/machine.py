"""Checks of this machine alone: Python, packages, home, disk, memory, GPU.

Reads metadata and sizes and imports nothing heavy: what is checked may be what is broken.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from segpipe import storage
from segpipe.errors import SegpipeError, UnreachableError
from segpipe.stages import layout
from segpipe.stages.doctor.finding import GIB, Check, amount

OLDEST_PYTHON = (3, 11)


def check_python() -> Iterator[Check]:
    found = platform.python_version()
    expected = f"at least {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        fix = "install a newer Python, then `rm -rf .boot .venv` and `make install` with PYTHON=/path/to/it"
        yield Check(name="python", status="fail", found=found, expected=expected, fix=fix)
    else:
        yield Check(name="python", status="ok", found=found, expected=expected)


def check_packages(requirements: Sequence[str] | None = None) -> Iterator[Check]:
    """Installed versions against the bounds that segpipe's own package declares."""
    if requirements is None:
        try:
            requirements = importlib.metadata.requires("segpipe") or []
        except importlib.metadata.PackageNotFoundError:
            fix = "pip install -e . (in the repository)"
            yield Check(name="packages", status="warn", found="segpipe is not installed", expected="installed", fix=fix)
            return
    wanted = [text for text in requirements if "extra ==" not in text]
    faults = 0
    for text in wanted:
        name, bounds = _split_requirement(text)
        found = _installed(name)
        if found is None or not _within(found, bounds):
            faults += 1
            fix = f"pip install '{name}{bounds}'"
            shown = found or "not installed"
            yield Check(name=f"package {name}", status="fail", found=shown, expected=bounds or "any", fix=fix)
    if not faults:
        yield Check(name="packages", status="ok", found=f"{len(wanted)} as declared", expected="as declared")


def check_home() -> Iterator[Check]:
    home = layout.home()
    probe = storage.join(home, f"doctor-{os.getpid()}-{time.time_ns()}")
    try:
        storage.write_once(probe, b"")
        storage.delete(probe)
    except SegpipeError as error:
        service = isinstance(error, UnreachableError)
        fix = "make it writable, or set SEGPIPE_HOME to a folder that is"
        found = f"{home}: {error}"
        yield Check(name="home", status="fail", found=found, expected="writable", fix=fix, is_service=service)
    else:
        yield Check(name="home", status="ok", found=home, expected="writable")


def check_disk() -> Iterator[Check]:
    folder = next(path for path in (Path(layout.local_home()), *Path(layout.local_home()).parents) if path.exists())
    free = shutil.disk_usage(folder).free
    fix = f"free some space below {folder}, or set SEGPIPE_HOME to a larger disk"
    yield amount("disk", free, fewest=1 * GIB, enough=10 * GIB, fix=fix, what="free")


def check_cache() -> Iterator[Check]:
    """Where copies of remote datasets go, and whether its limit fits on the disk: full, each epoch would fetch anew."""
    try:
        folder, limit, used = storage.cache_folder(), storage.cache_limit(), storage.cached_bytes()
    except SegpipeError as error:
        fix = "set SEGPIPE_CACHE to a local folder and SEGPIPE_CACHE_GIB to a number of GiB, or unset both"
        yield Check(name="cache", status="fail", found=str(error), expected="a folder and a limit", fix=fix)
        return
    if not limit:
        yield Check(name="cache", status="ok", found="off (SEGPIPE_CACHE_GIB=0)", expected="any")
        return
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{folder}: {used / GIB:.1f} of {limit / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
    fits = not used or used + free >= limit  # nobody has to make room for a cache that nothing uses
    fix = "" if fits else "free some space there, name a larger disk in SEGPIPE_CACHE, or lower SEGPIPE_CACHE_GIB"
    yield Check(name="cache", status="ok" if fits else "warn", found=found, expected="room up to its limit", fix=fix)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Check]:  # noqa: S108 - only its size is read
    """Ray keeps objects there and falls back to a slow disk when it is small, as containers make it by default."""
    if not folder.exists():
        yield Check(name="shared memory", status="ok", found=f"no {folder} here", expected="any")
        return
    fix = "start the container with --shm-size=2g (Kubernetes: an emptyDir with medium Memory on /dev/shm)"
    yield amount("shared memory", shutil.disk_usage(folder).total, fewest=0, enough=1 * GIB, fix=fix, what="")


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Iterator[Check]:
    if not meminfo.exists():
        yield Check(name="memory", status="ok", found=f"no {meminfo} here", expected="any")
        return
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    available = int(found.group(1)) * 1024 if found else 0
    fix = "end other programs, train fewer at once (resources), or lower batch_size and crop"
    yield amount("memory", available, fewest=1 * GIB, enough=4 * GIB, fix=fix, what="available")


def check_gpu() -> Iterator[Check]:
    torch_build = _installed("torch") or ""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Check(name="gpu", status="ok", found="none; training runs on the CPU", expected="any")
        return
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        fix = "the driver hangs: look at `dmesg`, and restart the machine"
        yield Check(name="gpu", status="warn", found="nvidia-smi does not answer", expected="an answer", fix=fix)
        return
    found = "; ".join(done.stdout.strip().splitlines())
    if done.returncode:
        fix = "run nvidia-smi and mend the driver; in a container, start it with --gpus all"
        problem = (done.stderr or done.stdout).strip().partition("\n")[0] or f"nvidia-smi ended with {done.returncode}"
        yield Check(name="gpu", status="warn", found=problem, expected="a driver that answers", fix=fix)
    elif "+cpu" in torch_build:
        fix = "install the CUDA build of torch, or the GPU stays idle"
        yield Check(
            name="gpu", status="warn", found=f"{found}, but torch {torch_build}", expected="CUDA torch", fix=fix
        )
    else:
        yield Check(name="gpu", status="ok", found=found, expected="any")


def _split_requirement(text: str) -> tuple[str, str]:
    """("ray", "<2.61,>=2.60") of "ray[train]<2.61,>=2.60"."""
    found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)", text)
    return (found.group(1), found.group(2).strip()) if found else (text, "")


def _within(version: str, bounds: str) -> bool:
    """Whether a version meets bounds made of >= and <, the only ones that pyproject.toml uses; others raise."""
    for bound in filter(None, bounds.split(",")):
        found = re.fullmatch(r"\s*(>=|<)\s*([\d.]+)\s*", bound)
        if found is None:
            raise ValueError(f"the bound {bound!r} in pyproject.toml is neither >= nor <; teach doctor to read it")
        at_least, limit = found.group(1) == ">=", _numbers(found.group(2))
        if (_numbers(version) >= limit) != at_least:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 15, 0) of "2.15.0+cpu" or "2.15.0rc1"; trailing zeros dropped, so that 3.0 equals 3."""
    release = re.split(r"[^\d.]", version, maxsplit=1)[0]
    numbers = [int(part) for part in release.split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
