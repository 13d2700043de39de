"""Sample -> row -> sample: everything of every task comes back, and what does not fit together is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import shards
from segpipe.errors import CorruptError, InputError
from segpipe.shards.schema import annotation_hash
from segpipe.types import Keypoints, Sample, Segment
from tests.fixtures.samples import full_sample, manifest_of, semantic_sample

BARE = Sample(sample_id="x", image=b"jpeg", height=1, width=1, group="x")


@pytest.mark.parametrize("sample", [BARE, semantic_sample(3), full_sample(1)])
def test_a_row_gives_the_sample_back(sample: Sample) -> None:
    assert shards.row_to_sample(shards.sample_to_row(sample)) == sample


def test_every_field_goes_through_a_shard(tmp_path: Path) -> None:
    samples = [BARE, *(full_sample(n) for n in range(9)), semantic_sample(1)]
    result = shards.write_shard(samples, str(tmp_path), "test")
    shards.publish(str(tmp_path), manifest_of([result], split="test", num_classes=310))
    assert list(shards.open_dataset(str(tmp_path)).samples("test")) == samples


@given(
    width=st.sampled_from([1, 2, 4]),
    height=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.binary(min_size=1, max_size=5),
)
def test_maps_of_every_width_come_back(width: int, height: int, columns: int, seed: bytes) -> None:
    ids = (seed * (height * columns * width))[: height * columns * width]
    sample = replace(BARE, height=height, width=columns, segment_map=ids)
    assert shards.row_to_sample(shards.sample_to_row(sample)).segment_map == ids


SEGMENT = Segment(segment_id=1, class_id=0, area=0, rle=b"0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_id": ""}, "sample_id '' is empty"),
        ({"sample_id": "a\nb"}, r"'a\\nb' is empty or holds control"),
        ({"group": "\ud800"}, "group"),
        ({"clip_id": ""}, "clip_id"),
        ({"height": 0}, "0 x 1 pixels"),
        ({"image": b""}, "is no image"),
        ({"label_map": b"12"}, None),
        ({"label_map": b"123"}, "label_map has 3 bytes, which is not 1, 2 or 4 for each of 1 x 1 pixels"),
        ({"segment_map": b""}, "segment_map has 0 bytes"),
        ({"width": 2, "label_map": b"123"}, "of 1 x 2 pixels"),
        ({"frame_index": 3}, "needs a clip_id"),
        ({"extras": {"Depth": b"1"}}, "extra 'Depth' of 1 bytes; expected a name of small letters"),
        ({"extras": {"depth": b""}}, "extra 'depth' of 0 bytes"),
        ({"clip_id": "c", "frame_index": -1}, "counts from 0"),
        ({"segments": (SEGMENT, SEGMENT)}, "not distinct numbers"),
        ({"segments": (replace(SEGMENT, segment_id=0),)}, "from 1"),
        ({"segments": (replace(SEGMENT, rle=None),)}, "segment 1 has no pixels"),
        ({"segments": (replace(SEGMENT, class_id=-1),)}, "class -1"),
        ({"segments": (replace(SEGMENT, area=float("nan")),)}, "area nan"),
        ({"segments": (replace(SEGMENT, box=(0, 0, 0, 0.0)),)}, None),
        ({"segments": (replace(SEGMENT, box=(0, 0, -1.0, 2)),)}, "segment 1 has box"),
        ({"segments": (replace(SEGMENT, box=(0, 0, float("inf"), 2)),)}, "expected x, y, width, height"),
        ({"keypoints": (Keypoints(segment_id=5, points=()),)}, "segment 5, which it does not have"),
        (
            {"segments": (SEGMENT,), "keypoints": (Keypoints(segment_id=1, points=((0.0, float("nan"), 1),)),)},
            "not finite",
        ),
        ({"segments": (SEGMENT,), "keypoints": (Keypoints(segment_id=1, points=((0.0, 0.0, 3),)),)}, "visibility"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: Mapping[str, Any], message: str | None) -> None:
    sample = replace(BARE, **changes)
    if message is None:
        assert shards.row_to_sample(shards.sample_to_row(sample)) == sample
        return
    with pytest.raises(InputError, match=message) as raised:
        shards.sample_to_row(sample)
    assert str(raised.value).startswith(f"sample {sample.sample_id!r}: ")


@pytest.mark.parametrize(
    "changes",
    [{"label_map": b"no zstd"}, {"label_map_width": 3}, {"label_map_width": 2}, {"label_map": None}, {"width": 9}],
)
def test_a_map_that_does_not_unpack_is_corrupt(changes: Mapping[str, Any]) -> None:
    row = {**shards.sample_to_row(semantic_sample(5)), **changes}
    with pytest.raises(CorruptError, match=r"sample 'drive/00005': label_map .* ingest the dataset again"):
        shards.row_to_sample(row)


def test_an_extra_is_a_part_of_the_annotations() -> None:
    sample = full_sample(1)
    others = [replace(sample, extras=extras) for extras in ({}, {"depth": b"1"}, {"depth": b"2"}, {"flow": b"1"})]
    turned = replace(sample, extras=dict(reversed(sample.extras.items())))
    hashes = [annotation_hash(shards.sample_to_row(each)) for each in (sample, *others)]
    assert len(set(hashes)) == len(hashes)
    assert annotation_hash(shards.sample_to_row(turned)) == hashes[0]


def test_the_row_fills_exactly_the_schema() -> None:
    assert list(shards.sample_to_row(full_sample(0))) == shards.SCHEMA.names
