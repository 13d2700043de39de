"""Tables in Markdown, on the pages of MLflow and of Prefect."""

from dataclasses import replace

from segpipe.leaderboard import rank
from segpipe.promotion import Contender, Verdict
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.tables import board_table, class_table, rung_table, split_table
from segpipe.tracking.registry import REQUEST_TAG, USAGE_TAG, with_usage
from segpipe.types import ClassScores
from tests.fixtures.example_reports import scored

STORE = "postgresql://mlflow@database.example.org:5432/mlflow"
ASKING = {USAGE_TAG: "answers = model.predict(images)", REQUEST_TAG: '{"inputs": []}'}


def verdict_on(*scores: tuple[str, float | None, float | None]) -> Verdict:
    named = scored(0.5, "unet")
    who = Contender(arch="unet", label="unet", weights_sha256=named.weights_sha256, checkpoint=named.checkpoint)
    return Verdict(
        outcome="kept",
        champion=who,
        previous=who,
        challenger=who,
        delta=0.01,
        reason="unet (miou 0.5000) stays: deeplab_v3plus-resnet101 (miou 0.5100) is better, but not surely",
        number=7,
        changes=tuple(ClassScores(name=name, champion=old, challenger=new) for name, old, new in scores),
    )


def test_of_few_classes_all_are_told_in_their_order() -> None:
    lines = class_table(verdict_on(("sky", 0.9, 0.91), ("a|b", None, 0.2)))
    assert [line.partition("&")[0] for line in lines[1:]] == ["| class", "|---|---:|---:|---:|", "| sky", "| a\\|b"]
    assert class_table(verdict_on()) == []


def test_the_board_is_the_same_table_on_both_pages() -> None:
    board = rank([scored(0.5, "unet"), scored(0.625, "enet")])
    head, ruler, first, _ = shown = board_table(board, padding="")
    assert head == "| rank | model | miou | 95 % interval | parameters |"
    assert ruler == "|---:|---|---:|---:|---:|"
    assert first.startswith("| 1 | enet | 0.6250 | ")
    assert [line.replace("&emsp;", "") for line in board_table(board)] == shown


def test_counts_of_splits_are_whole_and_rungs_tell_who_went_on() -> None:
    assert split_table({"train": 1200, "val": 40}) == [
        "| split | samples |",
        "|---|---:|",
        "| train | 1200 |",
        "| val | 40 |",
    ]
    climb = Climb(label="unet", steps=1000, start=0, until=100, planned=0.5, fate="dropped", score=0.25, hours=0.5)
    told = BudgetReport(
        hours=2.0,
        device="GPU",
        spent=0.5,
        full_grid=5.0,
        saved=0.9,
        rungs=(Rung(number=1, share=0.1, climbs=(climb,)),),
        left_out={},
    )
    assert rung_table(told) == [
        "| rung | model | steps | validation | GPU-hours | then |",
        "|---:|---|---:|---:|---:|---|",
        "| 1 | unet | 100 of 1,000 | 0.2500 | 0.5 | dropped |",
    ]
    assert rung_table(replace(told, rungs=())) == []


def test_of_171_classes_those_that_changed_most_fit_into_a_description() -> None:
    scores = [(f"furniture-other-{i:03}", 0.5, 0.5 + i / 1000 * (-1) ** i) for i in range(170)]
    verdict = verdict_on(("nowhere", None, 0.9), *scores)
    described = with_usage("\n".join([verdict.reason, *class_table(verdict)]), STORE, "stuff/3", ASKING)
    assert len(described) <= 5000
    assert described.count("furniture-other") == 30
    assert all(f"furniture-other-{i:03}&" in described for i in range(140, 170))
    assert described.index("other-169") < described.index("other-168")
    assert "nowhere" not in described
    rest = "\n\n141 more classes, which changed less, stand in record 7 of the ledger.\n\n## Use it\n"
    assert rest in described, "and nothing else is cut"
