"""What every test stands on: one thread, a SEGPIPE_HOME of its own, no service of the outside world."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.fixtures import learnt
from tests.fixtures.trials import PROPERTY, Trials, table

settings.register_profile("segpipe", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("segpipe")
# The order in which several threads add floats may differ. Set here: a session's fixtures come before those of a test.
torch.set_num_threads(1)
# What a shell starts in the background ignores Ctrl-C, and so would the programs that tests start to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What would make a test reach a service, or a cache, that is not its own.
OUTSIDE = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_PROFILE",
    "RAY_ADDRESS",
    "AWS_ENDPOINT_URL",
    "SEGPIPE_CACHE",
    "SEGPIPE_CACHE_GIB",
    "SEGPIPE_FAILPOINT",
)


# Warnings of MLflow's own code, which nobody here can mend, by the room whose tests meet them.
THIRD_PARTY_WARNINGS = {
    "stages": ("The ``noload`` loader strategy is deprecated",),  # MLflow 3.17 on SQLAlchemy 2.1
    "tracking": (".*Any type hint is inferred as AnyType",),
    "test_serving.py": (".*Any type hint is inferred as AnyType",),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("segpipe", "the goal sheet of reliability (tests/soak)")
    group.addoption("--soak", action="store_true", help="every trial of every row, not a tenth; a table at the end")
    group.addoption("--learn", action="store_true", help="tests/learn as a whole; a table at the end")
    group.addoption("--trial", type=int, metavar="N", help="this trial of the chosen test alone, to repeat a fault")


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """How many trials this test makes, and where it counts them."""
    return Trials(
        soak=request.config.getoption("--soak"),
        only=request.config.getoption("--trial"),
        node=request.node.nodeid,
        told=request.node.user_properties,
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The rows of the goal sheet with their counts, after a soak; what each network learnt, after `--learn`."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    for option, title, rows in (("--soak", PROPERTY, table), ("--learn", learnt.PROPERTY, learnt.table)):
        if terminalreporter.config.getoption(option):
            terminalreporter.section(title)
            for line in rows([value for each in reports for name, value in each.user_properties if name == title]):
                terminalreporter.write_line(line)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make learn` alone collects tests/learn, which trains for half an hour, and `make soak` the nights on a cluster,
    of which there is no tenth."""
    option = {"learn": "--learn", "test_nights_on_nodes.py": "--soak"}.get(collection_path.name)
    return True if option and not config.getoption(option) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        for message in THIRD_PARTY_WARNINGS.get(room, ()):
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))
    # Groups are chains of minutes that one worker works off: begun last, the other would have nothing left to do.
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home that nobody else has, and one thread again after a test that chose another number."""
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    home: Path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SEGPIPE_HOME", str(home / "segpipe"))
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    yield
    torch.set_num_threads(1)


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest works in this process: starting others costs more than these tiny datasets."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
