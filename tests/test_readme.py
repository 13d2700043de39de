"""The README says nothing that is not so. What it may say is in tests/fixtures/readme_rules.py."""

import json
import os
import re
from pathlib import Path

import pytest

from segpipe.config import Recipe
from segpipe.errors import InputError
from segpipe.sources import SOURCES
from segpipe.stages import doctor
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.readme import ROOT, Block, Command, Span, blocks, commands, spans
from tests.fixtures.readme_rules import RECIPES, check_block, check_command, check_span

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", commands(README), ids=str)
def test_every_command_is_one_that_its_program_takes(command: Command) -> None:
    check_command(command)


def names_of(text: str) -> list[Span]:
    """The spans that are no command."""
    return [s for s in spans(text) if s.text.removeprefix(".venv/bin/") not in {str(c) for c in commands(text)}]


@pytest.mark.parametrize("span", names_of(README), ids=lambda span: f"{span.line}-{span.text}")
def test_every_name_in_a_sentence_exists(span: Span) -> None:
    check_span(span)


def row_of(place: str) -> set[str]:
    """The other spans of the line of the map that begins with `place`."""
    return {span.text for span in spans(README) if span.before[:1] == (place,)}


def test_the_map_has_every_room_and_lists_are_whole() -> None:
    named = {text.removeprefix("segpipe/").rstrip("/") for span in spans(README) for text in (span.text, *span.before)}
    rooms = {path.name for path in (ROOT / "segpipe").iterdir() if path.name[0] not in "_."}
    assert rooms <= named, f"without a place in the map: {sorted(rooms - named)}"
    assert row_of("segpipe/sources/") == set(SOURCES)
    files = (ROOT / "segpipe" / "models").glob("*.py")
    papers = {path.stem for path in files if re.search(r"^SPECS? =", path.read_text(), re.MULTILINE)}
    assert "unet" in papers
    assert row_of("segpipe/models/") >= papers


@pytest.mark.parametrize("block", blocks(README), ids=lambda block: f"line-{block.line}")
def test_every_snippet_is_sound(block: Block) -> None:
    check_block(block.text, block.language)


# --- what is cheap is run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README has it: flows/ beside the reader's own images in mydata/."""
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    write_folder_mini(tmp_path / "mydata")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    return tmp_path


def test_the_commands_on_your_data_run(place: Path) -> None:
    run = [command for command in commands(README) if command.words[:1] == ("segpipe",)]
    told = {
        " ".join(c.words[1:] if c.words[1] == "list" else c.words[1:2]): document(segpipe(*c.words[1:], "--json"))
        for c in run
        if c.words[1] in ("ingest", "check", "list")
    }
    assert sum(told["ingest"]["splits"].values()) == 20
    assert told["ingest"]["quarantined"] == []
    assert (place / told["ingest"]["uri"] / "manifests" / f"{told['ingest']['version']}.json").is_file()
    assert told["check"]["dataset"] == Recipe.load(RECIPES["folder"]).dataset.name
    assert {told["list sources folder"]["name"], "coco"} <= {entry["name"] for entry in told["list sources"]}
    assert {"group_pattern", "ignore", "image_suffix", "masks"} <= set(told["list sources folder"]["options"])


def test_what_the_doctor_is_said_to_check_it_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"packages", "home", "disk", "shared memory", "gpu", "ray", "mlflow", "prefect"}
    assert said <= set(doctor.CHECKS)
    for service in ("ray", "mlflow", "prefect", "clock"):  # each has tests of its own, and takes seconds
        monkeypatch.setitem(doctor.CHECKS, service, lambda: iter(()))
    result = segpipe("doctor", "--json")
    assert result.exit_code in (0, 1), "this machine may lack disk or memory"
    for check in json.loads(result.stdout):
        assert (check["status"] == "ok") == (check["fix"] == ""), "it says how to mend each fault"


# --- the rules themselves


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (".venv/bin/segpipe chek flows/recipes/scenes.yaml", "no command 'chek'"),
        ("segpipe check flows/recipes/scenes.yaml --sett a=b", "No such option.*--sett"),
        ("segpipe check flows/recipes/scenes.yaml --set train.epochz=3", "train.epochz: unknown key"),
        ("segpipe check flows/recipes/absent.yaml", "absent.yaml: no such recipe"),
        ("segpipe ingest folder", "Missing parameter: root"),
        ("make demmo", "no target 'demmo'"),
        ("make demo  # an hour", "the Makefile's help says something else"),
        ("prefect worker start --pool other", "prefect.yaml deploys to"),
        ("prefect worker start --pol segpipe-process", "Unknown option.*--pol"),
        ("prefect deployment run retrain/weekly", "prefect.yaml declares"),
        ("mlflow servr", "no command 'servr'"),
        ("mlflow server --hst 127.0.0.1", "No such option"),
        ("mlflow models serve -m models:/absent@champion", "no recipe registers a model 'absent'"),
        ("python -m flows flows/recipes/absent.yaml", "absent.yaml: no such recipe"),
        ("python -m segpipe", "the only module to run is flows"),
        ("export SEGPIPE_HOUSE=/data", "SEGPIPE_HOUSE: neither the code nor"),
        ("conda install segpipe", "no rule for 'conda'"),
    ],
)
def test_a_wrong_command_is_found(line: str, fault: str) -> None:
    (command,) = commands(f"```sh\n{line}\n```\n")
    with pytest.raises(Exception, match=fault):
        check_command(command)


@pytest.mark.parametrize(
    "name",
    [
        "segpipe/utils.py",
        "nowhere/",
        "retrain/weekly",
        "--quick",
        "SEGPIPE_HOUSE",
        "residualnet",
        "{worker: 1}",
        "http://a",
    ],
)
def test_a_wrong_name_is_found(name: str) -> None:
    with pytest.raises((AssertionError, ValueError, InputError)):
        check_span(Span(text=name, line=1, before=()))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("yaml", "train: {epochs: 3}"),
        ("yaml", "trian: {}"),
        ("yaml", "resources: {worker: 1}"),
        ("python", "def broken("),
        ("python", "from segpipe.models import absent"),
        ("", "data/decode.py, absent.py"),
    ],
)
def test_a_wrong_snippet_is_found(language: str, text: str) -> None:
    with pytest.raises((AssertionError, SyntaxError, InputError)):
        check_block(text, language)


def test_a_sound_snippet_passes() -> None:
    check_block("resources: {workers: 8, gpus_per_worker: 1}\npromote: {margin: 0.01}", "yaml")
    check_block("from segpipe import models\nfrom segpipe.shards import open_dataset", "python")
    (first, second) = commands("```console\n$ make demo \\\n    test\nprinted\n$ A=b segpipe board\n```\n")
    assert (first.words, second.words) == (("make", "demo", "test"), ("segpipe", "board"))
