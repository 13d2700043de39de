"""Ingest over a damaged dataset: each damaged file is named, deleting it and ingesting again mends it."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.config import DatasetConfig
from segpipe.errors import CorruptError
from segpipe.shards import open_dataset
from segpipe.stages.ingest import IngestResult, ingest
from tests.fixtures import check_dataset
from tests.fixtures.ingest_worker import streets

pytestmark = pytest.mark.xdist_group("ingest")


@pytest.fixture
def ingested(source: Path, tmp_path: Path, one_core: None) -> tuple[DatasetConfig, IngestResult]:
    config = streets(shutil.copytree(source, tmp_path / "root"))
    return config, ingest(config, to=str(tmp_path / "to"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def touch_source(config: DatasetConfig) -> None:
    """Files of another date have no receipt, and are read again."""
    os.utime(Path(config.root) / "images" / "val_000.png", (1, 1))


def assert_mended(config: DatasetConfig, first: IngestResult) -> None:
    assert ingest(config, to=first.uri).version == first.version
    assert check_dataset.versions(Path(first.uri)) == [first.version]
    assert ingest(config, to=first.uri).status == "already_published"


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_shard_is_named_when_it_is_read(
    damage: Callable[[Path], None], ingested: tuple[DatasetConfig, IngestResult]
) -> None:
    config, first = ingested
    shard = next((Path(first.uri) / "shards").glob("val-*"))
    damage(shard)
    with pytest.raises(CorruptError, match=rf"^{shard}: sha256 \w+, the manifest says .* delete it and ingest again"):
        list(open_dataset(first.uri).samples("val"))
    shard.unlink()
    assert_mended(config, first)


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_shard_in_the_way_of_its_like_is_named(
    damage: Callable[[Path], None],
    cores: int,
    ingested: tuple[DatasetConfig, IngestResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, first = ingested
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    shard = next((Path(first.uri) / "shards").glob("val-*"))
    damage(shard)
    touch_source(config)
    with pytest.raises(CorruptError) as caught:
        ingest(config, to=first.uri)
    message = str(caught.value)
    assert message.startswith(f"{shard}: is damaged: sha256 ")
    assert f"its name says {shard.stem.rpartition('-')[2][:12]}. Delete this file and ingest again" in message
    assert check_dataset.leftovers(Path(first.uri)) == []
    shard.unlink()
    assert_mended(config, first)


def test_a_shard_that_was_cut_short_is_found_without_reading_the_source(
    ingested: tuple[DatasetConfig, IngestResult], caplog: pytest.LogCaptureFixture
) -> None:
    config, first = ingested
    shard = next((Path(first.uri) / "shards").glob("val-*"))
    cut(shard)
    with pytest.raises(CorruptError, match=rf"^{shard}: is damaged"):
        ingest(config, to=first.uri)
    assert "ingesting again, the dataset has lost files since: " in caplog.text
    shard.unlink()
    assert_mended(config, first)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"version": 3}', "{}"],
    ids=["empty", "no-object", "torn", "wrong-type", "no-version"],
)
def test_a_damaged_receipt_costs_one_reading_and_is_written_anew(
    content: str, ingested: tuple[DatasetConfig, IngestResult], caplog: pytest.LogCaptureFixture
) -> None:
    config, first = ingested
    (receipt,) = (Path(first.uri) / "receipts").iterdir()
    before = receipt.read_bytes()
    receipt.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert_mended(config, first)
    (warning,) = caplog.messages
    assert warning.startswith(f"ingesting again, this listing's receipt is damaged: {receipt}: ")
    assert receipt.read_bytes() == before


def test_a_receipt_of_a_version_that_is_gone_does_not_stand_in_the_way(
    ingested: tuple[DatasetConfig, IngestResult], caplog: pytest.LogCaptureFixture
) -> None:
    """As after an upgrade of pyarrow, whose shards have other bytes, into a home that has lost the old version."""
    config, first = ingested
    (receipt,) = (Path(first.uri) / "receipts").iterdir()
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"version": "0" * 64}))
    with caplog.at_level(logging.WARNING):
        assert_mended(config, first)
    (warning,) = caplog.messages
    assert "the dataset has lost files since: " in warning
    assert json.loads(receipt.read_text())["version"] == first.version
