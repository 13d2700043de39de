"""The made-up streets: deterministic, every annotation agrees with every other, no class is trivial or absent."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import InputError
from segpipe.sources import open_source
from segpipe.sources.scenes import KEYPOINT_NAMES, Scenes
from segpipe.types import IGNORE_8BIT, Sample

POLE = 6
SMALL = Scenes(train=12, val=4, test=0, height=96, width=128, clips=0.75, clip_length=3, seed=3)


def maps(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    shape = (sample.height, sample.width)
    assert sample.label_map is not None
    assert sample.segment_map is not None
    return (
        np.frombuffer(sample.label_map, np.uint8).reshape(shape),
        np.frombuffer(sample.segment_map, np.uint8).reshape(shape),
    )


@pytest.fixture(scope="module")
def statistics() -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each class (K,), and of each image and class (n, K), over 60 stills of the default kind."""
    source = Scenes(train=60, val=0, test=0, height=96, width=128, clips=0.0)
    counts = [np.bincount(maps(source.read(ref))[0].ravel(), minlength=256)[:8] for ref in source.index()[0]]
    return np.sum(counts, axis=0), np.array(counts)


def test_no_constant_prediction_scores(statistics: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, _ = statistics
    best = max(pixels[k] / pixels.sum() / len(pixels) for k in range(len(pixels)))
    assert best < 0.15


def test_every_class_is_there_often_enough_to_be_learnt(statistics: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, counts = statistics
    assert ((counts > 0).mean(axis=0) >= 0.4).all()
    assert (pixels / pixels.sum() >= 0.005).all()


def test_the_same_sample_comes_out_of_any_order_and_any_split_size() -> None:
    refs, _, _ = SMALL.index()
    forward = {ref.sample_id: SMALL.read(ref) for ref in refs}
    backward = {ref.sample_id: SMALL.read(ref) for ref in reversed(refs)}
    assert forward == backward
    larger = Scenes(train=20, val=4, test=5, height=96, width=128, clips=0.0, seed=3)
    smaller = Scenes(train=5, val=4, test=5, height=96, width=128, clips=0.0, seed=3)
    (first, *_) = [ref for ref in smaller.index()[0] if ref.split == "train"]
    assert larger.read(first) == smaller.read(first)
    assert len({sample.image for sample in forward.values()}) == len(refs)


def test_masks_are_the_same_on_every_machine() -> None:
    source = Scenes(train=3, val=0, test=0, height=48, width=64, clips=0.0, encoding="png")
    digest = hashlib.sha256()
    for ref in source.index()[0]:
        digest.update(source.read(ref).label_map or b"")
    assert digest.hexdigest()[:16] == "c108034b79d1f73e"


def test_another_seed_or_split_is_another_street() -> None:
    labels = set()
    for seed, split in ((0, "train"), (1, "train"), (0, "val"), (0, "test")):
        source = Scenes(train=1, val=1, test=1, height=48, width=64, clips=0.0, seed=seed)
        (ref,) = [ref for ref in source.index()[0] if ref.split == split]
        labels.add(source.read(ref).label_map)
    assert len(labels) == 4


def test_labels_segments_and_keypoints_tell_one_story() -> None:
    visible = 0
    for ref in SMALL.index()[0]:
        sample = SMALL.read(ref)
        labels, segments = maps(sample)
        assert np.array_equal(segments == 0, labels == IGNORE_8BIT)
        assert set(np.unique(segments)) - {0} == {segment.segment_id for segment in sample.segments}
        for segment in sample.segments:
            assert set(labels[segments == segment.segment_id]) == {segment.class_id}
        stuff = [segment.class_id for segment in sample.segments if not SMALL.classes[segment.class_id].is_thing]
        assert len(stuff) == len(set(stuff)), "a stuff class is one segment"
        people = {s.segment_id for s in sample.segments if SMALL.classes[s.class_id].name == "person"}
        assert {keypoints.segment_id for keypoints in sample.keypoints} == people
        for keypoints in sample.keypoints:
            assert len(keypoints.points) == len(KEYPOINT_NAMES)
            for x, y, visibility in keypoints.points:
                assert visibility in (0, 1, 2)
                assert (x, y) == (0, 0) or visibility > 0
                assert 0 <= x < sample.width
                assert 0 <= y < sample.height
                if visibility == 2:
                    visible += 1
                    around = segments[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2]
                    assert (around == keypoints.segment_id).any()
    assert visible > 30


def test_clips_are_whole_stay_in_their_split_and_move() -> None:
    refs, _, _ = SMALL.index()
    splits: dict[str, set[str]] = {}
    clips: dict[str, list[Sample]] = {}
    for ref in refs:
        splits.setdefault(ref.group, set()).add(ref.split)
        sample = SMALL.read(ref)
        assert sample.group == ref.group
        if sample.clip_id is None:
            assert sample.frame_index is None
            assert sample.group == sample.sample_id
        else:
            clips.setdefault(sample.clip_id, []).append(sample)
    assert all(len(names) == 1 for names in splits.values())
    assert len(clips) == 4
    for clip_id, frames in clips.items():
        assert [frame.frame_index for frame in frames] == [0, 1, 2]
        assert {frame.group for frame in frames} == {clip_id}
        assert len({frame.label_map for frame in frames}) == 3
        things = [
            {s.segment_id: s.class_id for s in frame.segments if SMALL.classes[s.class_id].is_thing} for frame in frames
        ]
        lasting = things[0].keys() & things[1].keys()
        assert lasting, "objects keep their segment id from frame to frame"
        assert all(things[0][ident] == things[1][ident] for ident in lasting)


def test_poles_are_not_hairlines() -> None:
    source = Scenes(train=12, val=0, test=0, clips=0.0)
    widths = []
    for ref in source.index()[0]:
        labels, _ = maps(source.read(ref))
        for row in labels == POLE:
            edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False])).astype(int)))
            widths.extend((edges[1::2] - edges[::2]).tolist())
    assert np.median(widths) >= 4


def test_images_decode_to_the_declared_size_in_both_encodings() -> None:
    for encoding, name in (("jpeg", "JPEG"), ("png", "PNG")):
        source = Scenes(train=1, val=0, test=0, height=50, width=70, encoding=encoding)
        sample = source.read(source.index()[0][0])
        image = Image.open(io.BytesIO(sample.image))
        assert (image.format, image.mode, image.size) == (name, "RGB", (70, 50))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train", -1),
        ("height", 8),
        ("quality", 101),
        ("clips", 1.5),
        ("clip_length", 0),
        ("encoding", "gif"),
        ("seed", -1),
    ],
)
def test_an_option_out_of_range_is_named_with_its_value(option: str, value: float | str) -> None:
    with pytest.raises(InputError, match=f"{option}.*{value}"):
        open_source("scenes", "", {option: value})
