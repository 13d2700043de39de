"""Row B3: a night within a budget trains on all nodes of a cluster, loses one or all of them, and ends as on one.

Each start of a training on Ray takes seconds, and such a night makes seven: with `--soak` alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.trials import Trials
from tests.fixtures.two_nodes import HEAD, HELD, PATIENCE_SECONDS, ROOT, Cluster, Step, main, steps, two_nodes, until

FIRST_RUNG = 2  # steps
HOLD = FIRST_RUNG + 1  # the first one after a checkpoint, which lies in the home


@dataclass
class Night:
    """A night of the command line in a process of its own; its result, or what it said."""

    folder: Path
    environment: Mapping[str, str]
    runtime: str

    def __post_init__(self) -> None:
        code = f"import sys; from {main.__module__} import main; main(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(self.folder / "home"), str(self.folder), str(HOLD), self.runtime]
        self.errors = self.folder / "said"
        with open(self.folder / "result.json", "wb") as out, open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(command, env=dict(self.environment), stdout=out, stderr=errors)

    def held(self) -> str:
        """The label of a training that stands still on the node that is to be lost."""
        until(lambda: (self.folder / HELD).exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.errors.read_text()
        return (self.folder / HELD).read_text()

    def ended(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def result(self) -> dict[str, Any]:
        assert self.ended() == 0, self.errors.read_text()
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found


def told(result: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same wherever the night was: who was ranked where with which score, and the winner's weights."""
    rungs = [
        [(climb["label"], climb["until"], climb["score"], climb["fate"], climb["hours"]) for climb in rung["climbs"]]
        for rung in result["budget"]["rungs"]
    ]
    return {
        "rungs": rungs,
        "spent": result["budget"]["spent"],
        "left out": result["budget"]["left_out"],
        "board": [(row["label"], row["value"], row["weights_sha256"]) for row in result["board"]],
        "champion": result["verdict"]["challenger"]["weights_sha256"],
        "failures": result["failures"],
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same night in one process."""
    folder: Path = tmp_path_factory.mktemp("alone")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return told(Night(folder, environment, "local").result())


@contextmanager
def on_two_nodes(folder: Path) -> Iterator[tuple[Cluster, Night]]:
    """A night on a cluster of its own; both are ended at the end of the block."""
    with two_nodes(folder) as cluster:
        night = Night(folder, {**cluster.environment, "RAY_ADDRESS": cluster.address}, "ray")
        try:
            yield cluster, night
        finally:
            night.process.kill()
            night.process.wait()


def of(label: str, made: list[Step]) -> list[Step]:
    return [step for step in made if step.label == label]


def side_by_side(folder: Path) -> None:
    """The first two trainings of the first rung, each on a node of its own, waited for each other and met."""
    made = steps(folder)
    assert {step.number for step in made[:2]} == {1}
    assert len({step.label for step in made[:2]}) == 2
    assert len({step.node for step in made[:2]}) == 2


def one_node_is_lost(folder: Path) -> dict[str, Any]:
    """In the second rung; what it trained goes on elsewhere in the same night, from the checkpoint of the first."""
    with on_two_nodes(folder) as (cluster, night):
        label, before = night.held(), len(steps(folder))
        cluster.lose(1)
        result = night.result()
    side_by_side(folder)
    head, made = (folder / HEAD).read_text(), steps(folder)
    assert {step.node for step in made[before:]} == {head}
    again = of(label, made)
    assert [step.number for step in again][: HOLD + 1] == [*range(1, HOLD + 1), HOLD]
    assert again[HOLD - 1].node != again[HOLD].node == head
    return result


def the_cluster_is_lost(folder: Path) -> dict[str, Any]:
    """In the second rung; the night says so, and the same again on another cluster goes on there."""
    with on_two_nodes(folder) as (cluster, night):
        label, before = night.held(), len(steps(folder))
        cluster.lose(0)
        cluster.lose(1)
        status = night.ended()
    said = night.errors.read_text()
    assert status == 3, said
    assert "Traceback" not in said
    side_by_side(folder)
    with on_two_nodes(folder) as (_, again):
        result = again.result()
    later = steps(folder)[before:]
    assert min(step.number for step in later) == HOLD, "nothing of the first rung is trained again"
    assert of(label, later)[0].number == HOLD
    return result


def test_nights_on_two_nodes_end_as_on_one(trials: Trials, alone: dict[str, Any], tmp_path: Path) -> None:
    losses = [one_node_is_lost, the_cluster_is_lost]

    def trial(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        assert told(losses[number](folder)) == alone
        for label in {step.label for step in steps(folder)}:
            numbers = [step.number for step in of(label, steps(folder))]
            assert all(b - a in (0, 1) for a, b in pairwise(numbers)), f"{label} went on where it stood"

    trials.run("B3", range(len(losses)), trial)
