"""segpipe/cli/work.py and data.py: every command that does something reaches its stage and shows what came of it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segpipe import promotion, reports, storage
from segpipe.config import Recipe
from segpipe.leaderboard import rank
from segpipe.stages import catalogue, layout
from segpipe.stages import ingest as ingest_stage
from segpipe.stages import promote as promote_stage
from segpipe.stages import retrain as retrain_stage
from segpipe.stages.quarantine import QuarantineLimitError
from segpipe.types import QuarantineEntry, TrainProgress
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.example_reports import eval_report, scored
from tests.fixtures.folder_mini import write_folder_mini


def test_check_says_what_would_be_trained(recipe: str) -> None:
    found = document(segpipe("check", recipe, "--json"))
    assert found["name"] == "tiny"
    assert [each["arch"] for each in found["architectures"]] == ["fcn_resnet18", "unet"]
    assert found["notes"] == []
    assert "is fine" in segpipe("check", recipe).stdout


def test_check_says_what_the_source_passes_over(recipe: str, tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    (root / "splits" / "test.txt").write_text("img_000\n")
    (root / "splits" / "val.txt").write_text("img_005\nimg_010\n")
    shown = segpipe("check", recipe, "--set", f"dataset={{name: mini, format: folder, root: {root}}}").stdout
    assert "warning: passed over: 1 image that no split list names: images/img_015.jpg" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epoch=3", "train.epoch: unknown key"),
        ("train.batch_size=64", "do not fill one step of 64: nothing would be trained"),
        ("train.epochs=soon", "train.epochs"),
        ("architectures.1.arch=unett", "did you mean 'unet'"),
        ("architectures.1.options.backbone=resnet19", "resnet19"),
        ("dataset.format=camvidd", "did you mean 'camvid'"),
        ("dataset.options.trains=4", "trains"),
        ("resources.workers=3", "resources.workers"),
    ],
)
def test_check_names_the_fault(override: str, named: str, recipe: str) -> None:
    result = segpipe("check", recipe, "--set", override)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr


def test_ingest_answers_as_documented(tmp_path: Path) -> None:
    to = str(tmp_path / "made")
    options = [f"--option={pair}" for pair in ("train=4", "val=2", "test=2", "height=32", "width=40")]
    first = document(segpipe("ingest", "scenes", "", "--to", to, "--name", "made", *options, "--json"))
    assert {"uri", "version", "splits", "quarantined", "warnings"} <= first.keys()
    assert (first["uri"], first["status"]) == (to, "published")
    assert first["splits"] == {"test": 2, "train": 4, "val": 2}
    assert first["version"] == catalogue.dataset_version(to)
    again = segpipe("ingest", "scenes", "", "--to", to, "--name", "made", *options)
    assert "was there already" in again.stdout


def test_ingest_above_the_limit_lists_the_bad_files_and_is_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = QuarantineEntry(file="a[red].png", item="a", reason="truncated", detail="ends at byte 9")

    def refuse(config: object, **_: object) -> None:
        raise QuarantineLimitError("1 of 2 samples are bad", [entry], ["passed over: 7 masks"])

    monkeypatch.setattr(ingest_stage, "ingest", refuse)
    told = document(segpipe("ingest", "folder", str(tmp_path), "--to", "here", "--json"), status=1)
    here = str(Path("here").absolute())
    assert (told["uri"], told["version"], told["warnings"]) == (
        here,
        None,
        ["1 of 2 samples are bad", "passed over: 7 masks"],
    )
    assert told["quarantined"] == [
        {"file": "a[red].png", "item": "a", "reason": "truncated", "detail": "ends at byte 9"}
    ]
    shown = segpipe("ingest", "folder", str(tmp_path), "--to", "here")
    assert shown.exit_code == 1
    assert "a[red].png" in shown.stdout
    assert "warning: passed over: 7 masks" in shown.stdout


def test_an_ingest_says_first_what_it_indexes(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    lines = segpipe("ingest", "folder", str(root), "--to", str(tmp_path / "to"), "--name", "mini").stderr.splitlines()
    assert lines[0].endswith(f"indexing {root} as folder")
    assert re.search(r"mini: 0 of \d+ samples$", lines[1])
    failed = segpipe("ingest", "folder", str(tmp_path / "nowhere"), "--to", str(tmp_path / "to")).stderr.splitlines()
    assert failed[0].endswith("nowhere as folder")


def test_a_bad_dataset_name_is_bad_input(tmp_path: Path) -> None:
    result = segpipe("ingest", "scenes", "", "--to", str(tmp_path), "--name", "../up")
    assert result.exit_code == 2
    assert "'../up'" in result.stderr


def test_train_evaluate_promote_and_history_in_one_process(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody there: the ledger does not need it
    ingested = document(segpipe("ingest", "scenes", "", "--name=tiny", *scenes_options(), "--json"))
    common = ["--data", ingested["uri"], "--data-version", ingested["version"][:8], "--runtime", "local", "--json"]
    (trained,) = document(segpipe("train", recipe, "--to", str(tmp_path), "--only", "unet", *common))
    assert (trained["label"], trained["epochs"]) == ("unet", 1)
    # Named from here, remembered for everywhere: the nightly worker stands in another folder.
    monkeypatch.chdir(tmp_path)
    evaluate = ["evaluate", os.path.relpath(trained["model_uri"]), "--experiment", "tiny", "--pictures", "1", *common]
    report = document(segpipe(*evaluate))
    assert report["checkpoint"] == trained["model_uri"]
    assert (report["label"], report["split"], report["num_samples"]) == ("unet", "test", 2)
    assert report["dataset_version"] == ingested["version"]
    (folder,) = Path(layout.evaluations_uri("tiny")).glob("*/unet-*")
    # The report itself, the folder of all of them, and the dataset where ingest puts it unless told otherwise.
    verdict = document(segpipe("promote", recipe, str(folder / "report.json"), "--data", ingested["uri"], "--json"))
    assert (verdict["outcome"], verdict["champion"]["weights_sha256"]) == ("promoted", report["weights_sha256"])
    assert document(segpipe("promote", recipe, layout.evaluations_uri("tiny"), "--json")) == verdict
    assert segpipe("promote", recipe, str(tmp_path / "nothing"), "--json").exit_code == 2
    (record,) = document(segpipe("history", "--json"))
    assert (record["number"], record["kind"], record["reason"]) == (1, "promoted", verdict["reason"])
    assert "promoted" in segpipe("history", "tiny").stdout
    tune = ["tune-crf", trained["model_uri"], "--data", ingested["uri"], "--sxy", "10", "--srgb", "20", "--weight", "0"]
    tuned = segpipe(*tune, "--weight", "2", "--json")
    search = document(tuned)
    assert re.search(r"unet on val: 2 of 2 samples$", tuned.stderr.strip())
    assert [each["settings"]["bilateral"] for each in search["tried"]] == [[10.0, 20.0, 0.0], [10.0, 20.0, 2.0]]
    assert Path(search["uri"]).is_relative_to(layout.searches_uri())
    told = segpipe(*tune, "--weight", "2").stdout
    assert f"miou {search['without']:.4f} without one" in told
    assert f"all of it: {search['uri']}" in told
    assert ("train.inference.crf: {iterations: 5, gaussian: [3.0, 3.0]" in told) == (search["best"] is not None)
    assert segpipe(*tune, "--weight", "-1").exit_code == 2
    shown = segpipe(*evaluate[:-1]).stdout
    assert f"{report['value']:.4f}" in shown
    assert f"report and pictures: {folder}" in shown
    assert "evaluations" not in segpipe("train", recipe, *common[:-1], "--to", str(tmp_path), "--only", "unet").stdout


def scenes_options() -> list[str]:
    return [f"--option={pair}" for pair in ("train=4", "val=2", "test=2", "height=32", "width=40")]


def test_a_refused_challenger_is_1(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    storage.write_json_once(f"{tmp_path}/e/report.json", reports.to_plain(eval_report(value=0.25)))
    places = (f"{tmp_path}/e", "--data", f"{tmp_path}/none")
    result = segpipe("promote", recipe, *places, "--set", "promote.floor=0.5", "--json")
    assert document(result, status=1)["outcome"] == "refused"


def test_promote_without_reports_judges_the_last_night_again(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    champion = promotion.Contender(arch="unet", label="a", weights_sha256="ab", checkpoint="runs/a")

    def judged(found: Recipe, *, runtime: str) -> promotion.Verdict:
        asked.append((found.name, found.promote.margin, runtime))
        return promotion.Verdict(
            outcome="kept", champion=champion, previous=champion, challenger=champion, delta=0.0, reason="by the margin"
        )

    monkeypatch.setattr(promote_stage, "judge_again", judged)
    told = document(segpipe("promote", recipe, "--set", "promote.margin=0.01", "--runtime", "local", "--json"))
    assert told["outcome"] == "kept"
    assert asked == [("tiny", 0.01, "local")]


def test_an_unknown_label_is_named(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "dataset_version", lambda uri, version: "v1")
    result = segpipe("train", recipe, "--data", "none", "--only", "segnet")
    assert result.exit_code == 2
    assert "expected one of: fcn_resnet18, unet" in result.stderr


@pytest.mark.parametrize(
    ("failures", "outcome", "status"), [({}, "promoted", 0), ({"unet": "NaN"}, "kept", 1), ({}, "refused", 1)]
)
def test_retrain_shows_board_verdict_and_failures(
    failures: dict[str, str], outcome: Any, status: int, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain_stage, "retrain", night(failures, outcome))
    told = document(segpipe("retrain", recipe, "--set", "train.epochs=2", "--json"), status=status)
    assert [row["label"] for row in told["board"]] == ["a", "b"]
    assert told["verdict"]["outcome"] == outcome
    shown = segpipe("retrain", recipe)
    assert shown.exit_code == status
    data = ("warning: group g is in two splits", "1 in quarantine", "images/x.png")
    for text in ("Leaderboard", "0.7000", "because", *failures.values(), "nothing was done", *data):
        assert text in shown.stdout
    assert "training unet" in shown.stderr
    assert "32 of 48 samples" in shown.stderr
    assert "unet: step 40 of 40" in shown.stderr


def night(failures: dict[str, str], outcome: Any) -> Callable[..., retrain_stage.RetrainResult]:
    """A retrain that only says what it would have come to."""

    def retrain(
        recipe: Any,
        *,
        runtime: str,
        on_step: retrain_stage.OnStep,
        on_ingest: Callable[[int, int], None],
        on_progress: retrain_stage.OnTraining,
    ) -> retrain_stage.RetrainResult:
        assert (recipe.name, runtime) == ("tiny", "ray")
        on_ingest(32, 48)
        on_step("training unet")
        on_progress("unet", TrainProgress({"train/loss": 0.25}, 30, 40))
        on_progress("unet", TrainProgress({"val/miou": 0.5}, 40, 40))
        champion = promotion.Contender(arch="unet", label="a", weights_sha256="ab", checkpoint="runs/a")
        return retrain_stage.RetrainResult(
            experiment="tiny",
            dataset=ingest_stage.IngestResult(
                name="tiny",
                uri="d",
                version="v1",
                status="already_published",
                splits={"test": 2},
                quarantined=(QuarantineEntry(file="images/x.png", item="", reason="truncated", detail="ends early"),),
                warnings=("group g is in two splits",),
                seconds=0.5,
            ),
            board=tuple(rank([scored(0.5, "b"), scored(0.7, "a")])),
            verdict=promotion.Verdict(
                outcome=outcome,
                champion=champion,
                previous=None,
                challenger=champion,
                delta=None,
                reason="because",
                name="tiny",
                number=1,
                at="2026-01-01T00:00:00+00:00",
            ),
            failures=failures,
            did_nothing=True,
            home="h",
            mlflow_uri="m",
            mlflow_url=None,
            pages={},
            seconds=1.5,
        )

    return retrain


@pytest.mark.parametrize("command", ["evaluate", "tune-crf"])
def test_a_models_name_means_its_bundle(command: str) -> None:
    """And not a folder below the one where one stands."""
    shown = segpipe(command, "models:/nowhere@champion", "--data", "streets")
    assert shown.exit_code == 2
    assert "no retrain has finished here" in shown.output
