"""The contract of the task door: what both loops rely on holds for every task of the table."""

import ast
from pathlib import Path

import pytest

from segpipe import tasks
from segpipe.config import RunConfig
from segpipe.tasks import TASKS, TaskOps
from segpipe.types import Annotation, ClassInfo, Task
from tests.fixtures.small import CLASSES, IGNORE

ROOM = Path(tasks.__file__).parent
SHARED = (  # what several tasks are made of
    "finite",
    "headline",
    "given_boxes",
    "objects",
    "painting",
    "pixel_losses",
    "queries",
    "memory",
    "refusals",
    "regions",
    "thing_maps",
    "told",
    "views",
)
every_task = pytest.mark.parametrize("task", TASKS)


def test_no_task_is_left_out_of_the_table() -> None:
    files = {path.stem for path in (*ROOM.glob("*.py"), *(each.parent for each in ROOM.glob("*/__init__.py")))}
    files -= {"__init__", *SHARED}
    for name in sorted(files):
        line = f"TASKS: add `Task.{name.upper()}: {name.title()}Ops` in segpipe/tasks/__init__.py"
        assert name in {str(task) for task in TASKS}, line
        assert TASKS[Task(name)].__module__ == f"segpipe.tasks.{name}"
    assert len(files) == len(TASKS)


def test_a_recipe_can_ask_for_every_task() -> None:
    allowed = RunConfig.model_fields["task"].annotation
    assert {str(task) for task in TASKS} == set(allowed.__args__)  # type: ignore[union-attr]


def test_the_loops_know_no_task_by_name() -> None:
    names = {str(task) for task in Task} | {task.name for task in Task}
    for file in (
        "train/loop.py",
        "train/session.py",
        "train/optim.py",
        "evaluate.py",
        "data/loader.py",
        "stages/preflight.py",
    ):
        tree = ast.parse((ROOM.parent / file).read_text())
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        said |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not said & names, file


def test_nobody_outside_of_the_room_enters_a_task_but_by_the_door() -> None:
    names = tuple(f"segpipe.tasks.{task}" for task in TASKS)
    for file in (*ROOM.parent.glob("**/*.py"), *ROOM.parents[1].glob("flows/**/*.py")):
        if not file.is_relative_to(ROOM):
            modules = [node.module for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "module")]
            assert [each for each in modules if each and each.startswith(names)] == [], file


@every_task
def test_a_task_says_what_it_needs_and_what_decides(task: Task) -> None:
    ops: TaskOps = TASKS[task](CLASSES, IGNORE)
    assert ops.needs
    assert set(ops.needs) <= set(Annotation)
    assert ops.primary
    counts_pixels = Annotation.LABEL_MAP in ops.needs
    assert (str(IGNORE) in ops.protocol) == counts_pixels, "two ways to ignore pixels are two protocols"
    assert (TASKS[task](CLASSES, 65535).protocol != ops.protocol) == counts_pixels


@every_task
def test_a_task_has_every_operation_of_the_door(task: Task) -> None:
    operations = [name for name in vars(TaskOps) if callable(getattr(TaskOps, name)) and not name.startswith("_")]
    assert len(operations) >= 7
    assert [name for name in operations if not callable(getattr(TASKS[task], name, None))] == []


@every_task
def test_fresh_meters_share_nothing(task: Task) -> None:
    ops = TASKS[task]((ClassInfo(name="only", colour=(0, 0, 0)),), IGNORE)
    assert ops.meter() is not ops.meter()
    assert ops.primary not in ops.scores(ops.meter()), "nothing counted: no value, rather than a zero"
