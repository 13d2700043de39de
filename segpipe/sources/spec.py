"""What a source is: the seam between files on disk and `Sample`.

Raw dataset ids die behind it: what comes out holds class ids 0..K-1 and the ignore index. Sits below the sources;
`stages/ingest.py` is the caller, `reading/` what the formats are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from segpipe.types import Annotation, ClassInfo, LabelCoding, QuarantineEntry, Sample, SampleRef, Task


class Index(NamedTuple):
    """What `Source.index` found: every sample, sorted by (split, sample_id), ids unique; and what was refused.

    A note says in a line what was there and was passed over all the same, although its owner may count on it, and what
    to do. It names no root; ingest makes a warning of it. What a published layout leaves out on purpose needs none.
    """

    refs: list[SampleRef]
    refused: list[QuarantineEntry]
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One dataset on disk (or made up), opened by `open_source(format, root, options)`. Picklable, holds no pixels."""

    @property
    def name(self) -> str:
        """The format's name in SOURCES."""

    @property
    def licence(self) -> str:
        """The terms of the data, as its publisher states them."""

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Class k is classes[k]."""

    @property
    def ignore_index(self) -> int:
        """255, or 65535 where there are more than 255 classes."""

    @property
    def coding(self) -> LabelCoding:
        """How the files spell their labels; it goes into the manifest, so that nobody has to guess it again."""

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """What `read` fills."""

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The documented number of samples of each split, for ingest to compare with; None where none is known."""

    def index(self) -> Index:
        """Every sample, what was refused, what was passed over. Cheap: reads no pixels."""

    def read(self, ref: SampleRef) -> Sample:
        """One sample, checked but for the pixels of its image, which ingest decodes for every source.

        Raises BadSampleError; its neighbours are not affected.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """One line of SOURCES. `open(root, **options)` makes the source; `options` are its options with their defaults.

    `layout` shows, for a person, the files that it reads. `known_bad` are samples that are broken as published, with
    the reason and where the field says so: they are refused as `known_bad`, whatever copy they come from.
    """

    name: str
    open: Callable[..., Source]
    summary: str
    licence: str
    tasks: tuple[Task, ...]
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    layout: tuple[str, ...] = ()
    known_bad: Mapping[str, str] = field(default_factory=dict)
