"""What an export is: one function over all samples of a version. Sits below the exports; `stages/export.py` calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from segpipe.types import Annotation, Manifest, Sample

Splits = Mapping[str, Iterable[Sample]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """One line of EXPORTS. `write(splits, manifest, to)` writes below the URI `to`, and tells what of the annotations
    that it keeps did not fit. All samples that it is given are labelled: one without objects has none.

    `needs` is what a dataset must have, `keeps` what of it the format holds; `read_back` is the source that reads the
    result, with its options.
    """

    name: str
    summary: str
    needs: Annotation
    keeps: tuple[Annotation, ...]
    write: Callable[[Splits, Manifest, str], tuple[str, ...]]
    read_back: tuple[str, Mapping[str, str | int | float | bool]]
