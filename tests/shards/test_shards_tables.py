"""Parquet files that others wrote: any row, in any order, in small memory; and what is no such file."""

import pickle
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.errors import InputError
from segpipe.shards import TableRows, describe_table

ROWS = 45


@pytest.fixture
def file(tmp_path: Path) -> str:
    cells = [{"bytes": bytes([number]) * 9, "path": None} for number in range(ROWS)]
    table = pa.table({"image": cells, "n": list(range(ROWS))}).replace_schema_metadata({"huggingface": "{}"})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=20)
    return str(tmp_path / "t.parquet")


def test_the_footer_tells_rows_columns_and_notes(file: str) -> None:
    info = describe_table(file)
    assert info.rows == ROWS
    assert info.columns["n"] == "int64"
    assert info.columns["image"].startswith("struct<bytes: binary")
    assert info.notes["huggingface"] == b"{}"


@pytest.mark.parametrize("remote", [False, True])
def test_rows_come_in_any_order(file: str, remote: bool) -> None:
    uri = file
    if remote:
        uri = "memory://tables/t.parquet"
        fsspec.filesystem("memory").put(file, "/tables/t.parquet")
    rows = TableRows()
    order = [0, 1, 2, 44, 7, 7, 19, 20, 40, 39, 0]
    for rows_of_one in (rows, pickle.loads(pickle.dumps(rows))):
        assert [rows_of_one.row(uri, number, ["n", "image"])["n"] for number in order] == order
    assert rows.row(uri, 3, ["image"]) == {"image": {"bytes": b"\3" * 9, "path": None}}


def test_rows_in_order_decode_each_batch_once(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, *given: object, **named: object):  # type: ignore[no-untyped-def]
        for batch in iter_batches(self, *given, **named):
            batches.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    rows = TableRows()
    assert [rows.row(file, number, ["n"])["n"] for number in range(ROWS)] == list(range(ROWS))
    assert sum(batches) == ROWS
    assert max(batches) <= 8


def test_a_row_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    uri = str(tmp_path / "bomb.parquet")
    pq.write_table(pa.table({"image": [bytes(257 << 20)]}), uri, compression="zstd", use_dictionary=False)
    assert Path(uri).stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"bomb.parquet: 269,\d+,\d+ bytes in 1 rows; allowed are 268,435,456 a row"):
        TableRows().row(uri, 0, ["image"])


def read_first(uri: str) -> None:
    describe_table(uri)
    TableRows().row(uri, 0, ["image"])


def test_what_cannot_be_read_is_named(file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.parquet: has no row 45"):
        TableRows().row(file, ROWS, ["n"])
    whole = Path(file).read_bytes()
    for name, data in (("none", None), ("empty", b""), ("text", b"no parquet"), ("cut", whole[:-9]), ("hole", None)):
        damaged = tmp_path / f"{name}.parquet"
        if data is not None:
            damaged.write_bytes(data)
        if name == "hole":
            damaged.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
        with pytest.raises(InputError, match=rf"{name}\.parquet: .*expected a Parquet file: fetch it again"):
            read_first(str(damaged))
