"""Recipes as text: YAML without its traps, `--set` overrides, and errors that name path, value and what was expected.

Knows nothing of what a recipe holds; `config/recipe.py` does.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segpipe.errors import InputError

M = TypeVar("M", bound=BaseModel)
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

MAX_RECIPE_BYTES = 1_000_000


class Strict(BaseModel):
    """Unknown keys are refused, values are not coerced (except int to float), instances are immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def validate(model: type[M], document: Any, origin: str, *, below: str = "") -> M:
    """A config from plain data. Raises InputError with every fault at once, its path and value.

    `origin` names the file in errors; `below` is the path of `document` in it ("architectures.0.train.").
    """
    try:
        _require_plain(document, below)
        # JSON mode: YAML lists become tuples and strings enums, while strictness stays for everything else.
        return model.model_validate_json(json.dumps(document, allow_nan=False))
    except RecursionError:
        raise InputError(f"{origin}: nested too deeply; a recipe has a handful of levels") from None
    except ValidationError as error:
        raise InputError(_explain(error, model, origin, below)) from None
    except (InputError, ValueError) as error:
        raise InputError(f"{origin}: {error}") from None


def _require_plain(value: Any, path: str) -> None:
    """Refuses what JSON has no word for, by its path: YAML also makes dates, bytes, sets and NaN."""
    where = path.rstrip(".") or "(top level)"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where}: the key {key!r} is not text; put it in quotes")
            _require_plain(item, f"{path}{key}.")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{path}{index}.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: {value} is not a number to work with; expected a finite one")
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{where}: {_shown(value)} holds half of a surrogate pair; write the character itself")
    elif value is not None and not isinstance(value, str | int | float):
        raise InputError(f"{where}: {_shown(value)} is a {type(value).__name__}; expected text or a number: quote it")


def _explain(error: ValidationError, model: type[BaseModel], origin: str, below: str) -> str:
    lines: dict[str, str] = {}
    faults = error.errors(include_url=False)
    for fault in faults:
        loc = fault["loc"]
        if fault["type"] == "too_short" and any(loc == other["loc"][: len(loc)] != other["loc"] for other in faults):
            continue  # pydantic counts the items that have no fault
        if loc and loc[-1] in ("str", "int", "float", "bool"):
            # One line for all branches of a union, which pydantic reports one by one.
            loc, fault["msg"] = loc[:-1], "Input should be text, a number, true or false"
        path = below + ".".join(str(part) for part in loc) or "(top level)"
        if fault["type"] == "extra_forbidden":
            known = _keys_at(model, loc[:-1])
            close = difflib.get_close_matches(str(loc[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            lines[path] = f"unknown key; {hint}expected one of: {', '.join(known)}"
        elif fault["type"] == "missing":
            lines[path] = "missing; this key is required"
        else:
            found = f" (found {_shown(fault['input'])})" if loc else ""  # nobody asks for the whole recipe
            lines[path] = f"{fault['msg'].removeprefix('Value error, ')}{found}"
    header = f"{origin}: {len(lines)} fault{'s' * (len(lines) > 1)} in the recipe"
    return "\n".join([header, *(f"  {path}: {text}" for path, text in lines.items())])


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return sorted(model.model_fields)


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one `key.path=value` (value in YAML; `architectures.0.arch` counts from 0) in place. Raises InputError."""
    path, sign, text = override.partition("=")
    if not sign or not path:
        raise InputError(f"--set {override!r}: expected KEY=VALUE, for example train.epochs=3")
    try:
        value = _parse_yaml(text)
    except InputError as error:
        raise InputError(f"--set {override!r}: {error}") from None
    *parents, last = path.split(".")
    node: Any = document
    for part in parents:
        node = _child(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise InputError(f"--set {override!r}: {last!r} lies below a plain value; give the path of a key")


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    if not isinstance(node, dict):
        raise InputError(f"--set {override!r}: {part!r} lies below a plain value; give the path of a key")
    if node.get(part) is None:  # absent, or written as `evaluate:` with nothing behind it
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(node):
        raise InputError(f"--set {override!r}: expected an index below {len(node)}, found {part!r}")
    return int(part)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without its traps: a key given twice (plain YAML keeps the last), keys that are not text, aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise InputError(
                f"line {event.start_mark.line + 1}: *{event.anchor} is an alias, and a few lines of those can stand "
                "for gigabytes; write the value out"
            )
        return super().compose_node(parent, index)


class _StrictDumper(yaml.SafeDumper):
    """Writes what `_StrictLoader` reads back."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise InputError(f"line {line}: the key {key!r} is not text; put it in quotes")
        if key in seen:
            raise InputError(f"line {line}: the key {key!r} is given twice; keep one")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 takes 1e-3 for text and wants 1.0e-3; nobody who writes a learning rate knows that.
for _kind in (_StrictLoader, _StrictDumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def dump_yaml(document: Any) -> str:
    """The YAML text from which `read_yaml` gives `document` again."""
    return yaml.dump(document, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except RecursionError:
        raise InputError("nested too deeply; a recipe has a handful of levels") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 13th month, an integer of 5,000 digits
        raise InputError(f"not valid YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The plain data of a recipe file. Raises InputError, naming file and line."""
    try:
        size = path.stat().st_size
        if not path.is_file():  # opening a named pipe would wait for ever
            raise InputError("is a folder or a device; expected a recipe file")
        if size > MAX_RECIPE_BYTES:
            raise InputError(f"{size} bytes; a recipe has at most {MAX_RECIPE_BYTES}")
        return _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe; the ones that ship are in flows/recipes/") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}; expected UTF-8 text: save the recipe as UTF-8") from None
    except (InputError, ValueError) as error:  # ValueError: a path that holds NUL
        raise InputError(f"{path}: {error}") from None
