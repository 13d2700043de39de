"""The board and the decisions of earlier nights; `test_stages_retrain.py` looks at real ones."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segpipe import reports, storage
from segpipe.config import PromoteConfig
from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.stages import layout, nights
from segpipe.stages.ingest import IngestResult
from segpipe.stages.nights import Night
from segpipe.stages.opening import OpenNight
from segpipe.stages.retrain import choose
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored
from tests.fixtures.unproven import promote_unproven as promote
from tests.stages.toy_night import recipe

NIGHT = Night(
    dataset_uri="datasets/camvid",
    dataset_version="v1",
    evaluations=(),
    champion=None,
    outcome="promoted",
    reason="the first",
    failures={},
)
FAILED = replace(
    NIGHT, outcome="failed", reason="nobody was left", failures={"fcn": "no such split", "unet": "loss nan"}
)


def write_night(experiment: str, *found: EvalReport) -> None:
    folders = []
    for report in found:
        folder = storage.join(layout.evaluations_uri(experiment), report.label)
        storage.write_json_once(storage.join(folder, "report.json"), reports.to_plain(report))
        folders.append(folder)
    assert nights.record(experiment, replace(NIGHT, evaluations=tuple(folders)))


def test_the_board_is_that_of_the_last_night() -> None:
    write_night("camvid", scored(0.9, "old"))
    write_night("camvid", scored(0.4, "a"), scored(0.5, "b"))
    assert [(row.rank, row.label, row.value) for row in nights.board()] == [(1, "b", 0.5), (2, "a", 0.4)]
    assert nights.board("camvid") == nights.board()


def test_with_several_experiments_one_has_to_be_named() -> None:
    write_night("camvid", scored(0.4))
    write_night("scenes", scored(0.5))
    assert nights.experiments() == ["camvid", "scenes"]
    with pytest.raises(InputError, match="holds several experiments; name one of: camvid, scenes"):
        nights.board()
    assert nights.board("scenes")[0].value == 0.5
    with pytest.raises(InputError, match="no experiment 'voc'; there are: camvid, scenes"):
        nights.board("voc")


@pytest.mark.usefixtures("mlflow_down")
def test_a_ledger_without_a_night_has_a_history_but_no_board() -> None:
    promote("camvid", [scored(0.5)], config=PromoteConfig(), champion_report_of=lambda _: scored(0.5))
    assert [record.kind for record in nights.history()] == ["promoted"]
    with pytest.raises(InputError, match="no retrain of 'camvid' has left a model that can be shown"):
        nights.board()


def test_the_experiments_that_were_last_on_a_dataset_version() -> None:
    assert nights.on_version("v1") == []
    assert nights.record("camvid", NIGHT)
    assert nights.record("scenes", replace(FAILED, dataset_version="v1"))
    assert nights.on_version("v1") == ["camvid", "scenes"], "one that failed was on it, too"
    assert nights.record("camvid", replace(NIGHT, dataset_version="v2"))
    assert (nights.on_version("v1"), nights.on_version("v2"), nights.on_version("v3")) == (["scenes"], ["camvid"], [])


def test_a_damaged_night_names_its_file() -> None:
    storage.append_record(layout.nights_uri("camvid"), {"outcome": "promoted"}, after=0)
    with pytest.raises(CorruptError, match=r"nights/camvid/000001\.json: .*every field of Night"):
        nights.board()


def test_a_home_without_nights_has_no_board() -> None:
    assert nights.experiments() == []
    for look in (nights.board, nights.history):
        with pytest.raises(InputError, match="no retrain has finished here; run `segpipe retrain RECIPE`"):
            look("toy")


# --- nights in which every architecture failed


def test_a_night_that_says_the_same_as_the_last_one_is_not_told_twice() -> None:
    written = [nights.record("camvid", night) for night in (FAILED, FAILED, NIGHT, NIGHT, FAILED)]
    assert written == [True, False, True, False, True]
    outcomes = [record["outcome"] for _, record in storage.records(layout.nights_uri("camvid"))]
    assert outcomes == ["failed", "promoted", "failed"]


def test_nights_that_end_together_are_both_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two deployments of one recipe: the one that comes second must not end as an error after its promotion."""
    append, theirs = storage.append_record, replace(NIGHT, reason="theirs")

    def lose_the_race_once(folder: str, document: dict[str, Any], *, after: int) -> int:
        monkeypatch.setattr(storage, "append_record", append)
        append(folder, reports.to_plain(theirs), after=after)
        return append(folder, document, after=after)

    monkeypatch.setattr(storage, "append_record", lose_the_race_once)
    assert nights.record("camvid", NIGHT) is True
    reasons = [record["reason"] for _, record in storage.records(layout.nights_uri("camvid"))]
    assert reasons == ["theirs", "the first"]


def test_the_same_night_told_by_two_at_once_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    append, last = storage.append_record, storage.last_record

    def look_too_early(folder: str) -> None:
        monkeypatch.setattr(storage, "last_record", last)
        append(folder, reports.to_plain(replace(NIGHT, reason="between")), after=0)
        append(folder, reports.to_plain(NIGHT), after=1)

    monkeypatch.setattr(storage, "last_record", look_too_early)
    assert nights.record("camvid", NIGHT) is False
    assert len(storage.records(layout.nights_uri("camvid"))) == 2


@pytest.mark.usefixtures("mlflow_down")
def test_a_night_without_a_model_is_on_record_and_still_an_error() -> None:
    promote("toy", [scored(0.5, "standing")], config=PromoteConfig(), champion_report_of=lambda _: scored(0.5))
    dataset = IngestResult(
        name="streets",
        uri="datasets/streets",
        version="v1",
        status="published",
        splits={"train": 8},
        quarantined=(),
        warnings=(),
        seconds=0.0,
    )
    night = OpenNight(dataset=dataset, runs=(), parent=None, nothing_to_do=False)
    failures = {"unet": "loss nan", "fcn": "no such split"}
    for _ in range(2):  # a flow's task is tried again
        with pytest.raises(SegpipeError) as caught:
            choose(recipe(), night, [], failures)
        assert str(caught.value) == (
            "toy: no architecture could be trained and evaluated: unet: loss nan; fcn: no such split"
        )
    ((_, record),) = storage.records(layout.nights_uri("toy"))
    assert record == {
        "dataset_uri": "datasets/streets",
        "dataset_version": "v1",
        "evaluations": [],
        "champion": "sha-standing",
        "outcome": "failed",
        "reason": "no architecture could be trained and evaluated",
        "failures": failures,
    }


def test_after_a_failed_night_the_board_is_the_one_before_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    write_night("camvid", scored(0.4, "a"))
    nights.record("camvid", FAILED)
    with caplog.at_level(logging.WARNING):
        assert [row.label for row in nights.board()] == ["a"]
    (warning,) = caplog.messages
    assert warning.endswith(
        "camvid/000002.json: nobody was left: fcn: no such split; unet: loss nan; this board is of an earlier night"
    )
    with pytest.raises(InputError, match=r"000002\.json: the last night of 'camvid' left no model: .*unet: loss nan"):
        nights.last("camvid")


def test_with_failed_nights_only_there_is_no_board() -> None:
    nights.record("camvid", FAILED)
    with pytest.raises(InputError, match="no retrain of 'camvid' has left a model that can be shown; run `segpipe ret"):
        nights.board()
    assert nights.experiments() == ["camvid"]


# --- damage


def test_a_damaged_report_is_named_with_what_mends_it() -> None:
    write_night("camvid", scored(0.4, "a"), scored(0.5, "b"))
    path = Path(layout.evaluations_uri("camvid")) / "b" / "report.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=rf"^{path}: not a valid JSON .*Delete {path} and run .*`segpipe retrain`"):
        nights.board()
    path.unlink()
    with pytest.raises(InputError, match=rf"^{path}: no such file .*run `segpipe retrain` with the same recipe again"):
        nights.board()
