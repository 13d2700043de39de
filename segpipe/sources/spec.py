"""What a source is: the seam between files on disk and `Sample`.

Raw dataset ids die behind it: what comes out holds class ids 0..K-1 and the ignore index. Sits below the sources;
`stages/ingest.py` is the caller, `reading/` what the formats are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Annotated, Any, NamedTuple, Protocol, get_type_hints, runtime_checkable

from segpipe.types import Annotation, ClassInfo, LabelCoding, QuarantineEntry, Sample, SampleRef, Task

# What several formats of a user's own take.
Shares = Annotated[str, "shares of train, val and test, which add up to 1; a stable hash deals the samples by them"]
Licence = Annotated[str, "the terms of the data, as the manifest is to state them"]


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


@runtime_checkable
class PosedSource(Protocol):
    """A source of keypoints: it knows before it reads a sample how many an object has."""

    @property
    def num_keypoints(self) -> int:
        """The most that an object of any class may have; 0 where no class has any."""


class Option(NamedTuple):
    """One option of a source: the type and the default of its value, and what it is for, in a sentence."""

    kind: type[str] | type[int] | type[float] | type[bool]
    default: str | int | float | bool
    help: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """One line of SOURCES. `open(root, **options)` makes the source.

    `layout` shows, for a person, the files that it reads. `expected` is the documented number of samples of each split
    under the default options, empty where none is known or it follows from the options. `known_bad` are samples that
    are broken as published, with the reason and where the field says so: they are refused as `known_bad`, whatever copy
    they come from.
    """

    name: str
    open: Callable[..., Source]
    summary: str
    licence: str
    tasks: tuple[Task, ...]
    layout: tuple[str, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    known_bad: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Option]:
        """By name: the parameters of `open` that are annotated with a sentence, `Annotated[int, "of a clip"]`."""
        opener: Any = self.open
        hints = get_type_hints(opener, include_extras=True)
        return {
            name: Option(hints[name].__origin__, parameter.default, hints[name].__metadata__[0])
            for name, parameter in signature(opener).parameters.items()
            if hasattr(hints.get(name), "__metadata__")
        }
