"""The frozen dataclasses of segpipe as plain JSON data, and back again without trust.

Everything that one stage leaves for another (`report.json`, `train.json`, `model.json`, a manifest) passes through
these two functions, between `storage.write_json_once` and `storage.read_json`. The type hints are the schema: there is
no second description to keep in step. Standard library only.

What the hints may be made of: str, int, float, bool, None, StrEnum, Literal, dataclasses, `tuple[X, ...]`,
`tuple[X, Y]`, `Mapping[str, X]`, `X | None`, and Any for plain JSON data that someone else checks.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from segpipe.errors import CorruptError, NonFiniteError

T = TypeVar("T")
Reader = Callable[[Any], Any]


class _MismatchError(Exception):
    """A value that is not what its hint says; `path` grows from the leaf outwards while the error travels up."""

    def __init__(self, expected: str, found: object) -> None:
        super().__init__(expected)
        self.expected, self.found = expected, found
        self.path: list[str] = []


def to_plain(value: object) -> Any:
    """The dicts, lists, strings and numbers that `value` is made of, ready for strict JSON.

    Takes dataclasses, mappings with string keys, tuples, lists, StrEnums and JSON's own scalars, nested as they come.
    Raises NonFiniteError for NaN and infinity (JSON has neither) and TypeError for anything else, each with its path.
    """
    return _plain(value, type(value).__name__)


def from_plain(cls: type[T], document: object, *, origin: str) -> T:
    """An instance of the dataclass `cls` from what `to_plain` made of it; `origin` (a URI) names it in errors.

    Strict: every field must be there (but those that came later, which have a default) and no other; nothing is coerced
    except an int where a float is expected; NaN and infinity are refused. Lists become tuples where the hint says so.
    Raises CorruptError with origin, path and value.
    """
    hint: Any = cls
    try:
        instance: T = _reader(hint)(document)
    except _MismatchError as mismatch:
        path = "".join(reversed(mismatch.path)).lstrip(".") or "(top level)"
        raise CorruptError(
            f"{origin}: {path}: expected {mismatch.expected}, found {_shown(mismatch.found)}; this file is not what "
            f"this segpipe writes as {cls.__name__}: it was changed, or another version wrote it. Restore it (or that "
            "version), or move it away and run its stage again"
        ) from None
    return instance


def _plain(value: object, path: str) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NonFiniteError(f"{path}: {value} cannot be stored as JSON; expected a finite number, or None")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = [f for f in dataclasses.fields(value) if not (_is_later(f) and getattr(value, f.name) == f.default)]
        return {f.name: _plain(getattr(value, f.name), f"{path}.{f.name}") for f in written}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{path}: the key {key!r} is a {type(key).__name__}; JSON keys are strings")
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{path}: a {type(value).__name__} has no plain form; store it elsewhere and keep its URI here")


def _is_later(field: dataclasses.Field[Any]) -> bool:
    """Whether files may lack it (`types.LATER`)."""
    return bool(field.metadata.get("later"))


@cache
def _reader(hint: Any) -> Reader:
    """The function that checks and builds a value of `hint`. Made once per hint: reports hold millions of integers."""
    if hint is Any:
        return _read_any
    if hint in _SCALARS:
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum_reader(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _literal_reader(arguments)
    if origin in (Union, types.UnionType) and len(arguments) == 2 and types.NoneType in arguments:
        return _optional_reader(_reader(next(a for a in arguments if a is not types.NoneType)))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence_reader(_reader(arguments[0]))
    if origin is tuple:
        return _fixed_reader(tuple(_reader(argument) for argument in arguments))
    if origin is Mapping:
        return _mapping_reader(_reader(arguments[0]), _reader(arguments[1]))
    raise TypeError(f"the hint {hint!r} has no plain form; segpipe/reports.py lists the hints that do")


def _read_str(value: Any) -> str:
    if type(value) is not str:
        raise _MismatchError("a string", value)
    return value


def _read_int(value: Any) -> int:
    if type(value) is not int:  # isinstance would let True pass for 1
        raise _MismatchError("an integer", value)
    return value


def _read_float(value: Any) -> float:
    # a comparison, as NaN fails it too and math.isfinite overflows on large integers
    if type(value) not in (int, float) or not -(2**1023) < value < 2**1023:
        raise _MismatchError("a finite number", value)
    return float(value)


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _MismatchError("true or false", value)
    return value


def _read_none(value: Any) -> None:
    if value is not None:
        raise _MismatchError("null", value)


def _read_any(value: Any) -> Any:
    if isinstance(value, float):
        return _read_float(value)
    if isinstance(value, list):
        return [_at(f"[{i}]", _read_any, item) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {_read_str(key): _at(f".{key}", _read_any, item) for key, item in value.items()}
    if value is not None and not isinstance(value, str | int):
        raise _MismatchError("plain JSON data", value)
    return value


_SCALARS: Mapping[Any, Reader] = {
    str: _read_str,
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    types.NoneType: _read_none,
}


def _at(step: str, read: Reader, value: Any) -> Any:
    try:
        return read(value)
    except _MismatchError as mismatch:
        mismatch.path.append(step)
        raise


def _enum_reader(cls: type[StrEnum]) -> Reader:
    members = {str(member.value): member for member in cls}

    def read(value: Any) -> StrEnum:
        if type(value) is not str or value not in members:
            raise _MismatchError(f"one of {', '.join(members)}", value)
        return members[value]

    return read


def _literal_reader(choices: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise _MismatchError(f"one of {', '.join(map(repr, choices))}", value)
        return value

    return read


def _optional_reader(inner: Reader) -> Reader:
    return lambda value: None if value is None else inner(value)


def _sequence_reader(inner: Reader) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        items = _read_list(value)
        try:
            return tuple(map(inner, items))  # the usual case, without a path for each of a million integers
        except _MismatchError:
            return tuple(_at(f"[{i}]", inner, item) for i, item in enumerate(items))

    return read


def _fixed_reader(inners: tuple[Reader, ...]) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if len(_read_list(value)) != len(inners):
            raise _MismatchError(f"a list of {len(inners)}", value)
        return tuple(_at(f"[{i}]", inner, item) for i, (inner, item) in enumerate(zip(inners, value, strict=True)))

    return read


def _mapping_reader(read_key: Reader, read_value: Reader) -> Reader:
    def read(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise _MismatchError("an object", value)
        return {read_key(key): _at(f".{key}", read_value, item) for key, item in value.items()}

    return read


def _dataclass_reader(cls: type) -> Reader:
    hints = get_type_hints(cls)
    readers = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(cls)}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _MismatchError(f"an object ({cls.__name__})", value)
        unknown = sorted(str(key) for key in value.keys() - readers.keys())
        if unknown:
            raise _MismatchError(f"only the fields of {cls.__name__}", f"also {', '.join(unknown)}")
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in value and not _is_later(f)]
        if missing:
            raise _MismatchError(f"every field of {cls.__name__}", f"none called {', '.join(missing)}")
        return cls(**{name: _at(f".{name}", inner, value[name]) for name, inner in readers.items() if name in value})

    return read


def _read_list(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _MismatchError("a list", value)
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
