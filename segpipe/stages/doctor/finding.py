"""What one check of `segpipe doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One finding. `fix` is a command or a short instruction, empty when all is well. `is_service`: it is about
    something that answers over a network, or does not."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    expected: str
    fix: str = ""
    is_service: bool = False


def amount(name: str, found: int, *, fewest: int, enough: int, what: str, fix: str) -> Check:
    """A number of bytes: "fail" below `fewest`, "warn" below `enough`, "ok" from there."""
    shown, expected = f"{found / GIB:.1f} GiB {what}".strip(), f"at least {enough / GIB:.0f} GiB"
    if found < fewest:
        return Check(name=name, status="fail", found=shown, expected=f"at least {fewest / GIB:.0f} GiB", fix=fix)
    if found < enough:
        return Check(name=name, status="warn", found=shown, expected=expected, fix=fix)
    return Check(name=name, status="ok", found=shown, expected=expected)
