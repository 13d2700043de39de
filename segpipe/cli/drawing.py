"""How anything is shown to a person: paragraphs and tables on a rich console, free of control characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segpipe.cli.answering import printable
from segpipe.stages.numbers import split_order

MARKS = {"ok": "green", "warn": "yellow", "fail": "red", "promoted": "green", "kept": "yellow", "refused": "red"}
_NUMBER = re.compile(r"[\d.,]+( (bytes?|kB|MB|GB))?|-")


def say(console: Console, text: object, style: str = "") -> None:
    """One paragraph, free of markup and control characters, broken nowhere but at its end."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; numbers stand right, words that have a colour in `MARKS` get it."""
    if title:  # not as the table's own, which is broken at the table's width
        say(console, title, "italic")
    drawn = Table(header_style="bold")
    lines = [[printable(cell) for cell in row] for row in rows]
    for at, column in enumerate(columns):
        numeric = bool(lines) and all(_NUMBER.fullmatch(line[at]) for line in lines)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        drawn.add_row(*(Text(cell, style=MARKS.get(cell, "")) for cell in line))
    console.print(drawn)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def by_split(splits: Mapping[str, int]) -> list[tuple[str, int]]:
    """The number of each split, in the order in which one thinks of them."""
    return [(name, splits[name]) for name in split_order(splits)]
