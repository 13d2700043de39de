"""A recipe's budget on the command line: how its trainings will be halved, and what that came to."""

import io

import pytest
from rich.console import Console

from segpipe.cli import views
from segpipe.stages import opening
from segpipe.stages.halving.ladder import Climb, Rung
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from tests.fixtures.command_line import document, segpipe

BUDGET = ("--set", "budget.hours=3")


def test_check_says_how_trainings_are_halved(recipe: str) -> None:
    shown = segpipe("check", recipe, *BUDGET)
    assert shown.exit_code == 0
    assert "budget of 3 CPU-hours: trainings in each rung 2 -> 1" in shown.stdout.replace("\n", " ")
    found = document(segpipe("check", recipe, *BUDGET, "--json"))
    assert found["budget"] == {"hours": 3.0, "device": "CPU", "counts": [2, 1], "steps": [], "full_grid": None}
    assert document(segpipe("check", recipe, "--json"))["budget"] is None


def test_a_deep_check_lays_the_rungs_out_or_says_that_the_hours_are_too_few(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = (
        Rehearsed(label="fcn_resnet18", steps=2, training_hours=1.0, hours=1.0),
        Rehearsed(label="unet", steps=2, training_hours=2.0, hours=2.0),
    )
    night = RehearsedNight(architectures=tried, hours=3, core_hours=3)
    monkeypatch.setattr(opening, "rehearse_recipe", lambda *_, **__: night)
    shown = segpipe("check", recipe, "--deep", "--runtime", "local", *BUDGET)
    assert shown.exit_code == 0
    assert "Within 3 CPU-hours, of which a tenth is kept back" in shown.stdout
    assert "all trainings to their ends: 3 CPU-hours" in shown.stdout
    short = segpipe("check", recipe, "--deep", "--runtime", "local", "--set", "budget.hours=1")
    assert short.exit_code == 2
    assert "budget.hours 1: too little for 2 trainings" in short.stderr


def test_a_night_tells_its_rungs_and_what_they_saved() -> None:
    first = [
        Climb(label="fcn", start=0, until=20, steps=100, planned=1, fate="dropped", score=0.25, hours=1.5),
        Climb(label="unet", start=0, until=40, steps=200, planned=1, fate="goes on", score=0.5, hours=0.75),
        Climb(label="fpn", start=0, until=20, steps=100, planned=1, fate="failed", said="a NaN"),
    ]
    last = Climb(label="unet", start=40, until=200, steps=200, planned=2, fate="trained", score=0.75, hours=2.25)
    rungs = (Rung(number=1, share=0.2, climbs=tuple(first)), Rung(number=2, share=1.0, climbs=(last,)))
    report = BudgetReport(
        hours=5.0, device="GPU", spent=4.5, full_grid=9.0, saved=0.5, rungs=rungs, left_out={"fcn": "dropped"}
    )
    console = Console(width=100, record=True, file=io.StringIO())
    views.searched(console, report)
    text = console.export_text()
    lines = text.splitlines()
    told = [line for line in lines if "of 100" in line or "of 200" in line]
    order = [(word.split("│")[2].strip(), word.split("│")[-2].strip()) for word in told]
    assert order == [("unet", "goes on"), ("fcn", "dropped"), ("fpn", "failed"), ("unet", "trained")]
    assert "┃ GPU-hours ┃" in text
    assert "fcn: dropped" in lines
    assert "4.5 of 5 GPU-hours spent; all trainings to their ends would have taken 9: 50% saved" in lines
