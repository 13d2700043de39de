"""segpipe/cli/answering.py: exit statuses, messages, and that standard output stays clean."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segpipe.cli import answering
from segpipe.errors import ConflictError, CorruptError, InputError, UnreachableError
from segpipe.stages import nights
from tests.fixtures.command_line import document, segpipe


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("bad label"), 2),
        (UnreachableError("no MLflow"), 3),
        (ConflictError("taken"), 1),
        (CorruptError("torn"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_message_and_a_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(experiment: object) -> None:
        raise error

    monkeypatch.setattr(nights, "board", fail)
    plain = segpipe("board")
    assert (plain.exit_code, plain.stdout) == (status, "")
    assert plain.stderr.splitlines()[-1].startswith("segpipe: ")
    assert str(error) in plain.stderr
    assert "Traceback" not in plain.stderr
    told = document(segpipe("board", "--json"), status=status)["error"]
    assert told["exit_status"] == status
    assert str(error) in told["message"]


def test_a_bug_leaves_its_traceback_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def bug(experiment: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(nights, "board", bug)
    monkeypatch.setattr(answering.tempfile, "tempdir", str(tmp_path))
    result = segpipe("board")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    (written,) = tmp_path.iterdir()
    assert str(written) in result.stderr.replace("\n", "")
    assert "ZeroDivisionError: division by zero" in written.read_text()
    assert 'raise ZeroDivisionError("division by zero")' in written.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["check"],
        ["list", "trees"],
        ["ingest", "folder", ".", "--max-quarantine", "2"],
        ["board", "--jsn"],
    ],
)
def test_wrong_use_is_2_and_prints_nothing_on_standard_output(arguments: list[str]) -> None:
    result = segpipe(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_control_sequences_in_names_do_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(experiment: object) -> None:
        raise InputError("\x1b[2Jevil[red].png\nsecond line")

    monkeypatch.setattr(nights, "board", fail)
    assert "segpipe: \\x1b[2Jevil[red].png\nsecond line" in segpipe("board").stderr


def test_what_libraries_print_meanwhile_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def chatty(experiment: object) -> list[object]:
        print("(raylet) hello")
        return []

    monkeypatch.setattr(nights, "board", chatty)
    result = segpipe("board", "--json")
    assert json.loads(result.stdout) == []
    assert "(raylet) hello" in result.stderr


MAIN = [sys.executable, "-c", "from segpipe.cli import main; main()"]


def test_a_process_leaves_clean_output_and_its_status(tmp_path: Path) -> None:
    environment = os.environ | {"SEGPIPE_HOME": str(tmp_path)}
    done = subprocess.run([*MAIN, "list", "sources", "--json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert "folder" in [entry["name"] for entry in json.loads(done.stdout)]
    empty = subprocess.run([*MAIN, "board", "--json"], capture_output=True, text=True, env=environment)
    assert empty.returncode == 2
    assert json.loads(empty.stdout)["error"]["kind"] == "InputError"
    assert "segpipe retrain RECIPE" in empty.stderr


def test_even_a_child_process_cannot_write_into_the_answer() -> None:
    script = (
        "import os, subprocess, sys\n"
        "from segpipe.cli.answering import answering\n"
        "with answering(True) as answer:\n"
        "    print('python')\n"
        "    os.write(1, b'descriptor\\n')\n"
        "    subprocess.run(['echo', 'child'])\n"
        "    answer({'a': 1}, lambda console, result: None)\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == '{\n "a": 1\n}\nafter\n'
    assert {"python", "descriptor", "child"} <= set(done.stderr.split())


def test_an_interrupted_process_ends_with_130() -> None:
    script = (
        "import os, signal\n"
        "from segpipe.cli import main\n"
        "from segpipe.stages import nights\n"
        "nights.board = lambda experiment: os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys; sys.argv = ['segpipe', 'board', '--json']; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert json.loads(done.stdout)["error"]["kind"] == "Interrupted"
    assert "Traceback" not in done.stderr


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'pydantic', 'ray', 'mlflow')"
    script = f"import sys, segpipe.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
