"""segpipe/promotion/ledger.py: what is recorded, and one champion whoever promotes at the same time."""

import json
import math
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from segpipe.errors import CorruptError, IncomparableError
from segpipe.promotion import Proof, Record, Verdict, champion, history
from segpipe.types import EvalReport
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import decided, promote, shelf
from tests.fixtures.publish_worker import CONTEXT

ROUNDS = 20


def test_no_ledger_no_champion(tmp_path: Path) -> None:
    assert champion(str(tmp_path / "ledger")) is None
    assert history(str(tmp_path / "ledger")) == []


def test_every_verdict_is_recorded_and_the_best_stands(tmp_path: Path) -> None:
    a, b, c, d = scored(0.5, "a"), scored(0.4, "b"), scored(math.nan, "c"), scored(0.6, "d")
    outcomes = [promote(tmp_path, report, a).outcome for report in (a, b, c, d)]
    assert outcomes == ["promoted", "kept", "refused", "promoted"]
    log = history(str(tmp_path))
    assert [record.kind for record in log] == outcomes
    assert [record.number for record in log] == [1, 2, 3, 4]
    standing = champion(str(tmp_path))
    assert standing == log[3]
    assert standing.champion is not None
    assert standing.champion.label == "d"
    assert standing.previous == log[0].champion


def test_a_record_says_everything_that_the_decision_rests_on(tmp_path: Path) -> None:
    a, b = scored(0.5, "a"), scored(0.6, "b", seconds=9.0)
    promote(tmp_path, a)
    verdict = promote(tmp_path, b, a, floor=0.25, margin=0.0625, max_fall=0.125, max_falls={"car": 0.5})
    document = json.loads((tmp_path / "000002.json").read_text())
    assert document["kind"] == "promoted"
    assert (document["name"], document["who"], document["code_version"]) == ("camvid", "ann", "0.1.0")
    assert (document["floor"], document["margin"]) == (0.25, 0.0625)
    assert (document["max_fall"], document["max_falls"]) == (0.125, {"car": 0.5})
    assert document["comparison"] == {
        **{name: pytest.approx(0.1) for name in ("delta", "low", "high")},
        "p": pytest.approx(1 / 10_001),
        "resamples": 10_000,
        "resampled": "images",
    }
    assert document["changes"][1] == {"name": "car", "champion": 0.5, "challenger": 0.6}
    assert document["previous"]["weights_sha256"] == "sha-a"
    assert document["champion"] == {
        "arch": "unet",
        "label": "b",
        "weights_sha256": "sha-b",
        "checkpoint": "runs/b",
    }
    assert document["evaluation"]["dataset_version"] == "v1"
    assert (document["previous_score"]["value"], document["challenger_score"]["value"]) == (0.5, 0.6)
    assert datetime.fromisoformat(document["at"]).utcoffset() == timedelta(0)
    assert (verdict.name, verdict.number, verdict.at) == ("camvid", 2, document["at"])
    assert verdict.reason == document["reason"]


def test_what_is_not_finite_is_stored_as_null(tmp_path: Path) -> None:
    promote(tmp_path, scored(math.nan, "a", metrics={"miou": math.inf, "dice": 0.5}))
    score = json.loads((tmp_path / "000001.json").read_text())["challenger_score"]
    assert (score["value"], score["metrics"]) == (None, {"miou": None, "dice": 0.5})


@pytest.mark.parametrize("value", [0.6, 0.5, 0.4, math.nan])
def test_the_same_question_is_answered_from_the_ledger(tmp_path: Path, value: float) -> None:
    a, b = scored(0.5, "a"), scored(value, "b")
    promote(tmp_path, a)
    first = promote(tmp_path, b, a)
    assert promote(tmp_path, b, a) == first
    assert len(history(str(tmp_path))) == 2


@pytest.mark.parametrize("changed", ["dataset_version", "floor", "margin", "max_fall", "champion", "score"])
def test_a_new_question_is_judged_anew(tmp_path: Path, changed: str) -> None:
    a, b, c = scored(0.5, "a"), scored(0.4, "b"), scored(0.7, "c")
    promote(tmp_path, a)
    promote(tmp_path, b, a)
    before = 2
    if changed == "dataset_version":
        verdict = promote(tmp_path, replace(b, dataset_version="v2"), replace(a, dataset_version="v2"))
    elif changed == "score":
        verdict = promote(tmp_path, scored(0.45, "b"), a)
    elif changed == "champion":
        promote(tmp_path, c, a)
        before = 3
        verdict = promote(tmp_path, b, c)
    else:
        verdict = promote(tmp_path, b, a, **{changed: 0.03125})
    assert (verdict.outcome, verdict.number) == ("kept", before + 1)


def test_a_refusal_for_a_faulty_report_does_not_bind_the_mended_one(tmp_path: Path) -> None:
    assert promote(tmp_path, scored(math.nan, "a")).outcome == "refused"
    assert promote(tmp_path, scored(0.5, "a")).outcome == "promoted"


def test_a_champion_that_cannot_be_compared_stays_and_the_refusal_is_on_record(tmp_path: Path) -> None:
    promote(tmp_path, scored(0.5, "a"))

    def unlike(record: Record) -> EvalReport:
        raise IncomparableError("the model knows the classes ['sky'], dataset 'camvid' has ['sky', 'car']")

    for _ in range(2):
        verdict = decided(str(tmp_path), scored(0.6, "b"), unlike)
        assert (verdict.outcome, verdict.delta, verdict.number) == ("refused", None, 2)
        assert (
            verdict.reason == "not comparable: the model knows the classes ['sky'], dataset 'camvid' has ['sky', 'car']"
        )
    standing = champion(str(tmp_path))
    assert standing is not None
    assert verdict.champion == verdict.previous == standing.champion
    assert standing.number == 1


def test_what_speaks_against_a_winner_refuses_it_until_it_is_mended(tmp_path: Path) -> None:
    a, b = scored(0.5, "a"), scored(0.6, "b")
    promote(tmp_path, a)
    asked: list[str] = []

    def objecting(objection: str | None) -> Callable[[EvalReport], Proof]:
        def prove(report: EvalReport) -> Proof:
            asked.append(report.label)
            return Proof(objection=objection, data="d", bytes_of=None if objection else "run", images=("x",))

        return prove

    def judged(report: EvalReport, objection: str | None) -> Verdict:
        return decided(str(tmp_path), report, shelf(a, b), proof_of=objecting(objection))

    for _ in range(2):
        refused = judged(b, "it has seen test/1")
        assert (refused.outcome, refused.number, refused.champion) == ("refused", 2, refused.previous)
        assert refused.reason.startswith("it has seen test/1. Else: b (miou 0.6000) beats a (miou 0.5000)")
        assert refused.comparison is not None
    assert judged(b, "its bytes say something else").number == 3
    assert judged(b, None).outcome == "promoted"
    log = history(str(tmp_path))
    assert [record.proof.objection for record in log if record.proof] == [
        None,
        "it has seen test/1",
        "its bytes say something else",
        None,
    ]
    asked.clear()
    judged(b, "nobody asks any more")
    judged(scored(0.4, "c"), "nor of who has lost")
    assert (asked, len(history(str(tmp_path)))) == ([], 5)


def test_a_champion_that_was_scored_on_what_it_has_seen_beats_nobody(tmp_path: Path) -> None:
    a, b = scored(0.5, "a"), scored(0.4, "b")
    promote(tmp_path, a)
    asked: list[str] = []

    def flattery_of(report: EvalReport) -> str:
        asked.append(report.label)
        return "a was trained on test/1"

    for _ in range(2):
        verdict = decided(str(tmp_path), b, shelf(a), flattery_of=flattery_of)
        assert (verdict.outcome, verdict.champion, verdict.number) == ("refused", verdict.previous, 2)
    assert verdict.reason.startswith(
        "not comparable: a was trained on test/1. Else: a (miou 0.5000) stays: b (miou 0.4"
    )
    assert verdict.comparison is not None
    better = decided(str(tmp_path), scored(0.6, "c"), shelf(a), flattery_of=flattery_of)
    assert better.outcome == "promoted", "it has won in spite of that"
    assert better.reason.endswith("more than the margin of 0, though a was trained on test/1")
    assert asked == ["a", "a"], "once for each comparison"


def test_the_champion_itself_on_new_data_stays(tmp_path: Path) -> None:
    a = scored(0.5, "a")
    promote(tmp_path, a)
    verdict = promote(tmp_path, scored(0.9, "a", dataset_version="v2"))
    assert (verdict.outcome, verdict.number) == ("kept", 2)
    assert verdict.reason == "a (miou 0.9000) is the champion already"


def test_a_report_of_other_weights_is_not_taken_for_the_champions(tmp_path: Path) -> None:
    promote(tmp_path, scored(0.5, "a"))
    with pytest.raises(CorruptError, match=r"runs/z: .* sha-z; expected those of the champion, sha-a: .* record 1 of"):
        decided(str(tmp_path), scored(0.6, "b"), lambda _: scored(0.1, "z"))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"number": 7}, "record 7, expected 1"), ({"champion": None}, "without a champion"), ({"kind": "won"}, "kind")],
)
def test_a_record_that_was_tampered_with_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    promote(tmp_path, scored(0.5, "a"))
    path = tmp_path / "000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptError, match=named) as caught:
        champion(str(tmp_path))
    assert "000001.json" in str(caught.value)


# --- the race ---------------------------------------------------------------------------------------------------------


def field(round_number: int, promoters: int) -> list[EvalReport]:
    values = random.Random(round_number).sample(range(10, 90), promoters)
    return [scored(value / 100) for value in values]


def check_race(ledger: Path, reports: list[EvalReport]) -> None:
    log = history(str(ledger))
    assert len(log) == len(reports)
    assert {record.challenger.label for record in log if record.challenger} == {report.label for report in reports}
    standing = None
    for record in log:
        assert record.previous == standing, "judged against somebody who was not champion"
        standing = record.champion
    assert standing is not None
    assert standing.label == max(reports, key=lambda report: report.value).label


@pytest.mark.parametrize("promoters", [2, 8])
def test_threads_that_promote_at_once_leave_the_best(tmp_path: Path, promoters: int) -> None:
    for round_number in range(ROUNDS):
        reports = field(round_number, promoters)
        start = threading.Barrier(promoters)
        ledger = tmp_path / str(round_number)

        def run(report: EvalReport, start: threading.Barrier = start, ledger: Path = ledger) -> None:
            start.wait()
            promote(ledger, report, *field(int(ledger.name), promoters))

        threads = [threading.Thread(target=run, args=(report,)) for report in reports]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_race(ledger, reports)


def race_in_process(place: int, promoters: int, root: Path, start: Barrier) -> None:
    for round_number in range(ROUNDS):
        reports = field(round_number, promoters)
        start.wait(timeout=120)
        promote(root / str(round_number), reports[place], *reports)


@pytest.mark.parametrize("promoters", [2, 8])
def test_processes_that_promote_at_once_leave_the_best(tmp_path: Path, promoters: int) -> None:
    start = CONTEXT.Barrier(promoters)
    processes = [
        CONTEXT.Process(target=race_in_process, args=(place, promoters, tmp_path, start)) for place in range(promoters)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * promoters
    for round_number in range(ROUNDS):
        check_race(tmp_path / str(round_number), field(round_number, promoters))
