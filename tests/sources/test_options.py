"""What `segpipe list sources FORMAT` explains: options as the signature of `open` has them, counts as published."""

import inspect
from pathlib import Path

import pytest

from segpipe.sources import SOURCES, open_source
from tests.fixtures.mini_datasets import WRITERS

TYPES = (str, int, float, bool)
# Their counts follow from their options.
WITHOUT_COUNTS = {"scenes", "synthia", "virtual_kitti"}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_option_is_explained_where_it_is_declared(name: str) -> None:
    info = SOURCES[name]
    declared = inspect.signature(info.open).parameters
    by_keyword = {key for key, each in declared.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    assert by_keyword <= info.options.keys(), "annotate each option with a sentence: Annotated[int, '...']"
    for key, option in info.options.items():
        assert option.kind in TYPES
        assert type(option.default) is option.kind, key
        assert len(option.help) > 10, key
        assert option.default == declared[key].default


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - WITHOUT_COUNTS))
def test_the_counts_of_the_table_are_those_of_the_source(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    assert dict(open_source(name, str(tmp_path)).expected or {}) == dict(SOURCES[name].expected)
