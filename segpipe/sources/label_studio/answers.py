"""What an export of Label Studio says of its tasks, checked. Part of `label_studio`.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from segpipe import masks, storage
from segpipe.errors import InputError
from segpipe.sources.reading import is_number, read_document

_EXPORTED = re.compile(r"project-.*\.json")
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what the program puts before the name of a file that was sent to it
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIXELS = ("brushlabels", "polygonlabels", "labels")
# Regions of a photograph that tell no pixels; anything else that is no region (choices, texts) is not looked at.
_NO_PIXELS = ("rectanglelabels", "ellipselabels", "keypointlabels", "rectangle", "ellipse", "keypoint", "bitmask")
_BARE = ("brush", "polygon")  # the region itself where its label is a result of its own


class Answer(NamedTuple):
    """One task. `regions` are plain data in the order of the answer, None where no person answered; `fault` says why
    the answer cannot be used. `address` is the path of the photograph, `size` its [height, width] if the answer tells
    it; `others` that there is more than one answer."""

    item: str
    address: str
    group: str
    image_sha256: str
    regions: list[dict[str, Any]] | None
    size: list[int] | None
    others: bool
    fault: str


def find_export(root: str, name: str) -> str:
    """The path of the export below the root. Raises InputError unless there is just one."""
    if name:
        if not storage.exists(storage.join(root, name)):
            raise InputError(f"{root}: option export={name!r}: there is no such file: mend the name")
        return name
    found = [each for each in storage.list_names(root, suffix=".json") if _EXPORTED.fullmatch(each)]
    if len(found) != 1:
        raise InputError(
            f"{root}: {len(found)} files project-*.json here ({', '.join(found[:3]) or 'none'}); expected one, as "
            "Label Studio exports it (Export, JSON): copy it here, or name it by the option export"
        )
    return found[0]


@functools.lru_cache(maxsize=4)
def parsed(root: str, path: str, image_key: str, stamp: str) -> tuple[Answer, ...]:
    """Every task of the export. Asked several times: for the classes and for the index. Raises InputError."""
    document = read_document(root, path)
    if not isinstance(document, list) or not all(isinstance(task, dict) for task in document):
        raise InputError(
            f"{storage.join(root, path)}: {document!r:.60}; expected a list of tasks: export them as JSON, not as "
            "JSON-MIN or CSV"
        )
    if document and not any("annotations" in task for task in document):
        raise InputError(
            f"{storage.join(root, path)}: no task has annotations, only {', '.join(sorted(document[0]))[:80]}; "
            "expected what Label Studio exports as JSON: tasks for import and JSON-MIN are something else"
        )
    return tuple(_answer(number, task, image_key) for number, task in enumerate(document))


def pixels_of(region: Mapping[str, Any], height: int, width: int, where: str) -> masks.Mask:
    """The pixels (H, W) of a region, 0 or 1. Raises BadSampleError."""
    if "rle" in region:
        return masks.decode_brush(bytes.fromhex(region["rle"]), height, width, file=where)
    # Points are in per cent of the photograph.
    corners = np.array(region["points"], dtype=np.float64) * (width / 100, height / 100)
    return masks.polygon_to_mask([corners], height, width, file=where)


def _answer(number: int, task: Mapping[str, Any], image_key: str) -> Answer:
    data = task.get("data")
    data = data if isinstance(data, dict) else {}
    identity, group, sha256 = task.get("id"), data.get("group"), data.get("image_sha256")
    answer = Answer(
        item=f"task {identity}" if isinstance(identity, int) and not isinstance(identity, bool) else f"[{number}]",
        address=_path_of(data.get(image_key)),
        group=group if isinstance(group, str) else "",
        image_sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else "",
        regions=None,
        size=None,
        others=False,
        fault="",
    )
    annotations = task.get("annotations", [])
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        return answer._replace(fault=f"annotations is {annotations!r:.60}; expected a list of objects")
    given = [each for each in annotations if each.get("was_cancelled") is not True]
    if not given:
        return answer
    if not answer.address:
        return answer._replace(
            fault=f"data.{image_key} is {data.get(image_key)!r:.80}; expected where the photograph is"
        )
    best = max(given, key=lambda each: (each.get("ground_truth") is True, str(each.get("updated_at", ""))))
    regions, size, fault = _regions(best.get("result"))
    return answer._replace(regions=regions, size=size, fault=fault, others=len(given) > 1)


def _path_of(address: object) -> str:
    """The path in what a task calls its photograph: a file of the server's, one that was uploaded, a URL, a path."""
    if not isinstance(address, str):
        return ""
    try:
        parts = urlsplit(address)
        named = parse_qs(parts.query).get("d", []) if parts.path.endswith("/local-files/") else []
    except ValueError:
        return ""
    path = named[0] if named else unquote(parts.path)
    before, _, name = path.rpartition("/")
    return f"{before}/{_UPLOADED.sub('', name, count=1)}" if "/upload/" in f"{before}/" else path


def _regions(result: object) -> tuple[list[dict[str, Any]], list[int] | None, str]:
    """The regions of an answer with their labels, the size that they were drawn on, and the first fault."""
    if not isinstance(result, list) or not all(isinstance(each, dict) for each in result):
        return [], None, f"result is {result!r:.60}; expected a list of regions"
    labelled = {each.get("id") for each in result if each.get("type") in _PIXELS and isinstance(each.get("id"), str)}
    found, sizes = [], list[list[int]]()
    for place, each in enumerate(result):
        kind = each.get("type")
        bare = kind in _BARE and isinstance(each.get("id"), str) and each["id"] in labelled
        if kind not in (*_PIXELS, *_BARE, *_NO_PIXELS) or bare:
            continue
        if kind not in _PIXELS:
            why = "is a region without a label" if kind in _BARE else "tells no pixels"
            return [], None, f"result[{place}] of type {kind} {why}; expected labels of a brush or a polygon"
        region = _region(each, kind)
        if isinstance(region, str):
            return [], None, f"result[{place}]: {region}"
        found.append(region)
        sizes.append([each["original_height"], each["original_width"]])
    if any(size != sizes[0] for size in sizes):
        return [], None, f"regions were drawn on {sizes[0]} and on other sizes"
    return found, sizes[0] if sizes else None, ""


def _region(each: Mapping[str, Any], kind: str) -> dict[str, Any] | str:
    """One region, or what is wrong with it."""
    value = each.get("value")
    labels = value.get(kind) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(labels, list) or len(labels) != 1 or not _is_name(labels[0]):
        return f"{kind} is {labels!r:.60}; expected one label"
    size = [each.get("original_height"), each.get("original_width")]
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 10**6 for side in size):
        return f"original_height and original_width are {size!r:.60}; expected pixels"
    if each.get("image_rotation", 0) not in (0, None):
        return f"image_rotation is {each['image_rotation']!r:.20}; expected 0: a photograph that was turned is not read"
    if "rle" in value:
        rle = value["rle"]
        try:  # kept as text: a list of as many numbers takes four times the memory
            packed = bytes(rle).hex() if isinstance(rle, list) else ""
        except (TypeError, ValueError):
            packed = ""
        return {"label": labels[0], "rle": packed} if packed else f"rle is {rle!r:.60}; expected a list of bytes"
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(_is_point(point) for point in points):
        return f"points is {points!r:.60}; expected at least three pairs of per cents"
    return {"label": labels[0], "points": points}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(part) and abs(part) < 1e4 for part in value)
