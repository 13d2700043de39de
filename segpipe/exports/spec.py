"""What an export is: one function over all samples of a version. Sits below the exports; `stages/export.py` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from segpipe.types import Annotation, Manifest, Sample

Splits = Mapping[str, Iterable[Sample]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a reader of the files must know: the stems of samples whose files could not have the sample's id as name,
    what of the annotations that the format keeps was `unfit` for it, and `notes` on what tools may not expect."""

    renamed: Mapping[str, str]
    unfit: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One line of EXPORTS. `write(splits, manifest, to)` writes below the URI `to`. All samples that it is given are
    labelled: one without objects has none.

    `needs` is what a dataset must have, `keeps` what of it the format holds; `read_back` is the source that reads the
    result, with its options.
    """

    name: str
    summary: str
    needs: Annotation
    keeps: tuple[Annotation, ...]
    write: Callable[[Splits, Manifest, str], Outcome]
    read_back: tuple[str, Mapping[str, str | int | float | bool]]
