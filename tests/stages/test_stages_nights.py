"""The board and the decisions of earlier nights; `test_stages_retrain.py` looks at real ones."""

from dataclasses import replace

import pytest

from segpipe import reports, storage
from segpipe.config import PromoteConfig
from segpipe.errors import CorruptError, InputError
from segpipe.stages import layout, nights
from segpipe.stages.nights import Night
from segpipe.stages.promote import promote
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored

NIGHT = Night(
    dataset_uri="datasets/camvid",
    dataset_version="v1",
    evaluations=(),
    champion=None,
    outcome="promoted",
    reason="the first",
    failures={},
)


def write_night(experiment: str, *found: EvalReport, after: int = 0) -> None:
    folders = []
    for report in found:
        folder = storage.join(layout.evaluations_uri(experiment), report.label)
        storage.write_json_once(storage.join(folder, "report.json"), reports.to_plain(report))
        folders.append(folder)
    night = replace(NIGHT, evaluations=tuple(folders))
    storage.append_record(layout.nights_uri(experiment), reports.to_plain(night), after=after)


def test_the_board_is_that_of_the_last_night() -> None:
    write_night("camvid", scored(0.9, "old"))
    write_night("camvid", scored(0.4, "a"), scored(0.5, "b"), after=1)
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
    with pytest.raises(InputError, match="models of 'camvid' were promoted, but no retrain has finished"):
        nights.board()


def test_a_damaged_night_names_its_file() -> None:
    storage.append_record(layout.nights_uri("camvid"), {"outcome": "promoted"}, after=0)
    with pytest.raises(CorruptError, match=r"nights/camvid/000001\.json: .*every field of Night"):
        nights.board()


def test_a_home_without_nights_has_no_board() -> None:
    assert nights.experiments() == []
    for look in (nights.board, nights.history):
        with pytest.raises(InputError, match="no retrain has finished here; run `segpipe retrain RECIPE`"):
            look("toy")
