"""A row group in memory says of each row what Arrow says of it, however it keeps the values."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pytest

from segpipe.errors import CorruptError
from segpipe.shards.rows import Rows, StoredRow
from segpipe.shards.schema import SCHEMA, sample_to_row
from segpipe.types import Sample
from tests.fixtures.samples import full_sample, semantic_sample

MIXED = [semantic_sample(0), full_sample(1), replace(semantic_sample(2), label_map=None), full_sample(3)]


def rows_of(samples: Sequence[Sample], *, extras: bool = True) -> Rows:
    table = pa.Table.from_pylist([sample_to_row(sample) for sample in samples], schema=SCHEMA)
    return Rows(table if extras else table.drop_columns(["extras"]))


@pytest.mark.parametrize("samples", [MIXED, [semantic_sample(n) for n in range(5)], [full_sample(n) for n in range(3)]])
def test_each_row_is_the_sample_that_was_stored(samples: list[Sample]) -> None:
    rows = rows_of(samples)
    assert len(rows) == len(samples)
    assert [StoredRow(rows, number).sample() for number in range(len(rows))] == samples
    expected = [{key: value for key, value in sample_to_row(s).items() if key != "image_sha256"} for s in samples]
    assert list(rows) == expected


def test_rows_read_without_extras_have_none() -> None:
    rows = rows_of(MIXED, extras=False)
    assert [StoredRow(rows, number).sample() for number in range(4)] == [replace(s, extras={}) for s in MIXED]


def test_columns_that_no_row_fills_are_not_asked_row_by_row() -> None:
    assert set(rows_of([semantic_sample(0), semantic_sample(1)])._large) == {"image", "label_map"}
    assert set(rows_of(MIXED)._large) == {"image", "label_map", "segment_map", "segments", "keypoints", "extras"}


def test_bytes_in_memory_count_all_columns() -> None:
    table = pa.Table.from_pylist([sample_to_row(sample) for sample in MIXED], schema=SCHEMA)
    assert Rows(table).nbytes == table.nbytes


def test_a_map_that_does_not_unpack_is_corrupt_where_it_is_unpacked() -> None:
    row = {**sample_to_row(semantic_sample(7)), "label_map": b"no zstd"}
    rows = Rows(pa.Table.from_pylist([row, sample_to_row(semantic_sample(8))], schema=SCHEMA))
    assert StoredRow(rows, 1).sample() == semantic_sample(8)
    with pytest.raises(CorruptError, match=r"drive/00007.*label_map does not unpack"):
        StoredRow(rows, 0).sample()


def test_several_threads_may_read_the_same_rows() -> None:
    rows = rows_of([full_sample(n) for n in range(8)])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: StoredRow(rows, number % 8).sample(), range(400)))
    assert found == [full_sample(n % 8) for n in range(400)]
