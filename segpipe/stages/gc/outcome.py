"""What a collection found: files that nobody needs, what stays and why. Plain data for `segpipe data gc`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from segpipe.stages.numbers import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Going:
    """One file, or a folder that ends in a slash, that is removed: its path below the place.

    `version` is the one that ends with it; empty for what belongs to none, or to a run.
    """

    path: str
    bytes: int
    why: str
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Staying:
    """A version, a run or a number of files that stays."""

    kind: Literal["version", "run", "files"]
    name: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One dataset, or the runs or rehearsals of the home. `deleted` is whether what `going` lists is gone; `problem`
    says why no more is."""

    uri: str
    going: tuple[Going, ...]
    staying: tuple[Staying, ...]
    deleted: bool
    problem: str | None

    @property
    def bytes(self) -> int:
        """Of what goes."""
        return sum(each.bytes for each in self.going)

    @property
    def reasons(self) -> str:
        """Why what goes may go, in short; empty where nothing does."""
        versions = len({each.version for each in self.going if each.version})
        told = [counted(versions, "old version")] if versions else []
        return "; ".join([*told, *dict.fromkeys(each.why for each in self.going if not each.version)])

    @property
    def stays(self) -> str:
        """What stays, in short."""
        kinds = Counter(each.kind for each in self.staying)
        told = [counted(kinds[kind], kind) for kind in ("version", "run") if kinds[kind]]
        return "; ".join([*told, *(each.name for each in self.staying if each.kind == "files")])


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Every place that was looked at; `bytes` is what all of them give back."""

    places: tuple[Place, ...]
    deleted: bool
    bytes: int
