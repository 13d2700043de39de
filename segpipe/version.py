"""Which code made a result: part of every run's identity, so that changed code is never mistaken for an old result."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from segpipe import __version__


@cache
def code_version() -> str:
    """`<version>+<first 12 digits of the SHA-256 over every source file of the package>`.

    Read from the files rather than from git: it also tells apart uncommitted changes and installed wheels.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
