"""Clips as folders of frames: order, objects, bitmaps, frames without a mask, and what is wrong in them."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe import masks
from segpipe.config import DatasetConfig
from segpipe.errors import BadSampleError, InputError
from segpipe.exports import EXPORTS
from segpipe.shards import open_dataset
from segpipe.sources import open_source
from segpipe.stages.export import export
from segpipe.stages.ingest import ingest
from segpipe.stages.inspect import inspect
from segpipe.types import Sample, SampleRef
from tests.fixtures.mini_depth import bitmap, box, write_segtrack
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH, write

CLIPS = Path(os.environ.get("SEGPIPE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
CLIPS /= "vos_multi_object"
WIDER = png(np.zeros((HEIGHT, WIDTH + 1), np.uint8))
Options = dict[str, str | int | float | bool]


def write_plain(root: Path) -> None:
    """Five frames in the plain layout, masks of two of them: numbered objects, and 255 where nobody knows."""
    for frame in range(5):
        write(root, f"images/judo/{frame}.jpg", photograph(HEIGHT, WIDTH, number=frame))
    for frame in (0, 3):
        write(root, f"masks/judo/{frame}.png", png(box(1, 3) + box(2, 1) + box(3, 255), palette=[0] * 768))


def read_all(root: Path, options: Options | None = None) -> tuple[list[SampleRef], list[Sample], list[tuple[str, str]]]:
    source = open_source("frames", str(root), options)
    refs, refused, _ = source.index()
    bad = [(entry.file, entry.reason) for entry in refused]
    samples = []
    for ref in refs:
        try:
            samples.append(source.read(ref))
        except BadSampleError as error:
            bad.append((error.file, error.reason))
    return refs, samples, bad


def labels(sample: Sample) -> np.ndarray:
    return np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)


def test_frames_are_in_the_order_that_people_count_in(tmp_path: Path) -> None:
    write_segtrack(tmp_path)
    refs, samples, bad = read_all(tmp_path, {"split": "test"})
    assert bad == []
    assert [ref.sample_id for ref in refs if ref.group == "monkeydog"] == [f"monkeydog/{n}" for n in ("09", "10", "11")]
    assert [sample.frame_index for sample in samples] == [0, 1, 2, 0, 1, 2]
    assert {(sample.clip_id, sample.group) for sample in samples} == {("bmx", "bmx"), ("monkeydog", "monkeydog")}


def test_a_bitmap_keeps_every_pixel_and_a_smoothed_edge_is_ignored(tmp_path: Path) -> None:
    write_segtrack(tmp_path)
    dog = next(sample for sample in read_all(tmp_path)[1] if sample.sample_id == "monkeydog/10")
    assert (masks.read_rgb(dog.image, file="x") == masks.read_rgb(photograph(HEIGHT, WIDTH, number=10), file="y")).all()
    assert Counter(labels(dog).ravel().tolist()) == {0: HEIGHT * WIDTH - 30, 1: 24, 255: 6}
    assert [(each.segment_id, each.area) for each in dog.segments] == [(1, 24)]


def test_each_folder_of_masks_is_an_object(tmp_path: Path) -> None:
    write_segtrack(tmp_path)
    for sample in [sample for sample in read_all(tmp_path)[1] if sample.clip_id == "bmx"]:
        found = [masks.decode_rle(each.rle or b"", HEIGHT, WIDTH, file="x") for each in sample.segments]
        assert [each.segment_id for each in sample.segments] == [1, 2]
        assert all((mask == (box(number) > 0)).all() for number, mask in enumerate(found, start=1))
        assert (labels(sample) == (box(1) + box(2) > 0)).all()


def test_a_frame_without_a_mask_stays_in_its_clip_or_is_passed_over(tmp_path: Path) -> None:
    write_plain(tmp_path)
    _, samples, bad = read_all(tmp_path, {"split": "val"})
    assert bad == []
    assert [sample.label_map is None for sample in samples] == [False, True, True, False, True]
    assert [(each.segment_id, each.area) for each in samples[0].segments] == [(1, 24), (3, 24)]
    assert Counter(labels(samples[0]).ravel().tolist()) == {0: HEIGHT * WIDTH - 72, 1: 48, 255: 24}
    alone = read_all(tmp_path, {"split": "val", "unlabelled": False})[1]
    assert alone == [samples[0], samples[3]], "the numbers of frames stay, too"


@pytest.mark.usefixtures("one_core")
def test_a_dataset_may_have_frames_without_labels(tmp_path: Path) -> None:
    write_plain(tmp_path / "root")
    options: Options = {"split": "val"}
    config = DatasetConfig(name="toy", format="frames", root=str(tmp_path / "root"), options=options)
    result = ingest(config, to=str(tmp_path / "out"))
    uri, dataset = result.uri, open_dataset(result.uri)
    assert any(
        warning.startswith("split 'val': 60% of its pixels are in samples without") for warning in result.warnings
    )
    assert list(dataset.samples("val")) == read_all(tmp_path / "root", options)[1]
    assert sum(dataset.manifest.splits["val"].class_pixels) == 2 * (HEIGHT * WIDTH - 24)
    assert inspect(uri, sheet=str(tmp_path / "sheet.png")).sheet is not None
    for into in EXPORTS:  # one of objects would call such a frame empty
        with pytest.raises(
            InputError, match=r"3 of 5 samples have no label map, val/judo/1 .*: option unlabelled=false"
        ):
            export(uri, into, str(tmp_path / into))


def test_lists_of_clips_make_the_splits(tmp_path: Path) -> None:
    write_segtrack(tmp_path)
    write(tmp_path, "ImageSets/train.txt", "bmx\n")
    write(tmp_path, "ImageSets/val.txt", "monkeydog\n\n")
    assert {(ref.split, ref.group) for ref in read_all(tmp_path)[0]} == {("train", "bmx"), ("val", "monkeydog")}
    for text, message in (("bmx\n", "clip 'bmx' is in train.txt, too"), ("cow\n", "clip 'cow' has no folder")):
        write(tmp_path, "ImageSets/val.txt", text)
        with pytest.raises(InputError, match=message):
            read_all(tmp_path)


def write_clips(root: Path) -> None:
    """What the real clips have in them, made up: masks of one object each, one of them a pixel too wide."""
    for frame in range(16):
        write(root, f"images/judo/{frame:05d}.jpg", photograph(HEIGHT, WIDTH, number=frame))
    for frame in range(4):
        write(root, f"images/bike/{frame:05d}.jpg", photograph(HEIGHT, WIDTH, number=30 + frame))
    for frame, number in ((0, 1), (8, 3), (13, 4)):
        write(root, f"masks/judo/{frame:05d}.png", png(box(1, number)))
    write(root, "masks/judo/00005.png", WIDER)
    write(root, "masks/bike/00000.png", png(box(1, 1) + box(2, 2)))


@pytest.mark.parametrize("real", [False, *([True] if CLIPS.exists() else [])])
def test_of_the_clips_one_mask_has_another_size(real: bool, tmp_path: Path) -> None:
    if not real:
        write_clips(tmp_path)
    refs, samples, bad = read_all(CLIPS if real else tmp_path, {"split": "val"})
    assert Counter(ref.group for ref in refs) == {"judo": 16, "bike": 4}
    assert bad == [("masks/judo/00005.png", "size_mismatch")]
    drawn = {sample.sample_id: [each.segment_id for each in sample.segments] for sample in samples if sample.label_map}
    assert drawn == {"bike/00000": [1, 2], "judo/00000": [1], "judo/00008": [3], "judo/00013": [4]}


FAULTS: list[tuple[Callable[[Path], object], str, bytes | None, str, str]] = [
    (write_plain, "masks/judo/3.png", WIDER, "masks/judo/3.png", "size_mismatch"),
    (write_plain, "masks/judo/3.png", png(box(1)), "masks/judo/3.png", "label_out_of_range"),
    (write_plain, "masks/judo/3.png", png(box(1).astype(np.uint16) * 2), "masks/judo/3.png", "label_out_of_range"),
    (write_plain, "masks/judo/9.png", png(box(1, 1)), "masks/judo/9.png", "missing_image"),
    (write_plain, "images/judo/3.png", b"x", "images/judo/3.png", "duplicate_id"),
    (write_plain, "images/judo/3.jpg", b"II*\0", "images/judo/3.jpg", "format_not_allowed"),
    (write_segtrack, "GroundTruth/bmx/2/bmx_06669.bmp", None, "GroundTruth/bmx/2/bmx_06669.png", "missing_mask"),
    (write_segtrack, "GroundTruth/monkeydog/9.png", photograph(HEIGHT, WIDTH), "", "format_not_allowed"),
    (write_segtrack, "GroundTruth/bmx/2/bmx_06669.bmp", bitmap(WIDER), "", "size_mismatch"),
    (write_segtrack, "JPEGImages/monkeydog/9.bmp", b"BM", "", "unreadable"),
    (write_segtrack, "JPEGImages/monkeydog/9.bmp", bitmap(WIDER)[:200], "", "truncated"),
]


@pytest.mark.parametrize(("lay_out", "file", "data", "named", "reason"), FAULTS, ids=[f"{f[1]}-{f[4]}" for f in FAULTS])
def test_a_bad_frame_is_named(
    lay_out: Callable[[Path], object], file: str, data: bytes | None, named: str, reason: str, tmp_path: Path
) -> None:
    lay_out(tmp_path)
    if data is None:
        (tmp_path / file).unlink()
    else:
        write(tmp_path, file, data)
    _, samples, bad = read_all(tmp_path)
    assert (named or file, reason) in bad
    assert len(samples) == (4 if "3." in file else 5)


def test_what_is_no_folder_of_frames_says_what_was_expected(tmp_path: Path) -> None:
    write(tmp_path, "images/loose.jpg", b"x")
    with pytest.raises(InputError, match=r"no frame here; expected images/<clip>/<frame>.jpg"):
        read_all(tmp_path)
    for options, message in (
        ({"images": "a"}, "expected both or none"),
        ({"values": "ids"}, "option values='ids'; expected binary or numbers"),
        ({"shares": "1"}, "option shares='1'"),
    ):
        with pytest.raises(InputError, match=message):
            read_all(tmp_path, options)
