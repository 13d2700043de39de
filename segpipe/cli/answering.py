"""How every command answers: one document or one view on standard output, everything else on standard error.

Ray, MLflow and their child processes print when they like, so standard output is taken away from them while a command
works. Errors that segpipe understands become a message and an exit status; anything else is a bug, and its traceback
goes to a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from segpipe.cli.progress import ingest_lines, resumed, training_lines
from segpipe.errors import SegpipeError
from segpipe.types import TrainProgress

INTERRUPTED = 130
BUG = 1
# Of a table that goes to a file or a pipe: wide enough that nothing is cut.
PIPE_WIDTH = 160

View = Callable[[Console, Any], None]


class Answer:
    """What a command has to say; the last call of it stands."""

    def __init__(self) -> None:
        self.result: object = None
        self.view: View = lambda console, result: None
        self.status = 0

    def __call__(self, result: object, view: View, *, status: int = 0) -> None:
        """`result`, dataclasses or plain data, is what --json prints; `view` shows it to people; `status` is the exit
        status."""
        self.result, self.view, self.status = result, view, status


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """The body of every command. Prints its answer and leaves with its exit status, or with that of its error."""
    answer = Answer()
    with _own_stdout() as out:
        try:
            yield answer
        except KeyboardInterrupt:
            _fail(out, as_json, "Interrupted", "stopped by you; the same command continues from here", INTERRUPTED)
        except SegpipeError as error:
            _fail(out, as_json, type(error).__name__, str(error), error.exit_status)
        except typer.Exit:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost place: a bug, told as one
            _fail(out, as_json, type(error).__name__, _bug(error), BUG)
        if as_json:
            print(json.dumps(_plain(answer.result), indent=1, allow_nan=False), file=out)
        else:
            answer.view(Console(file=out, width=None if out.isatty() else PIPE_WIDTH), answer.result)
    if answer.status:
        raise typer.Exit(answer.status)


@contextlib.contextmanager
def steps(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner on standard error, and a function that notes each step with the seconds since the start."""
    console, started = Console(stderr=True), time.monotonic()
    with console.status(title) as status:

        def note(step: str) -> None:
            console.print(f"{time.monotonic() - started:7.1f} s  {step}", markup=False, highlight=False)
            status.update(step)

        yield note


class Bars:
    """On standard error: steps with the seconds since the start, and a bar for each piece of long work."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._started = progress, time.monotonic()
        self._bars: dict[str, TaskID] = {}

    def note(self, step: str) -> None:
        seconds = time.monotonic() - self._started
        self._progress.console.print(f"{seconds:7.1f} s  {step}", markup=False, highlight=False)

    def ingest(self, name: str, done: int, total: int) -> None:
        """Moves the bar of a dataset, or of work on its samples."""
        self._move(name, done, total, "samples")

    def training(self, label: str, news: TrainProgress) -> None:
        """Moves the bar of a training; says so where it goes on from a checkpoint."""
        if label not in self._bars and news.resumed_at:
            self.note(resumed(label, news))
        loss = news.metrics.get("train/loss")
        self._move(label, news.step, news.total_steps, None if loss is None else f"steps loss {loss:.3f}")

    def _move(self, name: str, done: int, total: int, unit: str | None) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, completed=done, unit="")
        if unit is not None:
            self._progress.update(self._bars[name], unit=unit)
        self._progress.update(self._bars[name], completed=done)


class Lines:
    """The same where standard error is a file or a pipe: a line a tenth of the way, when it is reached."""

    def __init__(self, console: Console) -> None:
        self._console, self._started = console, time.monotonic()
        self._ingests: dict[str, Callable[[int, int], None]] = {}
        self._trainings: dict[str, Callable[[TrainProgress], None]] = {}

    def note(self, step: str) -> None:
        seconds = time.monotonic() - self._started
        self._console.print(f"{seconds:7.1f} s  {step}", markup=False, highlight=False, soft_wrap=True)

    def ingest(self, name: str, done: int, total: int) -> None:
        """Says how far a dataset is, or work on its samples."""
        self._ingests.setdefault(name, ingest_lines(self.note, name))(done, total)

    def training(self, label: str, news: TrainProgress) -> None:
        """Says how far a training is."""
        self._trainings.setdefault(label, training_lines(self.note, label))(news)


@contextlib.contextmanager
def bars() -> Iterator[Bars | Lines]:
    """A screen of bars that is there while the work runs, or lines where nobody sees a screen."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


def printable(text: object) -> str:
    """`text` for a terminal: names come from data, and a control sequence in one must not drive the screen."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))


def _fail(out: TextIO, as_json: bool, kind: str, message: str, status: int) -> NoReturn:
    typer.echo(f"segpipe: {printable(message)}", err=True)
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": message, "exit_status": status}}, indent=1), file=out)
    raise typer.Exit(status)


def _bug(error: Exception) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="segpipe-bug-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    return f"a bug in segpipe, not in your input: {type(error).__name__}: {error}. The traceback is in {file.name}"


def _plain(result: object) -> Any:
    if isinstance(result, list | tuple):
        return [_plain(item) for item in result]
    if isinstance(result, dict):
        return {key: _plain(value) for key, value in result.items()}
    return dataclasses.asdict(result) if dataclasses.is_dataclass(result) and not isinstance(result, type) else result


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """The real standard output for the answer alone: `print`, C libraries and child processes get standard error."""
    stream = sys.stdout
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a stream in memory: no file descriptor to guard
        with contextlib.redirect_stdout(sys.stderr):
            yield stream
        return
    stream.flush()
    kept = os.dup(number)
    os.dup2(sys.stderr.fileno(), number)
    try:
        with contextlib.redirect_stdout(sys.stderr), open(kept, "w", encoding="utf-8", closefd=False) as out:
            yield out
    finally:
        os.dup2(kept, number)
        os.close(kept)
