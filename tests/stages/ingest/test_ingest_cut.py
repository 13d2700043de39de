"""Where a listing is cut into shards: by bytes, parallel while small, never inside a clip; and clips after ingest.

Real clips of DAVIS are read where SEGPIPE_DATA has them, made-up ones always.
"""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe.config import DatasetConfig
from segpipe.shards import open_dataset
from segpipe.stages.cut import SHARD_BYTES, cut
from segpipe.stages.ingest import ingest
from segpipe.types import SampleRef

DATA = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")


def listing(count: int, *, clip: int = 1, split: str = "train", files: bool = True) -> list[SampleRef]:
    return [
        SampleRef(
            sample_id=f"{n:07d}",
            split=split,
            group=f"group-{n // clip:07d}",
            files=(f"{split}/{n:07d}.jpg", "all.json") if files else (),
        )
        for n in range(count)
    ]


def sizes_of(refs: list[SampleRef], size: int) -> dict[str, int]:
    return {file: size for ref in refs for file in ref.files} | {"all.json": len(refs)}


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (20, 10, [20]),
        (33, 10, [32, 1]),
        (367, 170_000, [46] * 7 + [45]),  # CamVid: eight shards
        (5000, 1 << 20, [63] * 79 + [23]),  # large images: 64 MiB with their share of the common file
        (100_000, 10, [12_500] * 8),
        (3, SHARD_BYTES * 2, [1, 1, 1]),
    ],
)
def test_shards_are_cut_by_rows_while_small_and_by_bytes_when_large(count: int, size: int, expected: list[int]) -> None:
    refs = listing(count)
    parts = list(cut(refs, sizes_of(refs, size)))
    assert [len(part) for part in parts] == expected
    assert [ref for part in parts for ref in part] == refs


def test_samples_that_are_made_and_not_read_are_counted_too() -> None:
    assert {len(part) for part in cut(listing(8192, files=False), {})} == {512}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, SHARD_BYTES), st.integers(0, 2))
def test_no_clip_is_cut_and_nothing_is_lost(clips: list[int], size: int, stills: int) -> None:
    refs = [
        SampleRef(sample_id=f"{c:03d}/{n:03d}", split=split, group="one", files=(f"{split}{c}/{n}",), clip=f"clip-{c}")
        for split in ("train", "val")
        for c, length in enumerate([*clips, *[1] * stills])
        for n in range(length)
    ]
    parts = list(cut(refs, {file: size for ref in refs for file in ref.files}))
    assert [ref for part in parts for ref in part] == refs
    assert all(len({ref.split for ref in part}) == 1 for part in parts)
    for before, after in itertools.pairwise(parts):
        assert (before[-1].split, before[-1].clip) != (after[0].split, after[0].clip)


def test_a_group_of_two_clips_is_cut_between_them() -> None:
    """Virtual KITTI: all that was made of a scene is one group, and must not become one shard."""
    refs = [
        SampleRef(sample_id=f"Scene01/{clip}/{n}", split="train", group="Scene01", files=(f"{clip}{n}",), clip=clip)
        for clip in ("clone", "fog")
        for n in range(3)
    ]
    parts = list(cut(refs, {file: SHARD_BYTES // 2 for ref in refs for file in ref.files}))
    assert [[ref.clip for ref in part] for part in parts] == [["clone"] * 3, ["fog"] * 3]


def assert_clips_are_whole(uri: str) -> int:
    """No clip lies in two row groups, and its frames follow each other; gives the number of clips."""
    dataset = open_dataset(uri)
    seen = set()
    for split in dataset.manifest.splits:
        frames = iter(dataset.frames(split))
        for group, rows in enumerate(dataset.row_groups(split)):
            for clip, run in itertools.groupby(itertools.islice(frames, rows), key=lambda frame: frame[0]):
                numbers = [number for _, number in run]
                if clip is not None:
                    assert (split, clip) not in seen, f"clip {clip} comes back in row group {group}"
                    seen.add((split, clip))
                    assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(numbers)))
    return len(seen)


@pytest.mark.usefixtures("one_core")
def test_clips_of_made_up_scenes_are_whole_in_row_groups(tmp_path: Path) -> None:
    options = {"train": 120, "val": 5, "test": 0, "height": 32, "width": 32, "clips": 0.6, "clip_length": 5}
    result = ingest(DatasetConfig(name="toy", format="scenes", options=options), to=str(tmp_path))
    assert assert_clips_are_whole(result.uri) == 14


@pytest.mark.usefixtures("one_core")
def test_clips_of_davis_are_whole_in_row_groups(tmp_path: Path) -> None:
    root = DATA / "davis"
    if root.is_dir():
        result = ingest(
            DatasetConfig(name="davis", format="davis", root=str(root), options={"year": 2016}), to=str(tmp_path)
        )
        assert result.splits == {"val": 139}
        assert assert_clips_are_whole(result.uri) == 3
