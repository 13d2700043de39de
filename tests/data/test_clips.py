"""Runs of frames from clips: pure, in frame order, inside one clip; over made-up clips and, where there, over DAVIS."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from segpipe import shards
from segpipe.config import DatasetConfig
from segpipe.data.clips import Clips
from segpipe.errors import InputError
from segpipe.shards import Dataset, open_dataset
from segpipe.stages.ingest import ingest
from segpipe.types import Sample
from tests.fixtures.samples import manifest_of, semantic_sample

DATA = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
LENGTHS = {"a": 7, "b": 3, "c": 12}


def frame(number: int, clip: str | None, index: int | None) -> Sample:
    return replace(semantic_sample(number), clip_id=clip, frame_index=index)


def publish(uri: str, samples: Sequence[Sample]) -> Dataset:
    shards.publish(uri, manifest_of([shards.write_shard(samples, uri, "train", group_rows=5)]))
    return open_dataset(uri)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three clips whose frames are stored backwards, each second number, between stills."""
    clips = [(clip, index) for clip, length in LENGTHS.items() for index in reversed(range(0, 2 * length, 2))]
    frames: list[tuple[str | None, int | None]] = [(None, None), *clips, (None, None)]
    return publish(str(tmp_path), [frame(number, *each) for number, each in enumerate(frames)])


def test_clips_lie_whole_in_row_groups(dataset: Dataset) -> None:
    assert dataset.row_groups("train") == (1, 7, 3, 12, 1), "a clip of more rows than a group takes is one of its own"
    assert {clip: len(rows) for clip, rows in Clips(dataset, "train", frames=1).rows.items()} == LENGTHS


@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (3, 1), (3, 3), (2, 6), (7, 1)])
def test_a_run_is_so_many_frames_in_order_so_far_apart(dataset: Dataset, frames: int, stride: int) -> None:
    clips = Clips(dataset, "train", frames=frames, stride=stride)
    span = (frames - 1) * stride + 1
    assert set(clips.rows) == {clip for clip, length in LENGTHS.items() if length >= span}
    assert set(clips.too_short) == set(LENGTHS) - set(clips.rows)
    for clip in clips.rows:
        begins = Counter()
        for epoch in range(40 * LENGTHS[clip]):
            samples = clips.read(clip, seed=3, epoch=epoch) if epoch < 3 else []
            rows = clips.draw(clip, seed=3, epoch=epoch)
            assert samples == (list(dataset.read("train", rows)) if samples else [])
            numbers = [dataset.frames("train")[row] for row in rows] if epoch < 3 else []
            first = numbers[0][1] if numbers else 0
            assert numbers == [(clip, (first or 0) + 2 * stride * step) for step in range(len(numbers))]
            assert len(rows) == frames
            begins[rows[0]] += 1
        choices = LENGTHS[clip] - span + 1
        expected = 40 * LENGTHS[clip] / choices
        assert len(begins) == choices
        assert all(abs(count - expected) < 6 * expected**0.5 for count in begins.values()), "drawn evenly"


def test_what_is_drawn_is_a_function_of_seed_epoch_and_clip_alone(dataset: Dataset) -> None:
    clips, again = (Clips(open_dataset(dataset.uri), "train", frames=2) for _ in range(2))
    keys = [(clip, seed, epoch) for clip in LENGTHS for seed in range(4) for epoch in range(4)]
    drawn = {key: clips.draw(key[0], seed=key[1], epoch=key[2]) for key in keys}
    random.Random(0).shuffle(keys)
    assert {key: again.draw(key[0], seed=key[1], epoch=key[2]) for key in keys} == drawn
    for clip in ("a", "c"):
        assert len({drawn[clip, seed, 0] for seed in range(4)}) > 1
        assert len({drawn[clip, 0, epoch] for epoch in range(4)}) > 1


def test_an_epoch_has_each_clip_once_in_an_order_of_its_own(dataset: Dataset) -> None:
    clips = Clips(dataset, "train", frames=2)
    orders = [clips.order(seed=0, epoch=epoch) for epoch in range(12)]
    assert all(sorted(order) == sorted(LENGTHS) for order in orders)
    assert len({tuple(order) for order in orders}) > 3
    assert orders == [clips.order(seed=0, epoch=epoch) for epoch in range(12)]


def test_what_cannot_be_drawn_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 clips, the longest of 12 frames; 5 frames 3 apart need 13: ask for fewer"):
        Clips(dataset, "train", frames=5, stride=3)
    for frames, stride in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match="expected both to be at least 1"):
            Clips(dataset, "train", frames=frames, stride=stride)
    clips = Clips(dataset, "train", frames=7)
    for clip, why in (("b", "has too few frames"), ("nope", "is not there")):
        with pytest.raises(InputError, match=f"clip '{clip}' of 'train' {why}"):
            clips.draw(clip, seed=0, epoch=0)
    stills = publish(str(tmp_path / "stills"), [semantic_sample(1)])
    with pytest.raises(InputError, match="has 0 clips"):
        Clips(stills, "train", frames=1)
    twice = publish(str(tmp_path / "twice"), [frame(n, "a", index) for n, index in enumerate((4, 5, 4))])
    with pytest.raises(InputError, match="clip 'a' of 'train' has frame 4 twice"):
        Clips(twice, "train", frames=1)


def test_frames_without_numbers_keep_the_stored_order(tmp_path: Path) -> None:
    clips = Clips(publish(str(tmp_path), [frame(n, "a", None) for n in range(4)]), "train", frames=4)
    assert clips.draw("a", seed=0, epoch=0) == (0, 1, 2, 3)


@pytest.mark.usefixtures("one_core")
def test_real_clips_of_davis(tmp_path: Path) -> None:
    root = DATA / "davis"
    if root.is_dir():
        config = DatasetConfig(name="davis", format="davis", root=str(root), options={"year": 2016})
        clips = Clips(open_dataset(ingest(config, to=str(tmp_path)).uri), "val", frames=4, stride=5)
        assert sum(map(len, clips.rows.values())) == 139
        for clip in clips.order(seed=0, epoch=0):
            samples = clips.read(clip, seed=0, epoch=0)
            first = samples[0].frame_index or 0
            assert [(s.clip_id, s.frame_index) for s in samples] == [(clip, first + 5 * step) for step in range(4)]
            assert all(s.segment_map is not None for s in samples)
