"""`segpipe check --deep`: what was tried is shown, and a fault is its exit status."""

from dataclasses import replace
from typing import Any

import pytest

from segpipe.stages import opening
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from tests.fixtures.command_line import document, segpipe

SOUND = Rehearsed(
    label="unet",
    losses=(2.6, 0.7),
    first_entropy=1.2,
    expected=1.1,
    step_seconds=0.5,
    image_seconds=0.1,
    images_per_second=8.0,
    peak_bytes=2**30,
    device="cpu",
    hours=0.5,
    sheet="/home/inputs.png",
    cautions=("falls by little",),
)


def tried(monkeypatch: pytest.MonkeyPatch, *architectures: Rehearsed) -> None:
    night = RehearsedNight(architectures=architectures, hours=0.5, core_hours=1.0)

    def rehearse_recipe(recipe: Any, *, runtime: str) -> RehearsedNight:
        assert runtime == "local"
        return night

    monkeypatch.setattr(opening, "rehearse_recipe", rehearse_recipe)


def test_a_sound_recipe_tells_its_numbers(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, SOUND)
    shown = segpipe("check", recipe, "--deep", "--runtime", "local")
    assert shown.exit_code == 0
    for word in ("2.6", "1.2 of 1.1", "0.7 in 2", "/home/inputs.png", "falls by little", "0.5 hours", "1 core hours"):
        assert word in shown.stdout, word
    found = document(segpipe("check", recipe, "--deep", "--runtime", "local", "--json"))
    assert found["name"] == "tiny"
    assert found["deep"]["architectures"][0]["losses"] == [2.6, 0.7]


def test_a_fault_is_the_exit_status(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, SOUND, Rehearsed(label="fcn", faults=("the loss does not fall",), losses=(1.0, None)))
    shown = segpipe("check", recipe, "--deep", "--runtime", "local")
    assert shown.exit_code == 1
    assert "fcn: fault: the loss does not fall" in shown.stdout
    assert "not finite in 2" in shown.stdout


def test_a_trial_that_came_to_an_end_is_the_exit_status_too(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, replace(SOUND, remembered=True), Rehearsed(label="fcn", failed="out of memory"))
    shown = segpipe("check", recipe, "--deep", "--runtime", "local")
    assert shown.exit_code == 1
    assert "fcn: could not be tried: out of memory" in shown.stdout
    assert "tried before" in shown.stdout
