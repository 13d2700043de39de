"""The two loaders: every batch a function of few integers, whatever the number of ranks and wherever one begins."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from segpipe.config import TrainConfig
from segpipe.data import loader
from segpipe.data.augment import augment
from segpipe.data.batch import Batch, normalise
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.loader import EvalBatches, TrainBatches
from segpipe.errors import CorruptError, InputError
from segpipe.shards import Dataset, StoredRow, epoch_order, open_dataset
from segpipe.types import IMAGENET_MEAN, IMAGENET_STD
from tests.fixtures.small import IGNORE, publish_small, small_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """18 training and 11 test images, so that neither divides by the batch."""
    uri = str(tmp_path_factory.mktemp("data"))
    publish_small(uri, train=18, val=3, test=11)
    return open_dataset(uri)


def config_of(**train: object) -> TrainConfig:
    return small_run(**train).train


def train_batches(dataset: Dataset, *, rank: int = 0, world_size: int = 1, **train: object) -> TrainBatches:
    return TrainBatches(dataset, config_of(**train), rank=rank, world_size=world_size)


def assert_equal(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    assert [batch.sample_ids for batch in ours] == [batch.sample_ids for batch in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.images_N3HW, other.images_N3HW)
        assert one.labels_NHW is not None
        assert other.labels_NHW is not None
        assert torch.equal(one.labels_NHW, other.labels_NHW)


def test_an_epoch_holds_each_sample_at_most_once_in_whole_batches(dataset: Dataset) -> None:
    batches = list(train_batches(dataset).epoch(0))
    ids = [sample_id for batch in batches for sample_id in batch.sample_ids]
    assert [len(batch.sample_ids) for batch in batches] == [4, 4, 4, 4], "the incomplete fifth is dropped"
    assert len(set(ids)) == 16
    assert set(ids) <= set(dataset.sample_ids("train"))
    for batch in batches:
        assert batch.images_N3HW.dtype == torch.uint8
        assert batch.images_N3HW.shape == (4, 3, 32, 32)
        assert batch.labels_NHW is not None
        assert batch.labels_NHW.dtype == torch.uint8
        assert batch.images_N3HW.is_contiguous(memory_format=torch.channels_last)
        assert set(batch.labels_NHW.unique().tolist()) <= {0, 1, 2, IGNORE}


def test_epochs_and_seeds_have_their_own_order_and_crops(dataset: Dataset) -> None:
    batches = train_batches(dataset)
    other_seed = train_batches(dataset, seed=1)
    orders = [batches.sample_ids(0, 0), batches.sample_ids(1, 0), other_seed.sample_ids(0, 0)]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    dropped = {frozenset(i for position in range(4) for i in batches.sample_ids(epoch, position)) for epoch in range(6)}
    assert len(dropped) > 1, "it is not always the same samples that the incomplete batch leaves out"


def test_a_batch_is_made_of_decode_and_augment_and_nothing_else(dataset: Dataset) -> None:
    config = config_of(input_scale=0.75, seed=7)
    samples = {sample.sample_id: sample for sample in dataset.samples("train")}
    batch = next(train_batches(dataset, input_scale=0.75, seed=7).epoch(3, start=2))
    for number, sample_id in enumerate(batch.sample_ids):
        expected = augment(
            decode(samples[sample_id]), config.augment, input_scale=0.75, seed=7, epoch=3, ignore_index=IGNORE
        )
        assert torch.equal(batch.images_N3HW[number], expected.image_3HW)
        assert batch.labels_NHW is not None
        assert torch.equal(batch.labels_NHW[number], expected.labels_HW)  # type: ignore[union-attr]


@pytest.mark.parametrize("start", range(5))
def test_a_resume_at_any_position_meets_the_same_batches(dataset: Dataset, start: int) -> None:
    whole = list(train_batches(dataset).epoch(1))
    assert_equal(list(train_batches(dataset).epoch(1, start=start)), whole[start:])


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 2**32),
    st.data(),
)
def test_global_batches_are_the_same_for_any_ranks_accumulation_and_resume(
    groups: list[int], world_size: int, share: int, accumulate: int, seed: int, data: st.DataObject
) -> None:
    """Rows B1 and B5 of the goal sheet: an epoch that changes its number of workers at any step, again and again."""
    made = LikeADataset(tuple(groups))
    size = world_size * share
    assume(sum(groups) >= size * accumulate)
    config = config_of(batch_size=size, accumulate=accumulate, seed=seed)
    order = made.order("train", seed=seed, epoch=3)
    steps = sum(groups) // (size * accumulate)
    other_sizes = [other for other in range(1, 9) if size % other == 0]
    position, met = 0, []
    while position < steps * accumulate:
        until = data.draw(st.integers(position + 1, steps * accumulate))
        workers = data.draw(st.sampled_from(other_sizes))
        ranks = [TrainBatches(made, config, rank=r, world_size=workers) for r in range(workers)]  # type: ignore[arg-type]
        assert {batches.micro_batches for batches in ranks} == {steps * accumulate}
        rows = [batches.rows(3, start=position) for batches in ranks]
        for step in range(until - position):
            piece = size // workers
            met.append([row for mine in rows for row in mine[step * piece : (step + 1) * piece]])
        position = until
    assert met == [order[at * size : (at + 1) * size] for at in range(steps * accumulate)]
    assert len({row for batch in met for row in batch}) == size * accumulate * steps, "each row at most once"


@dataclass
class LikeADataset:
    """As much of a `Dataset` as decides which rows make a batch."""

    groups: tuple[int, ...]
    uri: str = "made-up"

    def rows(self, split: str) -> int:
        return sum(self.groups)

    def order(self, split: str, *, seed: int, epoch: int) -> list[int]:
        return epoch_order(self.groups, seed=seed, epoch=epoch, version="v")


def test_a_thread_decodes_few_images_at_once_and_large_ones_alone(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many are in hand together changes no batch."""
    expected, real, taken = list(train_batches(dataset).epoch(2)), loader._parts, list[int]()

    def parts(batch: Sequence[tuple[StoredRow, int]], most: int) -> list[list[tuple[StoredRow, int]]]:
        found = real(batch, most)
        taken.extend(len(part) for part in found)
        return found

    monkeypatch.setattr(loader, "_parts", parts)
    for at_once, pixels, lengths in ((8, 4_000_000, {4}), (3, 4_000_000, {3, 1}), (8, 1, {1})):
        monkeypatch.setattr(loader, "_TOGETHER", at_once)
        monkeypatch.setattr(loader, "_PIXELS_TOGETHER", pixels)
        taken.clear()
        assert_equal(list(train_batches(dataset).epoch(2)), expected)
        assert set(taken) == lengths


def test_no_thread_is_left_without_a_part_of_a_batch(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    real, most = loader._parts, set[int]()
    monkeypatch.setattr(loader, "_parts", lambda batch, number: most.add(number) or real(batch, number))
    for threads, number in ((1, 8), (3, 4), (6, 2), (40, 1)):
        most.clear()
        assert len(list(train_batches(dataset, loader_threads=threads).epoch(0))) == 4
        assert most == {number}


def test_more_threads_change_nothing(dataset: Dataset) -> None:
    assert_equal(list(train_batches(dataset, loader_threads=4).epoch(0)), list(train_batches(dataset).epoch(0)))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("start", [0, 2])
def test_ranks_cut_the_same_global_batches(dataset: Dataset, world_size: int, start: int) -> None:
    whole = list(train_batches(dataset).epoch(2, start=start))
    ranks = [
        list(train_batches(dataset, rank=rank, world_size=world_size).epoch(2, start=start))
        for rank in range(world_size)
    ]
    for at, expected in enumerate(whole):
        parts = [ranks[rank][at] for rank in range(world_size)]
        assert sum((part.sample_ids for part in parts), ()) == expected.sample_ids
        assert torch.equal(torch.cat([part.images_N3HW for part in parts]), expected.images_N3HW)
    assert {len(batches) for batches in ranks} == {len(whole)}


def test_sample_ids_are_those_of_the_global_batch(dataset: Dataset) -> None:
    for rank, world_size in ((0, 1), (1, 2)):
        batches = train_batches(dataset, rank=rank, world_size=world_size)
        whole = train_batches(dataset).epoch(1)
        assert [batches.sample_ids(1, at) for at in range(4)] == [list(batch.sample_ids) for batch in whole]


def test_accumulation_keeps_whole_steps_only(dataset: Dataset) -> None:
    batches = train_batches(dataset, batch_size=3, accumulate=4)
    assert batches.micro_batches == 4
    config = config_of(batch_size=3, accumulate=4, epochs=3)
    assert (config.steps_per_epoch(18), config.steps(18), config.steps_per_epoch(24)) == (1, 3, 2)
    assert (config.steps_per_epoch(11), config.steps(11)) == (0, 0)
    assert len(list(batches.epoch(0))) == 4


@pytest.mark.parametrize(
    ("train", "world_size", "message"),
    [
        ({"batch_size": 6}, 4, r"train.batch_size is 6, which does not divide over 4 workers; choose a multiple of 4"),
        ({"batch_size": 19}, 1, r"split 'train' has 18 samples, and one step needs 19"),
        ({"batch_size": 4, "accumulate": 5}, 1, r"18 samples, and one step needs 20 .*accumulate.*; lower them"),
        ({"train_split": "nope"}, 1, r"no split 'nope'.*it has: test, train, val"),
    ],
)
def test_what_cannot_make_a_step_is_refused(
    dataset: Dataset, train: dict[str, object], world_size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_batches(dataset, world_size=world_size, **train)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 13])
def test_evaluation_sees_each_sample_once_in_batches_that_no_rank_changes(
    dataset: Dataset, batch_size: int, world_size: int
) -> None:
    def batches(rank: int, size: int) -> list[tuple[str, ...]]:
        loader = EvalBatches(dataset, "test", batch_size=batch_size, rank=rank, world_size=size)
        found = [batch.sample_ids for batch in loader]
        assert len(found) == len(loader)
        return found

    alone = batches(0, 1)
    dealt = [batches(rank, world_size) for rank in range(world_size)]
    assert [sample_id for batch in alone for sample_id in batch] == dataset.sample_ids("test")
    assert sorted(batch for rank in dealt for batch in rank) == sorted(alone)
    assert max(len(batch) for batch in alone) == min(batch_size, 2), "a size lasts for two images in this split"


def test_evaluation_gives_whole_images_at_their_own_size(dataset: Dataset) -> None:
    samples = {sample.sample_id: sample for sample in dataset.samples("test")}
    sizes = set()
    for batch in EvalBatches(dataset, "test", batch_size=4):
        for number, sample_id in enumerate(batch.sample_ids):
            expected: DecodedSample = decode(samples[sample_id])
            assert batch.original_sizes[number] == (samples[sample_id].height, samples[sample_id].width)
            assert torch.equal(batch.images_N3HW[number], expected.image_3HW)
            assert batch.labels_NHW is not None
            assert torch.equal(batch.labels_NHW[number], expected.labels_HW)  # type: ignore[union-attr]
            sizes.add(batch.original_sizes[number])
    assert sizes == {(32, 40), (40, 32)}


def test_batches_are_made_under_inference_mode_too(dataset: Dataset) -> None:
    expected = list(EvalBatches(dataset, "test", batch_size=4)), list(train_batches(dataset).epoch(0))
    with torch.inference_mode():
        found = list(EvalBatches(dataset, "test", batch_size=4)), list(train_batches(dataset).epoch(0))
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal(ours, theirs)


def test_a_rank_reads_the_rows_that_follow_each_other(dataset: Dataset) -> None:
    """So it fetches the shards of its share alone."""
    dealt = [EvalBatches(dataset, "test", batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    ids = [sample_id for batches in dealt for batch in batches for sample_id in batch.sample_ids]
    assert ids == dataset.sample_ids("test")
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_sizes_that_were_other_ones_when_they_were_looked_up_are_an_error(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "sizes", lambda split: [(32, 32)] * dataset.rows(split))
    with pytest.raises(CorruptError, match=r"test '.*' is 32 x 40, and was \(32, 32\) when it was looked up"):
        list(EvalBatches(dataset, "test", batch_size=4))


def test_a_missing_split_is_named_with_those_that_are_there(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="has no split 'nope'; it has: test, train, val"):
        EvalBatches(dataset, "nope", batch_size=4)


def test_an_error_in_a_thread_reaches_the_loop(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataset.sample_ids("test")[4]

    def refuse(sample: object) -> DecodedSample:
        if sample.sample_id == broken:  # type: ignore[attr-defined]
            raise CorruptError(f"sample {broken}: broken on purpose")
        return decode(sample)  # type: ignore[arg-type]

    monkeypatch.setattr("segpipe.data.loader.decode", refuse)
    seen = []
    with pytest.raises(CorruptError, match=f"sample {broken}: broken on purpose"):
        seen += [batch.sample_ids for batch in EvalBatches(dataset, "test", batch_size=1)]
    assert seen == []


def test_leaving_an_epoch_early_leaves_no_thread(dataset: Dataset) -> None:
    import threading

    batches = train_batches(dataset).epoch(0)
    next(batches)
    batches.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("segpipe-loader", "segpipe-reader"))]


def test_normalise_takes_out_mean_and_deviation() -> None:
    images_N3HW = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images_N3HW.clone()
    normal = normalise(images_N3HW)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        expected = (images_N3HW[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(normal[:, channel].double(), expected, rtol=1e-5, atol=1e-5)
    assert normal.dtype == torch.float32
    assert torch.equal(images_N3HW, before)
    floats_N3HW = images_N3HW.float()
    normalise(floats_N3HW)
    assert torch.equal(floats_N3HW, before.float()), "a float input (resized for input_scale) is not changed either"
