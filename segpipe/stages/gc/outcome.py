"""What a collection found: files that nobody needs, what stays and why. Plain data for `segpipe data gc`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Going:
    """One file, or a folder that ends in a slash, that is removed: its path below the place."""

    path: str
    bytes: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Staying:
    """A version, a run or a number of files that stays."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One dataset, or the runs of the home. `deleted` is whether what `going` lists is gone; `problem` says why no
    more is."""

    uri: str
    going: tuple[Going, ...]
    staying: tuple[Staying, ...]
    deleted: bool
    problem: str | None

    @property
    def bytes(self) -> int:
        """Of what goes."""
        return sum(each.bytes for each in self.going)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Every place that was looked at; `bytes` is what all of them give back."""

    places: tuple[Place, ...]
    deleted: bool
    bytes: int
