"""The classes file of a user's dataset: classes.txt (a name a line) or classes.json (name, id, colour, ignore, thing).

It says which raw mask value is which class, which values are void, and which colour means which class in RGB masks.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.reading import chosen, class_colour, value_table
from segpipe.types import IGNORE_16BIT, ClassInfo

Colour = tuple[int, int, int]

FILE_NAMES = ("classes.json", "classes.txt")
MAX_BYTES = 4_000_000
_KEYS = {"name", "id", "colour", "ignore", "thing"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTable:
    """Class k is classes[k]; `table` takes raw mask values to class ids (void to `ignore_index`); `palette` takes the
    colours of RGB masks to raw values, empty where the file gives none."""

    classes: tuple[ClassInfo, ...]
    ignore_index: int
    table: dict[int, int]
    palette: dict[Colour, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    name: str
    raw: int
    colour: Colour | None = None
    ignore: bool = False
    thing: bool = False


def read_classes(root: str, name: str, *, ignore: int, reduce_zero: bool) -> ClassTable:
    """Reads `name`, below `root` or anywhere ("" = classes.json or classes.txt, whichever is there).

    Raises InputError.
    """
    candidates = (name,) if name else FILE_NAMES
    found = [uri for file in candidates if storage.exists(uri := chosen(root, file))]
    if len(found) != 1:
        problem = f"both {' and '.join(FILE_NAMES)} are here, keep one" if found else "there is no such file"
        raise InputError(
            f"{root}: classes file {' or '.join(candidates)}: {problem}; expected classes.txt with a class name a line "
            '(line 1 is mask value 0), or classes.json with a list of {"name", "id", "colour", "ignore", "thing"}'
        )
    uri = found[0]
    try:
        text = storage.read_bytes(uri, limit=MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: {error}; expected UTF-8 text: save the file as UTF-8") from error
    if uri.endswith(".json"):
        entries = list(_json_entries(uri, text))
    elif uri.endswith(".txt"):
        entries = list(_text_entries(uri, text))
    else:
        raise InputError(f"{uri}: expected a .txt or a .json file: write the classes as {' or '.join(FILE_NAMES)}")
    return _table(uri, entries, ignore=ignore, reduce_zero=reduce_zero)


def _table(uri: str, entries: list[_Entry], *, ignore: int, reduce_zero: bool) -> ClassTable:
    kept = [entry for entry in entries if not entry.ignore]
    for what, values in (
        ("name", [entry.name for entry in entries]),
        ("id", [entry.raw for entry in entries]),
        ("colour", [entry.colour for entry in entries if entry.colour]),
    ):
        if twice := [value for value, times in Counter(values).items() if times > 1]:
            raise InputError(f"{uri}: the {what} {twice[0]!r} is given twice; expected each {what} once: change one")
    table, ignore_index = value_table(
        uri,
        {entry.raw: entry.name for entry in kept},
        void=[entry.raw for entry in entries if entry.ignore],
        ignore=ignore,
        reduce_zero=reduce_zero,
    )
    return ClassTable(
        classes=tuple(
            ClassInfo(name=entry.name, colour=entry.colour or class_colour(number + 1), is_thing=entry.thing)
            for number, entry in enumerate(kept)
        ),
        ignore_index=ignore_index,
        table=table,
        palette={entry.colour: entry.raw + int(reduce_zero) for entry in entries if entry.colour is not None},
    )


def _text_entries(uri: str, text: str) -> Iterator[_Entry]:
    lines = text.rstrip().splitlines()
    if lines and all(re.match(r"\d+[\s,:;=]+\S", line) for line in lines):
        raise InputError(
            f"{uri}: line 1 is {lines[0]!r}, and every line begins with a number; expected names alone, in the "
            "order of their mask values (line 1 is 0): take the numbers out, or write ids down in classes.json"
        )
    for number, line in enumerate(lines):
        if not line.strip():
            raise InputError(
                f"{uri}: line {number + 1} is empty, which would shift the ids after it; expected a class name: "
                "name the class, or use classes.json, where ids are written down"
            )
        yield _Entry(name=line.strip(), raw=number)


def _json_entries(uri: str, text: str) -> Iterator[_Entry]:
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{uri}: {error}; expected strict JSON: mend the file") from error
    if not isinstance(document, list):
        raise InputError(f'{uri}: a {type(document).__name__}; expected a list of {{"name": ..., "id": ...}}')
    for number, item in enumerate(document):
        where = f"{uri}: classes[{number}]"
        if isinstance(item, dict) and (unknown := sorted(map(str, set(item) - _KEYS))):
            close = difflib.get_close_matches(unknown[0], _KEYS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(f"{where}: unknown key {unknown[0]!r}; {hint}expected only {sorted(_KEYS)}")
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            raise InputError(
                f"{where}: {item!r:.120}; expected an object with a name and only the keys {sorted(_KEYS)}"
            )
        for key in ("ignore", "thing"):
            if not isinstance(item.get(key, False), bool):
                raise InputError(f"{where}.{key}: {item[key]!r}; expected true or false")
        raw = item.get("id", number)
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < IGNORE_16BIT:
            raise InputError(f"{where}.id: {raw!r}; expected the mask value of the class, 0 to {IGNORE_16BIT - 1}")
        yield _Entry(
            name=item["name"],
            raw=raw,
            colour=_colour(f"{where}.colour", item["colour"]) if "colour" in item else None,
            ignore=item.get("ignore", False),
            thing=item.get("thing", False),
        )


def _colour(where: str, value: Any) -> Colour:
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError as error:
            raise InputError(f'{where}: {value!r}; expected [red, green, blue] or "#rrggbb"') from error
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value)
    ):
        raise InputError(f'{where}: {value!r}; expected [red, green, blue], each 0 to 255, or "#rrggbb"')
    return value[0], value[1], value[2]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError(f"a key is given twice among {[key for key, _ in pairs]}")
    return document
