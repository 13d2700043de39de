"""Strict JSON documents, and folders of numbered records that only grow (a dataset's log, the promotion ledger).

Canonical JSON is what is hashed and compared: sorted keys, ASCII, one space of indent, no NaN, a newline at the end.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.storage.files import read_bytes, write_once
from segpipe.storage.inventory import list_names
from segpipe.storage.uris import join

MAX_JSON_BYTES = 128 << 20  # an evaluation report of 5,000 images over 150 classes is about 25 MB
_RECORD = re.compile(r"[0-9]{6,12}\.json")


def canonical_json(document: Any) -> bytes:
    """The one spelling of a document. Raises InputError on NaN, infinity, or what JSON cannot say."""
    try:
        return (json.dumps(document, sort_keys=True, allow_nan=False, indent=1) + "\n").encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"this document cannot be stored as JSON: {error}; expected plain finite data") from error


def write_json_once(uri: str, document: Any) -> bool:
    """`write_once` of the canonical JSON."""
    return write_once(uri, canonical_json(document))


def read_json(uri: str, *, limit: int = MAX_JSON_BYTES) -> Any:
    """A JSON document. Raises InputError when missing or longer than `limit` bytes, CorruptError as `parse_json`."""
    return parse_json(read_bytes(uri, limit=limit), where=uri)


def parse_json(data: bytes, *, where: str) -> Any:
    """Strict JSON: UTF-8, no NaN or infinity, no key twice, no half of a surrogate pair. `where` names it in errors.

    Raises CorruptError. Python's own parser lets all of these pass, the last of two equal keys winning silently.
    """
    try:
        text = data.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{where}: not a valid JSON document: {error}; restore it or write it again") from error
    return document


def record_uri(folder_uri: str, number: int) -> str:
    """Where record `number` (from 1) of a folder lies."""
    return join(folder_uri, f"{number:06d}.json")


def append_record(folder_uri: str, document: dict[str, Any], *, after: int) -> int:
    """Writes record `after + 1`, if nobody has; gives its number.

    This is a compare-and-set: the caller read the folder up to `after` and decided on that. The very same record
    already there counts as success. Raises ConflictError when another one is: read the new head and decide again.
    """
    if after < 0:
        raise InputError(f"{folder_uri}: a record cannot follow number {after}; the first one follows 0")
    try:
        write_json_once(record_uri(folder_uri, after + 1), document)
    except ConflictError as error:
        raise ConflictError(f"{error} (record {after + 1} was appended by somebody else meanwhile)") from error
    return after + 1


def records(folder_uri: str) -> list[tuple[int, dict[str, Any]]]:
    """All records in order, `[]` for an absent folder. Raises CorruptError on a gap or a file that is no record."""
    return [(number, _read_record(folder_uri, number)) for number in range(1, _count(folder_uri) + 1)]


def last_record(folder_uri: str) -> tuple[int, dict[str, Any]] | None:
    """The newest record, without reading the others; None when there is none. Raises as `records`."""
    count = _count(folder_uri)
    return (count, _read_record(folder_uri, count)) if count else None


def _count(folder_uri: str) -> int:
    names = list_names(folder_uri)
    strange = [name for name in names if not _RECORD.fullmatch(name)]
    if strange:
        raise CorruptError(f"{folder_uri}: {strange[0]!r} is no numbered record; move it out of this folder")
    numbers = sorted(int(name.removesuffix(".json")) for name in names)
    if numbers != list(range(1, len(numbers) + 1)):
        gap = next(place for place, number in enumerate(numbers, 1) if place != number)
        raise CorruptError(f"{folder_uri}: record {gap} is missing or doubled; restore it from a copy of the folder")
    return len(numbers)


def _read_record(folder_uri: str, number: int) -> dict[str, Any]:
    document = read_json(record_uri(folder_uri, number))
    if not isinstance(document, dict):
        raise CorruptError(
            f"{record_uri(folder_uri, number)}: a record is an object, found {type(document).__name__}; restore it "
            "from a copy of the folder"
        )
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return document


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is beyond the range of a float")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
