"""segpipe/cli: the help of every command, and what becomes of its arguments."""

import re
import shlex

import pytest

from segpipe import cli
from segpipe.cli import COMMANDS, parts, work
from segpipe.errors import InputError
from tests.fixtures.command_line import segpipe


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_how_it_is_used(command: str) -> None:
    result = segpipe(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"segpipe {command}" in result.stdout.split("Examples:")[1]
    assert "--json" in result.stdout


def test_the_examples_in_the_help_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option in an example exists: the commands are run with their work taken out."""

    class Parsed(Exception):  # noqa: N818 - it reports success
        pass

    def stop(as_json: bool) -> None:
        raise Parsed

    for module in (work, cli.data, cli.look, cli.portable, cli.predicting, cli.selecting, cli.tuning):
        monkeypatch.setattr(module, "answering", stop)
    examples = [
        shlex.split(line.strip())
        for _, function in COMMANDS.values()
        for line in (function.__doc__ or "").splitlines()
        if line.strip().startswith("segpipe ")
    ]
    assert len(examples) >= 2 * len(COMMANDS)
    for words in examples:
        assert isinstance(segpipe(*words[1:]).exception, Parsed), words


def test_the_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", segpipe("--version").stdout)


def test_options_are_numbers_truths_or_text() -> None:
    found = parts.options_of(["a=1", "b=0.5", "c=true", "d=x=y", "e=", 'f="1"', "g=[1]"])
    assert found == {"a": 1, "b": 0.5, "c": True, "d": "x=y", "e": "", "f": '"1"', "g": "[1]"}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="--option"):
            parts.options_of(bad)


def test_settings_of_an_architecture_may_be_lists() -> None:
    found = parts.settings_of(["multi_grid=[1,2,1]", "backbone=resnet50", "output_stride=8", "aux=true"])
    assert found == {"multi_grid": [1, 2, 1], "backbone": "resnet50", "output_stride": 8, "aux": True}
    for bad in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="--set"):
            parts.settings_of(bad)


def test_sizes_are_height_by_width() -> None:
    assert parts.size_of("512x1024") == (512, 1024)
    for bad in ("512", "512x", "x", "512*1024", "-1x5", "5.0x5"):
        with pytest.raises(InputError, match=r"--size .*: expected HEIGHTxWIDTH in pixels, for example 512x1024"):
            parts.size_of(bad)
