"""Datasets with depth and flow: what their files mean, that extras go through ingest as shipped, and what is wrong."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import masks
from segpipe.config import DatasetConfig
from segpipe.errors import BadSampleError, InputError
from segpipe.shards import open_dataset
from segpipe.sources import open_source
from segpipe.stages.export import export
from segpipe.stages.ingest import ingest
from segpipe.stages.inspect import inspect
from segpipe.types import Annotation, Sample, SampleRef
from tests.fixtures.deep_png import png_rgb16
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_depth import depths, stripes
from tests.fixtures.pictures import photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH, write

Options = dict[str, str | int | float | bool]
PIXELS = HEIGHT * WIDTH
CLIP = "Scene01/clone/Camera_0"


def read_all(name: str, root: Path, options: Options | None = None) -> tuple[list[SampleRef], list[Sample], list[Any]]:
    source = open_source(name, str(root), options)
    refs, refused, _ = source.index()
    bad: list[Any] = [(entry.file, entry.reason) for entry in refused]
    samples = []
    for ref in refs:
        try:
            samples.append(source.read(ref))
        except BadSampleError as error:
            bad.append((error.file, error.reason))
    return refs, samples, bad


def labels(sample: Sample) -> Counter[int]:
    return Counter(sample.label_map or b"")


def test_virtual_kitti_reads_colours_tracks_depth_and_flow(tmp_path: Path) -> None:
    WRITERS["virtual_kitti"](tmp_path)
    refs, samples, bad = read_all("virtual_kitti", tmp_path)
    assert bad == []
    assert Counter((ref.split, ref.group) for ref in refs) == {("train", "Scene01"): 6, ("val", "Scene06"): 3}
    first, _, last = samples[:3]
    assert (first.sample_id, first.clip_id, first.frame_index) == ("Scene01/clone/Camera_0/00000", CLIP, 0)
    assert labels(first) == {5: PIXELS // 4, 12: PIXELS // 4, 11: PIXELS // 4, 255: PIXELS // 4}
    assert [(s.segment_id, s.class_id, s.area) for s in first.segments] == [(3, 12, PIXELS // 4), (7, 11, PIXELS // 4)]
    assert [open_source("virtual_kitti", str(tmp_path)).classes[k].name for k in (12, 11)] == ["Car", "Truck"]
    assert (masks.read_label_image(first.extras["depth"], file="d") == depths(0)).all()
    flow = masks.read_rgb16(first.extras["flow"], file="f")
    assert flow[0, 0].tolist() == [32768, 32768, 65535]
    assert first.extras.keys() == {"depth", "flow"}
    assert last.extras.keys() == {"depth"}, "the last frame of a clip flows nowhere"


def test_virtual_kitti_may_be_asked_for_in_part(tmp_path: Path) -> None:
    WRITERS["virtual_kitti"](tmp_path)
    options: Options = {"variations": "fog, rain", "val": "Scene20", "test": "Scene01", "depth": False, "flow": False}
    refs, samples, _ = read_all("virtual_kitti", tmp_path, options)
    assert {(ref.split, ref.sample_id.split("/")[1]) for ref in refs} == {("test", "fog")}
    assert all(not sample.extras for sample in samples)
    source = open_source("virtual_kitti", str(tmp_path), options)
    assert source.expected == {"train": 4 * (233 + 270 + 339), "val": 4 * 837, "test": 4 * 447}
    assert not any("depth" in rule or "flow" in rule for rule in source.coding.rules)
    published = open_source("virtual_kitti", str(tmp_path)).expected
    assert sum((published or {}).values()) == 42520


@pytest.mark.parametrize(("classes", "wall"), [(16, 3), (13, 255)])
def test_synthia_reads_classes_and_objects_of_two_channels(classes: int, wall: int, tmp_path: Path) -> None:
    WRITERS["synthia"](tmp_path)
    refs, samples, bad = read_all("synthia", tmp_path, {"classes": classes})
    assert bad == []
    assert len(refs) == 12
    source = open_source("synthia", str(tmp_path), {"classes": classes})
    names = [info.name for info in source.classes]
    car = names.index("car")
    expected = Counter({0: PIXELS // 6, car: PIXELS // 3, 255: PIXELS // 3})
    expected[wall] += PIXELS // 6
    assert labels(samples[0]) == expected
    assert [(s.segment_id, s.class_id, s.area) for s in samples[0].segments] == [
        (1, car, PIXELS // 6),
        (2, car, PIXELS // 6),
    ]
    assert (masks.read_rgb16(samples[4].extras["depth"], file="d")[..., 0] == depths(int(refs[4].sample_id))).all()
    assert sum((source.expected or {}).values()) == 9400
    assert open_source("synthia", str(tmp_path), {"shares": "1,0,0"}).expected == {"train": 9400}


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("name", ["virtual_kitti", "synthia", "nyu_depth"])
def test_extras_go_through_ingest_as_shipped(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "root")
    uri = ingest(DatasetConfig(name="toy", format=name, root=str(tmp_path / "root")), to=str(tmp_path / "out")).uri
    dataset = open_dataset(uri)
    _, wanted, _ = read_all(name, tmp_path / "root")
    assert [s for split in dataset.manifest.splits for s in dataset.samples(split)] == wanted
    assert Annotation.DEPTH in dataset.manifest.annotations
    assert any(rule.startswith("depth: 16-bit") for rule in dataset.manifest.coding.rules)
    told = inspect(uri, sheet=str(tmp_path / "sheet.png"), rows=2)
    assert "depth" in told.annotations
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "depth" in export(uri, "folder", str(tmp_path / "files")).left_out


V = "Scene01/clone/frames"
DEPTH, FLOW = f"{V}/depth/Camera_0/depth_00000.png", f"{V}/forwardFlow/Camera_0/flow_00000.png"
CLASSES = f"{V}/classSegmentation/Camera_0/classgt_00001.png"
TRACKS = f"{V}/instanceSegmentation/Camera_0/instancegt_00001.png"
MASK = "GT/LABELS/0000003.png"
FAULTS = [
    ("virtual_kitti", DEPTH, None, "missing_mask"),
    ("virtual_kitti", FLOW, None, "missing_mask"),
    ("virtual_kitti", DEPTH, photograph(HEIGHT, WIDTH), "format_not_allowed"),
    ("virtual_kitti", FLOW, png_rgb16(np.zeros((HEIGHT, 2, 3), np.uint16)), "size_mismatch"),
    ("virtual_kitti", FLOW, png_rgb16(np.zeros((HEIGHT, WIDTH, 3), np.uint16))[:-40], "truncated"),
    ("virtual_kitti", CLASSES, png(stripes([(1, 2, 3)] * 4, np.uint8)), "label_out_of_range"),
    ("virtual_kitti", TRACKS, png(stripes([9, 0, 0, 0], np.uint8)), "bad_annotation"),
    ("synthia", MASK, None, "missing_mask"),
    ("synthia", MASK, png(stripes([3, 8, 1], np.uint16)), "mask_mode"),
    ("synthia", MASK, png_rgb16(stripes([(23, 0, 0)] * 2, np.uint16)), "label_out_of_range"),
    ("synthia", MASK, png_rgb16(stripes([(3, 0, 0)], np.uint16)[:9]), "size_mismatch"),
    ("synthia", "RGB/0000003.png", None, "missing_image"),
    ("synthia", "Depth/Depth/0000003.png", None, "missing_mask"),
    ("synthia", "Depth/Depth/0000003.png", b"\x76\x2f\x31\x01 an EXR", "format_not_allowed"),
]


@pytest.mark.parametrize(("name", "file", "data", "reason"), FAULTS, ids=[f"{f[1]}-{f[3]}" for f in FAULTS])
def test_a_bad_file_is_named_and_its_neighbours_stay(
    name: str, file: str, data: bytes | None, reason: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    before = len(read_all(name, tmp_path)[1])
    if data is None:
        (tmp_path / file).unlink()
    else:
        write(tmp_path, file, data)
    _, samples, bad = read_all(name, tmp_path)
    assert bad == [(file, reason)]
    assert len(samples) == before - 1


@pytest.mark.parametrize(
    ("name", "spoil", "options", "message"),
    [
        ("virtual_kitti", None, {"variations": "snow"}, "option variations='snow': 'snow'; expected all, or some"),
        ("virtual_kitti", None, {"cameras": "Camera_0,Camera_7"}, "'Camera_7'; expected all"),
        ("virtual_kitti", None, {"val": "Scene03"}, "option val='Scene03'; expected one of Scene01"),
        ("virtual_kitti", None, {"test": "Scene06"}, "another for val and test"),
        ("virtual_kitti", None, {"cameras": "Camera_1"}, "9 frames, none of .* by Camera_1; expected Scene01/clone"),
        ("virtual_kitti", ("Scene01/fog/colors.txt", "C r g b\nRoad 1 2 3\n"), {}, "fog/colors.txt: 'Road 1 2 3'"),
        ("synthia", None, {"classes": 19}, "option classes=19; expected 16, or 13"),
        ("synthia", "RGB", {}, "no RGB/.*png here; .* give the folder RAND_CITYSCAPES as root"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, spoil: Any, options: Options, message: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    if isinstance(spoil, tuple):
        write(tmp_path, *spoil)
    elif spoil:
        (tmp_path / spoil).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=message):
        open_source(name, str(tmp_path), options).index()
