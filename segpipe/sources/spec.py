"""What a source is, and the reading of one image with its mask that file-based sources share.

`Source` is the seam between files on disk and `Sample`. Raw dataset ids die behind it: what comes out holds class ids
0..K-1 and the ignore index. Sits below the sources; `stages/ingest.py` is the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.types import Annotation, ClassInfo, QuarantineEntry, Sample, SampleRef, Task

MAX_FILE_BYTES = 256 * 2**20


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
    def annotations(self) -> tuple[Annotation, ...]:
        """What `read` fills."""

    @property
    def expected(self) -> Mapping[str, int] | None:
        """The documented number of samples of each split, for ingest to compare with; None where none is known."""

    def index(self) -> tuple[list[SampleRef], list[QuarantineEntry]]:
        """Every sample, sorted by (split, sample_id), ids unique, and what was refused. Cheap: reads no pixels."""

    def read(self, ref: SampleRef) -> Sample:
        """One sample, fully checked. Raises BadSampleError; its neighbours are not affected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """One line of SOURCES. `open(root, **options)` makes the source; `options` are its options with their defaults."""

    name: str
    open: Callable[..., Source]
    summary: str
    licence: str
    tasks: tuple[Task, ...]
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)


def read_file(root: str, path: str, *, missing: str) -> bytes:
    """The bytes of `path` under `root`. Raises BadSampleError: outside_root, too_large, or `missing` as the reason."""
    if (local := storage.local_path(root)) is not None:
        base, target = local.resolve(), (local / path).resolve()
        if not target.is_relative_to(base):
            raise BadSampleError(
                "outside_root", path, f"leads to {target}, outside {base}: copy the file into the root"
            )
        if target.exists() and not target.is_file():
            raise BadSampleError("unreadable", path, "is not a regular file: remove it or replace it by one")
    try:
        uri = storage.join(root, path)
        if (num_bytes := storage.size(uri)) > MAX_FILE_BYTES:
            raise BadSampleError("too_large", path, f"{num_bytes} bytes; allowed are {MAX_FILE_BYTES}: scale it down")
        return storage.read_bytes(uri)
    except BadSampleError:
        raise
    except InputError as error:
        if isinstance(error.__cause__, PermissionError):
            raise BadSampleError("unreadable", path, str(error)) from error
        raise BadSampleError(missing, path, f"{error}: restore the file or take the sample off the list") from error


def read_pair(
    root: str, ref: SampleRef, table: Mapping[int, int], *, palette: Mapping[tuple[int, int, int], int] | None = None
) -> Sample:
    """The sample of `ref.files` = (image, mask): raw mask ids become class ids by `table`. Raises BadSampleError."""
    image_path, mask_path = ref.files
    image = read_file(root, image_path, missing="missing_image")
    header = masks.check_image(image, file=image_path)
    mask = read_file(root, mask_path, missing="missing_mask")
    mask_header = masks.read_image_header(mask, file=mask_path)
    if (mask_header.width, mask_header.height) != (header.width, header.height):
        raise BadSampleError(
            "size_mismatch",
            mask_path,
            f"mask {mask_header.width}x{mask_header.height}, image {image_path} {header.width}x{header.height}; "
            "expected the same size: export the mask at the image's size",
        )
    raw = masks.read_label_image(mask, file=mask_path, palette=palette)
    labels = masks.map_labels(raw, table, file=mask_path)
    return Sample(
        sample_id=ref.sample_id,
        image=image,
        height=header.height,
        width=header.width,
        group=ref.group,
        label_map=np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("<")).tobytes(),
    )
