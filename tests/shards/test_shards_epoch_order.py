"""The order of an epoch: a permutation, pure, another one for each epoch, and near in memory."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.shards import epoch_order
from segpipe.shards.order import BLOCK_BYTES, GROUPS_PER_BLOCK, LEAST_GROUPS

GROUPS = st.lists(st.integers(1, 8), max_size=90)
KEYS = st.integers(0, 2**40)


@given(GROUPS, KEYS, KEYS, st.text(max_size=8))
def test_every_row_comes_once(row_groups: list[int], seed: int, epoch: int, version: str) -> None:
    order = epoch_order(row_groups, seed=seed, epoch=epoch, version=version)
    assert sorted(order) == list(range(sum(row_groups)))


@given(GROUPS, KEYS, KEYS)
def test_it_is_pure(row_groups: list[int], seed: int, epoch: int) -> None:
    first = epoch_order(row_groups, seed=seed, epoch=epoch, version="v")
    assert first == epoch_order(tuple(row_groups), seed=seed, epoch=epoch, version="v")


@given(KEYS, KEYS)
def test_epoch_seed_and_version_each_change_it(seed: int, epoch: int) -> None:
    groups = [8] * 40
    orders = [
        epoch_order(groups, seed=seed, epoch=epoch, version="v"),
        epoch_order(groups, seed=seed + 1, epoch=epoch, version="v"),
        epoch_order(groups, seed=seed, epoch=epoch + 1, version="v"),
        epoch_order(groups, seed=seed, epoch=epoch, version="w"),
    ]
    assert len({tuple(order) for order in orders}) == 4


@given(GROUPS, KEYS)
def test_rows_mix_within_blocks_of_groups(row_groups: list[int], seed: int) -> None:
    """A reader that keeps one block of groups loads each group once."""
    group_of = [group for group, rows in enumerate(row_groups) for _ in range(rows)]
    visited = [group_of[row] for row in epoch_order(row_groups, seed=seed, epoch=0, version="v")]
    first_visits = list(dict.fromkeys(visited))
    blocks: list[set[int]] = []
    for group in visited:
        if not blocks or (group not in set().union(*blocks) and len(blocks[-1]) == GROUPS_PER_BLOCK):
            blocks.append(set())
        if group not in set().union(*blocks):
            blocks[-1].add(group)
    for index, block in enumerate(blocks):
        rows = sum(row_groups[group] for group in block)
        start = sum(row_groups[group] for earlier in blocks[:index] for group in earlier)
        assert set(visited[start : start + rows]) == block
    assert sorted(first_visits) == list(range(len(row_groups)))


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(1, 2 * BLOCK_BYTES)), max_size=60).filter(bool),
    KEYS,
)
def test_a_block_is_bounded_by_bytes_too(groups: list[tuple[int, int]], seed: int) -> None:
    """What a reader has to keep: row groups that are begun and not yet ended. Four may be larger."""
    rows, sizes = zip(*groups, strict=True)
    order = epoch_order(rows, seed=seed, epoch=0, version="v", group_bytes=sizes)
    assert sorted(order) == list(range(sum(rows)))
    group_of = [group for group, count in enumerate(rows) for _ in range(count)]
    left, begun = list(rows), set()
    for row in order:
        begun.add(group_of[row])
        assert sum(sizes[group] for group in begun) <= BLOCK_BYTES or len(begun) <= LEAST_GROUPS
        left[group_of[row]] -= 1
        if not left[group_of[row]]:
            begun.discard(group_of[row])


@given(st.integers(1, 60), KEYS)
def test_long_clips_are_mixed_four_at_a_time(clips: int, seed: int) -> None:
    """Each of them takes more than a block may."""
    order = epoch_order([8] * clips, seed=seed, epoch=0, version="v", group_bytes=[BLOCK_BYTES + 1] * clips)
    assert sorted(order) == list(range(8 * clips))
    blocks = [{row // 8 for row in order[at : at + 8 * LEAST_GROUPS]} for at in range(0, 8 * clips, 8 * LEAST_GROUPS)]
    assert sum(len(block) for block in blocks) == clips, "whole clips in each"
    changes = sum(one // 8 != other // 8 for one, other in itertools.pairwise(order))
    assert clips < 8 or changes > 8 * clips / 3, "one after the other it would be fewer than there are clips"


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, BLOCK_BYTES // LEAST_GROUPS)), max_size=60), KEYS)
def test_the_least_changes_nothing_where_four_groups_fit(groups: list[tuple[int, int]], seed: int) -> None:
    """The orders of datasets without large groups are those of all versions before: nobody's training changes."""
    rows, sizes = [rows for rows, _ in groups], [size for _, size in groups]
    now = epoch_order(rows, seed=seed, epoch=0, version="v", group_bytes=sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segpipe.shards.order.LEAST_GROUPS", 1)
        assert now == epoch_order(rows, seed=seed, epoch=0, version="v", group_bytes=sizes)


@given(GROUPS, KEYS)
def test_small_groups_are_ordered_as_without_sizes(row_groups: list[int], seed: int) -> None:
    sizes = [BLOCK_BYTES // GROUPS_PER_BLOCK] * len(row_groups)
    given_sizes = epoch_order(row_groups, seed=seed, epoch=0, version="v", group_bytes=sizes)
    assert given_sizes == epoch_order(row_groups, seed=seed, epoch=0, version="v")


def test_it_is_the_same_on_every_machine_and_python() -> None:
    assert epoch_order([4, 4, 2], seed=0, epoch=0, version="v") == EXPECTED
    assert epoch_order([], seed=0, epoch=0, version="v") == []


def test_a_row_goes_everywhere_over_the_epochs() -> None:
    """Row 0 of 64 groups is found in each quarter of the epoch about equally often (400 draws, 6 sigma)."""
    quarters = [0, 0, 0, 0]
    for epoch in range(400):
        order = epoch_order([8] * 64, seed=5, epoch=epoch, version="v")
        quarters[order.index(0) * 4 // len(order)] += 1
    assert all(abs(count - 100) < 6 * (400 * 0.25 * 0.75) ** 0.5 for count in quarters), quarters


EXPECTED = [9, 0, 4, 5, 3, 8, 1, 2, 6, 7]
