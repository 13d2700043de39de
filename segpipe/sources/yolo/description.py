"""data.yaml, or classes.txt: the names of the classes, and which photographs are of which split. Part of `yolo`."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading import inside, read_lines

FILE, NAMES_ALONE = "data.yaml", "classes.txt"
MAX_YAML_BYTES = 1_000_000
# A key -> our split; the long word is an older spelling, which counts where there is no `val`.
KEYS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


class Description(NamedTuple):
    """What the file says, as written: of each class its name and whether it is a thing; `path`, where the dataset lay;
    and for each split that it names the folders, or the lists, of its photographs."""

    names: tuple[str, ...]
    things: tuple[bool, ...]
    path: str = ""
    splits: tuple[tuple[str, tuple[str, ...]], ...] = ()


class _WordsSafeLoader(yaml.SafeLoader):
    """Every scalar as it is written: `no` and 2020-01-01 are names of classes here, no truth and no date."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as its base class has it

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """No merge keys: a dozen lines of merges of merges are copied out into billions of entries."""


def read_description(root: str) -> Description:
    """Reads data.yaml, else classes.txt. Raises InputError where there is neither, or no list of names in it."""
    if not storage.exists(storage.join(root, FILE)):
        if not storage.exists(storage.join(root, NAMES_ALONE)):
            raise InputError(f"{root}: neither {FILE} nor {NAMES_ALONE} is here; expected the names of the classes")
        listed = tuple(line.strip() for line in read_lines(root, NAMES_ALONE) if line.strip())
        return Description(listed, (True,) * len(listed))
    uri = inside(root, FILE)
    try:
        document = yaml.load(storage.read_bytes(uri, limit=MAX_YAML_BYTES), Loader=_WordsSafeLoader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{uri}: {error}; expected YAML with `names`: mend the file") from error
    names = _names(document.get("names") if isinstance(document, dict) else None, uri)
    path = document.get("path", "")
    return Description(
        names,
        _things(document.get("isthing"), len(names), uri),
        path if isinstance(path, str) else "",
        tuple(_splits(document, uri).items()),
    )


def _names(names: Any, uri: str) -> tuple[str, ...]:
    if isinstance(names, Mapping) and set(names) == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        shown = reprlib.repr(names)  # not all of it: aliases can make it endless
        raise InputError(f"{uri}: names is {shown}; expected a list, or a mapping from 0, 1, 2, ... to names")
    return tuple(names)


def _things(things: Any, classes: int, uri: str) -> tuple[bool, ...]:
    """All are, unless `isthing` (0 or 1 for each) tells otherwise, as where the classes of a label map with its
    background were exported."""
    if things is None:
        return (True,) * classes
    if not isinstance(things, list) or len(things) != classes or any(each not in ("0", "1") for each in things):
        shown = reprlib.repr(things)
        raise InputError(f"{uri}: isthing is {shown}; expected a list of 0 and 1, one for each of {classes} names")
    return tuple(each == "1" for each in things)


def _splits(document: Mapping[str, Any], uri: str) -> dict[str, tuple[str, ...]]:
    """Split -> its folders or lists; a key without a value is a split that there is not."""
    found: dict[str, tuple[str, ...]] = {}
    for key, split in KEYS.items():
        value = document.get(key) or []
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            shown = reprlib.repr(value)
            raise InputError(f"{uri}: {key} is {shown}; expected a folder of photographs, a list of them, or several")
        if entries:
            found[split] = tuple(entries)
    return found
