"""Which code made a result."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segpipe import __version__, version


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of two rooms of the package, which `code_version` takes for the whole."""
    source, copy = Path(version.__file__).parent, tmp_path / "segpipe"
    shutil.copytree(source / "metrics", copy / "metrics", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "version.py", copy)
    monkeypatch.setattr(version, "__file__", str(copy / "version.py"))
    version.code_version.cache_clear()
    yield copy
    version.code_version.cache_clear()


def fresh() -> str:
    version.code_version.cache_clear()
    return version.code_version()


def test_it_is_the_release_and_twelve_digits() -> None:
    assert re.fullmatch(re.escape(__version__) + r"\+[0-9a-f]{12}", version.code_version())
    assert version.code_version() == version.code_version()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "metrics" / "confusion.py").write_text("x = 1\n"),
        lambda root: (root / "metrics" / "confusion.py").rename(root / "metrics" / "confused.py"),
        lambda root: (root / "metrics" / "confusion.py").unlink(),
        lambda root: (root / "new.py").write_text(""),
        lambda root: (root / "metrics" / "confusion.py").rename(root / "confusion.py"),
    ],
    ids=["edited", "renamed", "deleted", "added", "moved"],
)
def test_any_change_of_the_code_shows(change: Callable[[Path], object], package: Path) -> None:
    before = fresh()
    change(package)
    assert fresh() != before


def test_place_dates_order_and_caches_do_not_show(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fresh()
    (package / "metrics" / "__pycache__").mkdir()
    (package / "metrics" / "__pycache__" / "confusion.cpython-311.pyc").write_bytes(b"x")
    (package / "notes.md").write_text("not code")
    assert fresh() == before
    moved = shutil.copytree(package, tmp_path / "elsewhere" / "segpipe", copy_function=shutil.copyfile)
    monkeypatch.setattr(version, "__file__", str(Path(moved) / "version.py"))
    assert fresh() == before


def test_one_process_names_one_code_even_if_its_files_change_meanwhile(package: Path) -> None:
    before = fresh()
    (package / "new.py").write_text("x = 1")
    assert version.code_version() == before
