"""segpipe/cli/look.py and views.py: what is shown, and the choice of the experiment."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from segpipe import reports, storage
from segpipe.cli import data_views, model_views, views
from segpipe.leaderboard import rank
from segpipe.promotion.gate import Rules, judge, refuse
from segpipe.stages import catalogue, doctor, layout, nights
from segpipe.stages.doctor.finding import Check
from segpipe.stages.results import IngestResult, RetrainResult
from segpipe.types import QuarantineEntry
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.example_reports import scored
from tests.fixtures.folder_mini import write_folder_mini


@pytest.mark.parametrize("table", ["models", "sources", "tasks"])
def test_list(table: str) -> None:
    entries = document(segpipe("list", table, "--json"))
    assert {"models": "unet", "sources": "folder", "tasks": "semantic"}[table] in [entry["name"] for entry in entries]
    shown = segpipe("list", table).stdout
    assert all(entry["name"] in shown for entry in entries)
    if table == "sources":
        assert all(words in shown for words in ("group_pattern=", "leftImg8bit", "files in ROOT: images/**.jpg"))
    if table == "models":
        assert {"name", "task", "paper", "options"} <= entries[0].keys()


def test_list_explains_one_source() -> None:
    told = document(segpipe("list", "sources", "folder", "--json"))
    assert told["options"]["reduce_zero"] == {
        "type": "bool",
        "default": False,
        "help": "true for ADE20K's coding: 0 is void and class k is written as k + 1",
    }
    shown = segpipe("list", "sources", "folder").stdout
    assert all(words in shown for words in ("images/**.jpg", "reduce_zero", "true or false", "ADE20K's coding", '""'))
    assert "samples as published: train 2975, val 500" in segpipe("list", "sources", "cityscapes").stdout
    assert "no options" in segpipe("list", "sources", "gta5").stdout
    refused = segpipe("list", "models", "unet")
    assert refused.exit_code == 2
    assert "list models takes no name, found 'unet'" in refused.stderr


def test_one_architecture_is_shown_with_its_figure_cost_and_numbers() -> None:
    words = ("models", "show", "deeplab_v3", "--set", "backbone=resnet18", "--set", "multi_grid=[1,1]")
    told = document(segpipe(*words, "--size", "64x96", "--classes", "3", "--runs", "0", "--json"))
    assert told["profile"]["options"]["multi_grid"] == [1, 1]
    assert told["profile"]["size"] == [64, 96]
    shown = segpipe(*words, "--size", "64x96", "--classes", "3", "--runs", "1").stdout
    assert told["drawing"] in shown, "the figure is printed as it stands, brackets and all"
    assert f"{told['profile']['parameters']:,}" in shown
    assert "Cost of one image of 64x96 with 3 classes" in shown
    assert "median of 1 pass on this CPU" in shown
    assert "whole image" in shown
    assert all(words in shown for words in ("77.21", "PASCAL VOC 2012", "42,004,074", "arXiv:1706.05587"))
    assert all(text in shown for text in told["differs"])


def test_a_method_without_a_network_is_shown_by_its_time_alone() -> None:
    words = ("models", "show", "kmeans", "--size", "32x40", "--classes", "3")
    told = document(segpipe(*words, "--runs", "0", "--json"))
    assert (told["profile"]["parameters"], told["profile"]["multiply_adds"]) == (0, None)
    shown = segpipe(*words, "--runs", "1").stdout
    assert "no network: it learns by counting" in shown
    assert " ms " in shown
    assert "multiply-adds" not in shown
    assert "why a field" not in shown


def test_on_a_narrow_terminal_points_are_set_in_and_a_figure_says_that_it_is_cut() -> None:
    told = catalogue.model("pspnet", {}, num_classes=3, size=(32, 32), runs=0)
    widths, texts = (60, 200), {}
    for width in widths:
        console = Console(
            record=True,
            width=width,
            force_terminal=True,
            color_system=None,
            file=open(os.devnull, "w"),  # noqa: SIM115
        )
        model_views.architecture(console, told)
        console.file.close()
        texts[width] = console.export_text()
    figure = told["drawing"].splitlines()
    assert told["drawing"] in texts[200]
    assert "cut off" not in texts[200]
    assert all(line[:40] in texts[60] for line in figure)
    assert f"(cut off: the figure has {max(map(len, figure))} columns, this terminal 60;" in texts[60]
    departures = texts[60].partition("Departures from the paper\n")[2].splitlines()
    assert all(line.startswith(("  - ", "    ")) and len(line) <= 60 for line in departures if line.strip())
    assert "80.20 % miou on Cityscapes test: ResNet-101, " in texts[200]
    assert "49,180,908 with 150 classes, backbone=resnet50_deep: " in texts[200]
    assert "here" not in texts[200].split("Cost of")[0].split(), "a column more where an option was set alone"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("deeplabv3",), "did you mean 'deeplab_v3'?"),
        (("unet", "--set", "depth=3"), "unet: unknown option 'depth'"),
        (("unet", "--set", "width"), "--set 'width': expected KEY=VALUE"),
        (("unet", "--size", "64"), "--size '64': expected HEIGHTxWIDTH"),
        (("unet", "--size", "8x8"), "size: (8, 8); expected (height, width), each a whole number of 32 to 8192"),
    ],
)
def test_what_no_architecture_can_be_shown_with(words: tuple[str, ...], message: str) -> None:
    refused = segpipe("models", "show", *words, "--runs", "0")
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stdout == ""


def test_board_needs_no_name_where_there_is_one_experiment() -> None:
    first = night_of("first")
    told = document(segpipe("board", "--json"))
    assert [(row["rank"], row["label"], row["primary"], row["value"]) for row in told] == [
        (1, "a", "miou", 0.7),
        (2, "b", "miou", 0.5),
    ]
    shown = segpipe("board", first).stdout
    assert "0.7000" in shown
    assert "sky everywhere would score 0.2500" in shown
    assert "not above that" not in shown
    night_of("second")
    several = segpipe("board")
    assert several.exit_code == 2
    assert "first, second" in several.stderr
    unknown = segpipe("board", "third")
    assert "no experiment 'third'; there are: first, second" in unknown.stderr


def night_of(experiment: str) -> str:
    """Writes what a finished retrain of `experiment` leaves."""
    folders = []
    for report in (scored(0.5, "b"), scored(0.7, "a")):
        folders.append(f"{layout.evaluations_uri(experiment)}/{report.label}")
        storage.write_json_once(f"{folders[-1]}/report.json", reports.to_plain(report))
    record = nights.Night(
        dataset_uri="d",
        dataset_version="v1",
        evaluations=tuple(folders),
        champion="ab",
        outcome="promoted",
        reason="because",
        failures={},
    )
    storage.append_record(layout.nights_uri(experiment), reports.to_plain(record), after=0)
    return experiment


def test_a_board_names_the_models_that_have_learnt_nothing() -> None:
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    views.board(console, rank([scored(0.25, "flat"), scored(0.7, "good")]))
    console.file.close()
    assert "sky everywhere would score 0.2500; not above that: flat\n" in console.export_text()


def test_a_verdict_tells_what_became_of_every_class() -> None:
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    views.verdict(console, judge(scored(0.7, "new"), scored(0.5, "old"), Rules()))
    console.file.close()
    said = console.export_text()
    assert (
        "beats old (miou 0.5000) by 0.2000 (95 % interval +0.2000 to +0.2000), surely more than the margin of 0" in said
    )
    assert re.search(r"car +│? *0\.5000 +│? *0\.7000 +│? *0\.2000", said)
    assert "not better in 0.01% of 10000 resamples of images" in said


def test_a_refusal_of_an_earlier_night_says_since_when() -> None:
    verdict = replace(refuse(scored(0.5), None, "because"), at="2026-03-04T05:06:07.000+00:00")
    ingested = IngestResult(
        name="d", uri="u", version="v", status="already_published", splits={}, quarantined=(), warnings=(), seconds=0
    )
    night = RetrainResult(
        experiment="e",
        dataset=ingested,
        board=tuple(rank([scored(0.5)])),
        verdict=verdict,
        failures={},
        did_nothing=True,
        home="h",
        mlflow_uri="m",
        mlflow_url=None,
        pages={},
        seconds=1,
    )
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    views.retrained(console, night)
    console.file.close()
    assert "refused since 2026-03-04T05:06 UTC, and until something changes" in console.export_text()
    for other in (replace(night, did_nothing=False), replace(night, verdict=replace(verdict, outcome="kept"))):
        assert other.refused_since is None


def test_doctor_shows_findings_with_their_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [
        Check(name="python", status="ok", found="3.11", expected="3.11"),
        Check(name="mlflow", status="fail", found="silence", expected="answers", fix="mlflow server", is_service=True),
    ]
    monkeypatch.setattr(doctor, "examine", lambda on_check: checks)
    told = document(segpipe("doctor", "--json"), status=3)
    assert told[1] == {
        "name": "mlflow",
        "status": "fail",
        "found": "silence",
        "expected": "answers",
        "fix": "mlflow server",
        "is_service": True,
    }
    shown = segpipe("doctor")
    assert shown.exit_code == 3
    assert "mlflow: mlflow server" in shown.stdout


def test_bad_samples_are_shown_by_reason_with_three_names() -> None:
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115
    entries = [QuarantineEntry(file="m.png", item="m", reason="missing_mask", detail="no mask")]
    entries += [QuarantineEntry(file=f"{i}.png", item="", reason="truncated", detail=f"at {i}") for i in range(25)]
    data_views.quarantine(console, entries)
    console.file.close()
    text = console.export_text()
    assert "26 in quarantine (--json lists each)" in text
    (truncated,) = (line for line in text.splitlines() if "truncated" in line)
    (missing,) = (line for line in text.splitlines() if "missing_mask" in line)
    assert text.index(truncated) < text.index(missing), "the most common reason first"
    assert all(part in truncated for part in ("25", "0.png, 1.png, 2.png and 22 more", "0.png: at 0"))
    assert all(part in missing for part in ("1", "m.png: no mask"))


def test_data_inspect_and_diff_tell_and_draw(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    first = document(segpipe("ingest", "folder", str(root), "--to", str(tmp_path / "to"), "--json"))
    sheet = tmp_path / "sheet.png"
    told = document(segpipe("data", "inspect", first["uri"], "--sheet", str(sheet), "--rows", "2", "--json"))
    assert (told["version"], told["sheet"]) == (first["version"], str(sheet))
    assert [row["name"] for row in told["classes"]] == ["ground", "plant", "stone"]
    assert sheet.read_bytes().startswith(b"\x89PNG")
    shown = segpipe("data", "inspect", first["uri"]).stdout
    assert all(words in shown for words in ("Label contract", "stone", "30x24 (16)", "batch_size", first["version"]))
    (root / "splits" / "val.txt").write_text("img_000\n")
    segpipe("ingest", "folder", str(root), "--to", str(tmp_path / "to"))
    changed = document(segpipe("data", "diff", f"{first['uri']}@{first['version'][:8]}", first["uri"], "--json"))
    assert changed["removed"] == ["val/img_005", "val/img_010", "val/img_015"]
    assert (
        "removed 3: val/img_005"
        in segpipe("data", "diff", f"{first['uri']}@{first['version'][:8]}", first["uri"]).stdout
    )
    command = ("export", "--data", first["uri"], "--format", "folder", "--to", str(tmp_path / "out"))
    exported = document(segpipe(*command, "--json"))
    assert (exported["samples"], exported["left_out"]) == ({"train": 16, "val": 1}, [])
    assert "to read it again: segpipe ingest folder" in segpipe(*command).stdout
    absent = segpipe("data", "inspect", str(tmp_path / "absent"))
    assert absent.exit_code == 2
    assert "no dataset here" in absent.stderr
