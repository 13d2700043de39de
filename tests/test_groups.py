"""The tests' own runner: what shares an expensive fixture runs on one worker."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GROUPED = """
import os, pathlib, pytest

pytestmark = pytest.mark.xdist_group("dear")

@pytest.fixture(scope="module", autouse=True)
def dear():
    with pathlib.Path({log!r}).open("a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + " ")

@pytest.mark.parametrize("number", range(6))
def test_nothing(number):
    pass
"""


def test_a_group_sets_its_fixtures_up_once(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Some versions of pytest and pytest-xdist, side by side, ignore groups without a word, for minutes a run."""
    pytester.makepyfile(GROUPED.format(log=str(tmp_path / "log")))
    result = pytester.runpytest_subprocess("-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=6)
    assert len((tmp_path / "log").read_text().split()) == 1


def test_no_two_files_of_tests_have_one_name() -> None:
    """Without packages pytest imports a file by its name alone, and refuses the second of two."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()
