"""One file below a source's root -> bytes, a photograph, label ids, lines, a document: checked. Part of `reading`.

What belongs to one sample ends as BadSampleError (its neighbours go on); what the whole source stands on, such as a
list or an annotation file, as InputError.
Letter legend: H W image size in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from segpipe import masks, storage
from segpipe.errors import BadSampleError, CorruptError, InputError, TooLargeError
from segpipe.types import Sample, SampleRef

MAX_FILE_BYTES = 256 * 2**20
# COCO's instances_train2017.json has 448 MB; more than four times that is not an annotation file of one split.
MAX_DOCUMENT_BYTES = 2 * 2**30
MAX_LIST_BYTES = 256 * 2**20


class Photograph(NamedTuple):
    """An encoded image as shipped, and the size that its header tells. Ingest decodes it, once, to check it."""

    data: bytes
    height: int
    width: int
    file: str


def read_file(root: str, path: str, *, missing: str) -> bytes:
    """The bytes of `path` under `root`. Raises BadSampleError: outside_root, too_large, or `missing` as the reason."""
    if _leads_out(root, path):
        raise BadSampleError("outside_root", path, "is a link out of the root: copy the file into the root")
    if (local := storage.local_path(root)) is not None:
        target = local / path
        if target.exists() and not target.is_file():
            raise BadSampleError("unreadable", path, "is not a regular file: remove it or replace it by one")
    uri = storage.join(root, path)
    try:
        return storage.read_bytes(uri, limit=MAX_FILE_BYTES)
    except TooLargeError as error:
        detail = f"{storage.size(uri)} bytes; allowed are {MAX_FILE_BYTES}: scale it down"
        raise BadSampleError("too_large", path, detail) from error
    except InputError as error:
        if isinstance(error.__cause__, PermissionError):
            raise BadSampleError("unreadable", path, without_root(error, root, path)) from error
        detail = f"{without_root(error, root, path)}: restore the file or take the sample off the list"
        raise BadSampleError(missing, path, detail) from error


def read_photograph(root: str, path: str) -> Photograph:
    """The image file `path`. Raises BadSampleError."""
    data = read_file(root, path, missing="missing_image")
    header = masks.check_header(data, file=path)
    return Photograph(data, header.height, header.width, path)


def read_labels(
    root: str, path: str, image: Photograph, *, palette: Mapping[tuple[int, int, int], int] | None = None
) -> masks.Labels:
    """The raw ids (H, W) of the mask `path`, which must have the image's size. Raises BadSampleError."""
    data = read_file(root, path, missing="missing_mask")
    check_size(data, path, image)
    return masks.read_label_image(data, file=path, palette=palette)


def check_size(mask: bytes, path: str, image: Photograph) -> None:
    """Raises BadSampleError(size_mismatch) where the header of an encoded mask names another size than the image's."""
    header = masks.read_image_header(mask, file=path)
    if (header.width, header.height) != (image.width, image.height):
        raise BadSampleError(
            "size_mismatch",
            path,
            f"mask {header.width}x{header.height}, image {image.file} {image.width}x{image.height}; "
            "expected the same size: export the mask at the image's size",
        )


def read_pair(
    root: str,
    ref: SampleRef,
    table: Mapping[int, int],
    *,
    palette: Mapping[tuple[int, int, int], int] | None = None,
    own: str = "",
) -> Sample:
    """The sample of `ref.files` = (image, mask): raw mask ids become class ids by `table`; `own` as in `map_labels`.

    Raises BadSampleError.
    """
    image_path, mask_path = ref.files
    image = read_photograph(root, image_path)
    raw = read_labels(root, mask_path, image, palette=palette)
    return sample_of(ref, image, label_map=masks.stored(masks.map_labels(raw, table, file=mask_path, own=own)))


def sample_of(ref: SampleRef, image: Photograph, **annotations: Any) -> Sample:
    """The sample that `ref` asked for, with its photograph; `annotations` are the fields of Sample that say more."""
    return Sample(
        sample_id=ref.sample_id,
        image=image.data,
        height=image.height,
        width=image.width,
        group=ref.group,
        **annotations,
    )


def read_lines(root: str, path: str) -> list[str]:
    """The lines of a text file below the root. Raises InputError where it is missing or not UTF-8."""
    return lines_of(inside(root, path))


def lines_of(uri: str) -> list[str]:
    """The lines of a text file. Raises as `read_lines`."""
    try:
        return storage.read_bytes(uri, limit=MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: {error}; expected UTF-8 text: save the list as UTF-8") from error


def read_document(root: str, path: str) -> Any:
    """A strict JSON document below the root. Raises InputError where it is missing, too large or not valid."""
    return document_of(inside(root, path))


def document_of(uri: str) -> Any:
    """A strict JSON document. Raises as `read_document`."""
    try:
        return storage.read_json(uri, limit=MAX_DOCUMENT_BYTES)
    except CorruptError as error:
        raise InputError(str(error)) from error


def without_root(error: InputError, root: str, path: str) -> str:
    """What an error says of a file, by its path below the root: lists of bad files are a part of the version."""
    return str(error).replace(f"{root.rstrip('/')}/{path}", path)


def _leads_out(root: str, path: str) -> bool:
    """Whether links lead from `path` to somewhere outside of a local root."""
    local = storage.local_path(root)
    return local is not None and not (local / path).resolve().is_relative_to(local.resolve())


def chosen(root: str, path: str) -> str:
    """The URI of a file that an option names: below the root, or anywhere by an absolute path or a URI.

    Unlike names from data, an option is the user's word: the data may be read-only, and the file elsewhere. Raises
    InputError where a relative path, or a link below the root, leads out of the root.
    """
    if "://" in path or path.startswith(("/", "~")):
        return os.path.expanduser(path)
    if not is_inside(path):
        raise InputError(f"{path!r} leads out of {root}: give a path below it, or an absolute one")
    return inside(root, path)


def inside(root: str, path: str) -> str:
    """The URI of `path` below `root`. Raises InputError where links lead out of the root."""
    if _leads_out(root, path):
        raise InputError(f"{storage.join(root, path)}: is a link out of the root: copy the file into the root")
    return storage.join(root, path)


def is_inside(path: object) -> TypeGuard[str]:
    """Whether a name from data is a relative path that stays below the folder it is joined to."""
    if not isinstance(path, str) or "\\" in path or "\0" in path:
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))
