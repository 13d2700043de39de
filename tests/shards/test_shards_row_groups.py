"""The row groups in use stay in memory, and no more than the bound says: an epoch reads each of them once."""

from pathlib import Path

import pytest

from segpipe import shards
from segpipe.shards import open_dataset, row_groups
from tests.fixtures.samples import manifest_of, semantic_sample


def test_a_long_epoch_reads_each_row_group_once_and_keeps_two_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read ahead is older than what is exhausted and must not go first."""
    blocks, rows = 12, 6
    monkeypatch.setattr("segpipe.shards.order.GROUPS_PER_BLOCK", 4)
    monkeypatch.setattr("segpipe.shards.reader.GROUPS_PER_BLOCK", 4)
    samples = [semantic_sample(n) for n in range(blocks * 4 * rows)]
    result = shards.write_shard(samples, str(tmp_path), "train", group_rows=rows)
    shards.publish(str(tmp_path), manifest_of([result]))
    dataset = open_dataset(str(tmp_path))
    dataset._row_groups = kept = row_groups.RowGroups(str(tmp_path), max_groups=8)
    order = dataset.order("train", seed=3, epoch=0)
    for row, sample in zip(order, dataset.read("train", order), strict=True):
        assert sample == samples[row]
        with kept._lock:  # one comes before another goes
            assert len(kept._groups) <= 8
    assert kept.loads == blocks * 4
    assert not kept._held


def test_a_block_of_long_clips_is_read_once(tmp_path: Path) -> None:
    """Row groups of which each takes more than all may: those of a block are kept while their rows are mixed."""
    samples = [semantic_sample(n) for n in range(24 * 6)]
    result = shards.write_shard(samples, str(tmp_path), "train", group_rows=6)
    assert result.shard is not None
    order = shards.epoch_order([6] * 24, seed=0, epoch=0, version="v", group_bytes=[1 << 30] * 24)
    shards.publish(str(tmp_path), manifest_of([result]))
    dataset = open_dataset(str(tmp_path))
    dataset._row_groups = kept = row_groups.RowGroups(str(tmp_path), max_bytes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpipe.shards.reader.estimate", lambda _: 1 << 30)
        for row, sample in zip(order, dataset.read("train", order), strict=True):
            assert sample == samples[row]
            with kept._lock:  # one comes before another goes
                assert len(kept._groups) <= row_groups.LEAST_KEPT == 5
    assert kept.loads == 24


def test_what_is_held_goes_last_but_the_bound_stands(tmp_path: Path) -> None:
    result = shards.write_shard([semantic_sample(n) for n in range(12)], str(tmp_path), "train", group_rows=2)
    assert result.shard is not None
    kept = row_groups.RowGroups(str(tmp_path), max_groups=2)
    kept.hold(result.shard, 0)
    kept.hold(result.shard, 0)
    for group, loads in ((1, 2), (2, 3), (0, 3), (1, 4), (0, 4)):
        kept.get(result.shard, group)
        assert kept.loads == loads
    kept.release(result.shard, 0)
    kept.hold(result.shard, 3)
    kept.hold(result.shard, 4)
    assert set(kept._groups) == {(result.shard.path, 3, True), (result.shard.path, 4, True)}
    kept.release(result.shard, 0)
    assert set(kept._held) == {(result.shard.path, 3, True), (result.shard.path, 4, True)}
