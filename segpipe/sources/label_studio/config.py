"""The labelling configuration of a Label Studio project: which classes there are, in which order. Part of
`label_studio`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading import chosen, class_colour
from segpipe.types import IGNORE_16BIT, ClassInfo

CONFIG = "labelling_config.xml"
MAX_BYTES = 4_000_000
PIXEL_TAGS = ("BrushLabels", "PolygonLabels", "Labels")
_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


class Config(NamedTuple):
    """`image_key` is the key of a task's data that tells its photograph."""

    classes: tuple[ClassInfo, ...]
    image_key: str


def read_config(root: str, name: str) -> Config | None:
    """Reads `name`, below `root` or anywhere; "" is labelling_config.xml, None where there is none. Raises InputError.

    A document type is refused, and with it every entity that could be declared: no configuration has one.
    """
    uri = chosen(root, name or CONFIG)
    if not name and not storage.exists(uri):
        return None
    data = storage.read_bytes(uri, limit=MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
        if "<!" in text.replace("<!--", "").replace("<![CDATA[", ""):
            raise InputError(f"{uri}: declares a document type; a labelling configuration has none: remove it")
        tags = list(ElementTree.fromstring(text).iter())  # noqa: S314 - without a document type there are no entities
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{uri}: {error}; expected the XML of a labelling configuration: copy it again") from error
    infos = list(dict.fromkeys(_labels(tags)))
    names = [name for name, _, _ in infos]
    if not 0 < len(names) < IGNORE_16BIT or len(set(names)) < len(names):
        raise InputError(
            f"{uri}: {len(names)} labels of {', '.join(PIXEL_TAGS)}; expected at least one, and the same colour and "
            "hint wherever a label is named"
        )
    images = [tag.get("value", "") for tag in tags if tag.tag == "Image"]
    classes = tuple(
        ClassInfo(name=name, colour=colour or class_colour(k + 1), is_thing=is_thing)
        for k, (name, colour, is_thing) in enumerate(infos)
    )
    return Config(classes, images[0].removeprefix("$") if images and images[0].startswith("$") else "image")


def _labels(tags: list[ElementTree.Element]) -> Iterator[tuple[str, tuple[int, int, int] | None, bool]]:
    """Name, colour and whether it is a thing: everything, unless its hint says "stuff"."""
    for parent in tags:
        if parent.tag not in PIXEL_TAGS:
            continue
        for label in parent.iter("Label"):
            found = _COLOUR.fullmatch(label.get("background", ""))
            colour = None if found is None else (int(found[1], 16), int(found[2], 16), int(found[3], 16))
            if label.get("value"):
                yield label.get("value", ""), colour, label.get("hint") != "stuff"
