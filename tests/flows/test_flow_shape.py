"""Flows are paragraphs: short, without arithmetic, parsing or branching of their own; hooks have the fixed names."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import Flow
from prefect.tasks import Task

from flows import hooks, retries
from flows.evaluate import evaluate, evaluate_model
from flows.ingest import ingest, ingest_dataset
from flows.predict import predict, predict_images
from flows.promote import choose_champion, judge_last_night, promote
from flows.retrain import retrain
from flows.train import train, train_architecture, train_part, try_trainings

FLOWS = [evaluate, ingest, predict, promote, retrain, train]
TASKS: list[Task[..., Any]] = [
    choose_champion,
    evaluate_model,
    ingest_dataset,
    judge_last_night,
    predict_images,
    train_architecture,
    train_part,
    try_trainings,
]
LONGEST_BODY = 80
NOT_IN_A_PARAGRAPH = (ast.BinOp, ast.UnaryOp, ast.AugAssign, ast.For, ast.While, ast.Try, ast.Lambda, ast.FunctionDef)


def bodies() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function that is decorated as a flow or a task."""
    for path in sorted((Path(__file__).parents[2] / "flows").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(decorator).startswith(("flow(", "task(")) for decorator in node.decorator_list
            ):
                yield f"{path.stem}.{node.name}", node


def test_the_lists_are_whole() -> None:
    assert {name for name, _ in bodies()} == {
        f"{each.fn.__module__.removeprefix('flows.')}.{each.fn.__name__}" for each in (*FLOWS, *TASKS)
    }


@pytest.mark.parametrize(("name", "function"), list(bodies()), ids=[name for name, _ in bodies()])
def test_a_body_reads_as_a_paragraph(name: str, function: ast.FunctionDef) -> None:
    assert ast.get_docstring(function), f"{name} does not say what it does"
    first, last = function.body[0].lineno, function.body[-1].end_lineno
    assert last is not None
    assert last - first < LONGEST_BODY
    for statement in function.body:
        for node in ast.walk(statement):
            assert not isinstance(node, NOT_IN_A_PARAGRAPH), f"{name}, line {node.lineno}: {ast.unparse(node)}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_flow_tells_when_it_ends_badly(flow: Flow[..., object]) -> None:
    assert flow.on_failure_hooks == [hooks.announce_failure, hooks.end_what_hangs]
    assert flow.on_crashed_hooks == flow.on_cancellation_hooks == [hooks.announce_failure]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_tried_again_with_delays_and_only_when_that_can_help(task: Task[..., Any]) -> None:
    assert task.retry_condition_fn is retries.may_succeed_when_retried
    assert (task.retries, task.retry_delay_seconds) == (2, [10, 60])


@pytest.mark.parametrize(
    "name", [name for name, _ in inspect.getmembers(hooks, inspect.isfunction) if name.startswith("announce")]
)
def test_hooks_take_the_names_by_which_a_worker_calls_them(name: str) -> None:
    assert list(inspect.signature(getattr(hooks, name)).parameters) == ["flow", "flow_run", "state"]
