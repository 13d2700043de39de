"""How anything is shown to a person: paragraphs and tables on a rich console, free of control characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segpipe.cli.answering import printable
from segpipe.stages.numbers import split_order

MARKS = dict.fromkeys(("ok", "promoted"), "green")
MARKS |= dict.fromkeys(("warn", "kept", "forced", "rollback"), "yellow")
MARKS |= dict.fromkeys(("fail", "refused"), "red")
_NUMBER = re.compile(r"[\d.,]+( (bytes?|kB|MB|GB))?|-")


def say(console: Console, text: object, style: str = "") -> None:
    """One paragraph, free of markup and control characters, broken nowhere but at its end."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def points(console: Console, texts: Iterable[str]) -> None:
    """One point for each text: on a terminal broken between words, with what follows set in as it begins."""
    if not console.is_terminal:
        for text in texts:
            say(console, f"  - {text}")
        return
    grid = Table.grid(padding=(0, 1))
    for text in texts:
        grid.add_row(" ", "-", Text(printable(text), overflow="fold"))
    console.print(grid)


def figure(console: Console, text: str) -> None:
    """A drawing made of lines, which are broken nowhere; of one that is too wide it says so."""
    lines = text.splitlines()
    widest = max(map(len, lines), default=0)
    if not console.is_terminal or widest <= console.width:
        say(console, text)
        return
    for line in lines:
        console.print(Text(printable(line)), no_wrap=True, overflow="ellipsis")
    say(
        console,
        f"(cut off: the figure has {widest} columns, this terminal {console.width}; widen it, or add | less -S)",
    )


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
