"""The committed table of CamVid: what it says was published is what the architectures say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from segpipe import models
from segpipe.models.spec import DenseOutput
from segpipe.types import Task

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    found = importlib.util.spec_from_file_location("camvid_table", BENCHMARKS / "camvid_table.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_published_number_is_the_one_of_its_architecture(tool: ModuleType) -> None:
    """Else: print the lines again with `benchmarks/camvid.py table`."""
    table, published = (BENCHMARKS / "camvid.md").read_text().split("## Published, each under its own protocol\n")
    rows = [
        line.strip("| ").split(" | ") for line in table.splitlines() if re.match(r"\| [a-z_0-9]+[, ].*\d \|$", line)
    ]
    titles = next(line for line in table.splitlines() if line.startswith("| architecture")).strip("| ").split(" | ")
    names = [row[0].split(",")[0] for row in rows]
    dense = {name for name in models.names(Task.SEMANTIC) if models.spec(name).output is DenseOutput}
    assert set(names) == dense
    for name, row in zip(names, rows, strict=True):
        assert row[titles.index("published mIoU")] == tool.published_on_camvid(name), name
    assert published.split("\n")[1:-1] == [line for name in sorted(dense) for line in tool.published_lines(name)]
