"""A Prefect server of the tests' own, and stages that answer at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from segpipe import promotion
from segpipe.config import EvaluateConfig, Recipe
from segpipe.stages import evaluate as evaluate_stage
from segpipe.stages import mirror, opening
from segpipe.stages import promote as promote_stage
from segpipe.stages import retrain as night_stage
from segpipe.stages.ingest import IngestResult
from segpipe.stages.rehearsal import Rehearsed, RehearsedNight
from segpipe.train.runtime import OnProgress
from segpipe.types import EvalReport, TrainProgress
from tests.fixtures.example_reports import scored

RECIPE = """
name: tiny_set
dataset: {name: tiny_set, format: scenes, options: {train: 2, val: 1, test: 1, height: 32, width: 40}}
architectures: [{arch: unet, label: first}, {arch: unet, label: second}, {arch: unet, label: third}]
train: {epochs: 1, batch_size: 2, augment: {crop: [32, 32]}}
"""


@pytest.fixture(scope="session")
def _prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(server_startup_timeout=180):
        yield


@dataclass
class Stages:
    """What the replaced stages are to do, and what they were asked. An exception as outcome is raised each time."""

    outcomes: dict[str, float | Exception] = field(default_factory=lambda: {"first": 0.5, "second": 0.7, "third": 0.6})
    tried: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    scored: list[tuple[str, str, str]] = field(default_factory=list)  # model, dataset version, split
    closed: list[str] = field(default_factory=list)  # how the runs in MLflow ended that no verdict ends
    floor: float = 0.0

    def open_night(self, recipe: Recipe, dataset: IngestResult) -> opening.OpenNight:
        runs = tuple(recipe.run_configs())
        return opening.OpenNight(dataset=dataset, runs=runs, parent=None, nothing_to_do=False)

    def rehearsed(self, recipe: Recipe, night: opening.OpenNight) -> tuple[opening.OpenNight, RehearsedNight | None]:
        self.tried += [run.label for run in night.runs]
        tried = tuple(Rehearsed(label=run.label, cautions=("its loss falls by little",)) for run in night.runs)
        return night, RehearsedNight(architectures=tried, hours=0.5, core_hours=1.0)

    def train_and_evaluate(
        self, recipe: Recipe, index: int, night: opening.OpenNight, *, on_progress: OnProgress
    ) -> EvalReport:
        label = recipe.run_config(index).label
        on_progress(TrainProgress({"train/loss": 0.5}, 1, 2))
        self.trained.append(label)
        outcome = self.outcomes[label]
        if isinstance(outcome, Exception):
            raise outcome
        return scored(outcome, label, experiment=recipe.name)

    def choose(
        self, recipe: Recipe, night: opening.OpenNight, candidates: list[EvalReport], failures: dict[str, str]
    ) -> promotion.Verdict:
        self.judged = [report.label for report in candidates]
        best = max(candidates, key=lambda report: report.value)
        return promotion.judge(best, None, promotion.Rules(floor=self.floor))

    def judge_again(self, recipe: Recipe) -> promotion.Verdict:
        self.judged.append(f"{recipe.name} again")
        outcome = self.outcomes["first"]
        if isinstance(outcome, Exception):
            raise outcome
        return promotion.judge(scored(outcome, "first"), None, promotion.Rules(floor=recipe.promote.floor))

    def evaluate(self, model_uri: str, *, version: str, config: EvaluateConfig, label: str, **_: Any) -> EvalReport:
        self.scored.append((model_uri, version, config.split))
        outcome = self.outcomes[label]
        if isinstance(outcome, Exception):
            raise outcome
        return scored(outcome, label)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, _prefect_server: None) -> Stages:
    """The flows on a real Prefect server and a real, tiny ingest; trying, training and judging are replaced."""
    replaced = Stages()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(night_stage, "warm_up", lambda: None)
    for room, name in (
        (opening, "open_night"),
        (opening, "rehearsed"),
        (night_stage, "train_and_evaluate"),
        (night_stage, "choose"),
    ):
        monkeypatch.setattr(room, name, getattr(replaced, name))
    monkeypatch.setattr(promote_stage, "judge_again", replaced.judge_again)
    monkeypatch.setattr(evaluate_stage, "evaluate", replaced.evaluate)
    monkeypatch.setattr(mirror, "close_finished", lambda experiment, parent: replaced.closed.append("finished"))
    monkeypatch.setattr(mirror, "close_failed", lambda experiment, parent: replaced.closed.append("failed"))
    return replaced


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny_set.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def artifacts(_prefect_server: None) -> Callable[[str], dict[str, Any]]:
    """The newest content of every artifact of a type, by key."""
    from prefect.client.orchestration import get_client

    def read(kind: str) -> dict[str, Any]:
        with get_client(sync_client=True) as client:
            found = client.read_latest_artifacts()
        return {artifact.key: artifact.data for artifact in found if artifact.type == kind and artifact.key}

    return read
