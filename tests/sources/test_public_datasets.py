"""Each public dataset: what its coding means (void, zero, polarity, crowds, objects), and the counts of `facts`."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segpipe import masks
from segpipe.sources import open_source
from segpipe.types import Annotation, Sample
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_pascal import CONTEXT
from tests.fixtures.mini_variants import open_mini, write_mini
from tests.fixtures.small_files import HEIGHT, WIDTH
from tests.sources.facts import AT_HAND, DATA, MINI_PIXELS, PARTS, Facts, Options

SAME: tuple[tuple[str, Path, Options], ...] = (
    ("labelme", DATA / "voc_sample", {"json": "labelme_json", "images": "JPEGImages", "classes": "class_names.txt"}),
    ("voc", DATA / "voc_sample", {"split": "train"}),
)


def ids_of(encoded: bytes | None, sample: Sample) -> npt.NDArray[np.unsignedinteger]:
    assert encoded is not None
    width = len(encoded) // (sample.height * sample.width)
    return np.frombuffer(encoded, f"<u{width}").reshape(sample.height, sample.width)


def read_all(source: str, root: Path, options: Options | None = None) -> list[Sample]:
    opened = open_mini(source, root, options)
    refs, refused = opened.index()
    assert refused == []
    return [opened.read(ref) for ref in refs]


@pytest.mark.parametrize("facts", AT_HAND, ids=lambda facts: f"{facts.source}-{facts.folder or facts.options}")
def test_counts_are_those_of_the_description(facts: Facts, tmp_path: Path) -> None:
    if not facts.folder:
        write_mini(facts.source, tmp_path)
    source = open_mini(facts.source, DATA / facts.folder if facts.folder else tmp_path, facts.options)
    refs, refused = source.index()
    assert refused == []
    samples, segments, crowds, pixels = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    for ref in refs:
        sample = source.read(ref)
        samples[ref.split] += 1
        segments[ref.split] += len(sample.segments)
        crowds[ref.split] += sum(segment.is_crowd for segment in sample.segments)
        if facts.pixels:
            values, counts = np.unique(ids_of(sample.label_map, sample), return_counts=True)
            pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    assert dict(samples) == facts.samples
    assert dict(+segments) == facts.segments
    assert dict(+crowds) == facts.crowds
    assert {class_id: pixels[class_id] for class_id in facts.pixels} == facts.pixels


def test_a_voc_object_has_the_class_below_it(tmp_path: Path) -> None:
    WRITERS["voc"](tmp_path)
    sample = read_all("voc", tmp_path)[0]
    names = open_source("voc", str(tmp_path)).classes
    assert [names[segment.class_id].name for segment in sample.segments] == ["person", "person", "bird"]
    assert np.unique(ids_of(sample.segment_map, sample)).tolist() == [0, 1, 2, 3]


def test_sbd_masks_have_no_objects(tmp_path: Path) -> None:
    WRITERS["voc"](tmp_path)
    (tmp_path / "SegmentationClass").rename(tmp_path / "SegmentationClassAug")
    options: Options = {"masks": "SegmentationClassAug", "objects": ""}
    assert open_source("voc", str(tmp_path), options).expected is None
    assert not any(sample.segments for sample in read_all("voc", tmp_path, options))


def test_cityscapes_keeps_its_test_split_out_and_groups_by_city(tmp_path: Path) -> None:
    WRITERS["cityscapes"](tmp_path)
    refs, _ = open_source("cityscapes", str(tmp_path)).index()
    assert {(ref.split, ref.group) for ref in refs} == {("train", "aachen"), ("val", "lindau")}
    sample = read_all("cityscapes", tmp_path)[0]
    found = [(segment.class_id, segment.is_crowd) for segment in sample.segments]
    assert found == [(0, False), (11, True), (13, False), (13, False)]  # road, people, two cars


def test_nuclei_that_share_a_pixel_stay_whole(tmp_path: Path) -> None:
    WRITERS["nuclei"](tmp_path)
    sample = read_all("nuclei", tmp_path)[0]
    areas = [int(masks.decode_rle(s.rle or b"", HEIGHT, WIDTH).sum()) for s in sample.segments]
    assert areas == [35, 35, 35]
    assert int(ids_of(sample.label_map, sample).sum()) == 3 * 35 - 2 * 5  # neighbours share a column of 5


def test_isbi_slices_stay_in_their_order_and_membranes_are_dark(tmp_path: Path) -> None:
    WRITERS["isbi2012"](tmp_path)
    refs, _ = open_source("isbi2012", str(tmp_path)).index()
    assert [ref.sample_id for ref in refs if ref.split == "train"] == [f"{number:02d}" for number in range(9)]
    assert {ref.group for ref in refs} == {"stack"}
    sample = open_source("isbi2012", str(tmp_path)).read(refs[0])
    raw = masks.read_label_image((tmp_path / refs[0].files[1]).read_bytes(), file="label")
    assert ((ids_of(sample.label_map, sample) == 0) == (raw == 0)).all()


def test_davis_objects_keep_their_numbers_over_a_clip(tmp_path: Path) -> None:
    WRITERS["davis"](tmp_path)
    clip = [sample for sample in read_all("davis", tmp_path) if sample.clip_id == "judo"]
    assert [sample.frame_index for sample in clip] == [0, 1, 2]
    assert all([segment.segment_id for segment in sample.segments] == [1, 2] for sample in clip)


@pytest.mark.parametrize(
    ("classes", "names"), [("pet", ["background", "pet"]), ("species", ["background", "cat", "dog"])]
)
def test_pets_get_their_class_from_the_lists(classes: str, names: list[str], tmp_path: Path) -> None:
    WRITERS["oxford_pet"](tmp_path)
    source = open_source("oxford_pet", str(tmp_path), {"classes": classes})
    assert [info.name for info in source.classes] == names
    for sample in read_all("oxford_pet", tmp_path, {"classes": classes}):
        kind = 2 if classes == "species" and sample.sample_id.startswith("beagle") else 1
        assert np.unique(ids_of(sample.label_map, sample)).tolist() == [0, kind, 255]


def test_coco_objects_of_every_spelling(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path)
    with_objects, without = read_all("coco", tmp_path)[:2]
    assert without.segments == ()
    person, brush, crowd = with_objects.segments
    assert [person.class_id, brush.class_id, crowd.class_id] == [0, 1, 0]
    assert crowd.is_crowd
    assert int(masks.decode_rle(crowd.rle or b"", HEIGHT, WIDTH).sum()) == 4 * HEIGHT
    assert with_objects.keypoints[0].points == ((3.5, 4.0, 2), (0.0, 0.0, 0), (7.25, 9.0, 1))
    assert with_objects.keypoints[0].segment_id == person.segment_id


def test_parts_are_named_by_their_objects_and_numbers_do_not_count(tmp_path: Path) -> None:
    assert (len(PARTS), sum(" " in name for name in PARTS)) == (214, 193)
    write_mini("pascal_part", tmp_path)
    source, samples = open_mini("pascal_part", tmp_path), read_all("pascal_part", tmp_path)
    rows = [
        [source.classes[k].name for k in ids_of(sample.label_map, sample)[0, 2 :: WIDTH // 6]] for sample in samples
    ]
    nothing = "background"
    assert rows == [
        ["person head", "person lear", "person", nothing, nothing, nothing],
        ["car wheel", "car", "car wheel", "car", "boat", "boat"],
        ["sheep muzzle", nothing, "sheep", "sheep", nothing, nothing],
    ]
    boat, car = samples[1].segments
    assert (source.classes[boat.class_id].name, source.classes[car.class_id].name) == ("boat", "car")
    assert (boat.area, car.area) == (MINI_PIXELS / 2, 2 * MINI_PIXELS / 3)  # each whole, though the car covers the boat


def test_pascal_context_has_the_same_classes_in_every_spelling(tmp_path: Path) -> None:
    write_mini("pascal_context", tmp_path)
    names = [info.name for info in open_mini("pascal_context", tmp_path).classes]
    assert (len(names), names[0], names[47], names[38]) == (60, "background", "sky", "plate")
    assert names[1:] == [info.name for info in open_mini("pascal_context-59", tmp_path).classes] == sorted(CONTEXT)
    maps = [read_all(f"pascal_context{spelling}", tmp_path)[0].label_map for spelling in ("", "-official", "-merged")]
    assert maps[0] == maps[1] == maps[2]


def test_coco_persons_have_seventeen_keypoints(tmp_path: Path) -> None:
    write_mini("coco-keypoints", tmp_path)
    source = open_mini("coco-keypoints", tmp_path)
    assert [info.name for info in source.classes] == ["person"]
    assert source.annotations == (Annotation.SEGMENTS, Annotation.KEYPOINTS)
    assert source.expected == {"train": 118287, "val": 5000}
    persons, nobody = read_all("coco-keypoints", tmp_path)[:2]
    assert (nobody.segments, nobody.keypoints) == ((), ())
    visible = [sum(visibility > 0 for _, _, visibility in each.points) for each in persons.keypoints]
    assert visible == [16, 0, 0]  # as num_keypoints says
    assert {len(each.points) for each in persons.keypoints} == {17}
    assert [each.segment_id for each in persons.keypoints] == [segment.segment_id for segment in persons.segments]
    assert persons.keypoints[0].points[:2] == ((0.5, 1.0, 2), (1.5, 2.0, 1))


def test_coco_stuff_names_the_same_pixels_in_every_spelling(tmp_path: Path) -> None:
    write_mini("coco_stuff", tmp_path)
    spelt = {}
    for name in ("coco_stuff", "coco_stuff-train_ids", "coco_stuff-pixelmaps"):
        classes, sample = open_mini(name, tmp_path).classes, read_all(name, tmp_path)[0]
        spelt[name] = [classes[k].name if k != 255 else "void" for k in ids_of(sample.label_map, sample)[0, ::9]]
    assert spelt["coco_stuff"] == spelt["coco_stuff-train_ids"] == ["void", "person", "toothbrush", "wood"]
    assert spelt["coco_stuff-pixelmaps"] == ["void", "other", "other", "wood"]
    classes = open_mini("coco_stuff", tmp_path).classes
    assert (len(classes), sum(info.is_thing for info in classes)) == (171, 80)
    assert [classes[k].name for k in (10, 11, 79, 80, 170)] == [
        *("fire hydrant", "stop sign", "toothbrush", "banner", "wood"),
    ]


def test_a_panoptic_crowd_is_a_segment_and_void_is_ignored(tmp_path: Path) -> None:
    WRITERS["coco_panoptic"](tmp_path)
    sample = read_all("coco_panoptic", tmp_path)[0]
    labels, numbers = ids_of(sample.label_map, sample), ids_of(sample.segment_map, sample)
    assert ((labels == 255) == (numbers == 0)).all()
    (crowd,) = [segment for segment in sample.segments if segment.is_crowd]
    assert set(labels[numbers == crowd.segment_id].tolist()) == {0}


def test_labelme_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    WRITERS["labelme"](tmp_path)
    source = open_source("labelme", str(tmp_path))
    assert [info.name for info in source.classes] == ["background", "car", "person"]
    sample = read_all("labelme", tmp_path)[0]
    pair, alone, car = sample.segments
    names = [source.classes[segment.class_id].name for segment in sample.segments]
    assert names == ["person", "person", "car"]
    assert (pair.area, alone.area) == (7 * 8 + 5 * 8, 7 * 7)  # outlines belong to the shape
    labels, numbers = ids_of(sample.label_map, sample), ids_of(sample.segment_map, sample)
    assert ((labels == 255) & (numbers > 0)).sum() == 0
    assert car.area == int((numbers == car.segment_id).sum())
    if (DATA / "voc_sample").exists():
        # The VOC masks of the sample were made from its polygons by labelme itself.
        for ours, theirs in zip(*(sorted(read_all(*case), key=lambda s: s.sample_id) for case in SAME), strict=True):
            # One pixel of half a million differs: Pillow draws a corner in another way since.
            assert (ids_of(ours.label_map, ours) != ids_of(theirs.label_map, theirs)).sum() <= 1


def test_yolo_polygons_are_those_of_coco_in_pixels(tmp_path: Path) -> None:
    WRITERS["yolo"](tmp_path)
    sample = read_all("yolo", tmp_path)[0]
    square = masks.polygon_to_mask([[9, 6, 18, 6, 18, 18, 9, 18]], HEIGHT, WIDTH)
    assert (masks.decode_rle(sample.segments[0].rle or b"", HEIGHT, WIDTH) == square).all()
    assert [segment.class_id for segment in sample.segments] == [1, 0]


def test_labelme_keeps_a_folder_in_one_split(tmp_path: Path) -> None:
    for folder in ("drive_1", "drive_2", "drive_3"):
        WRITERS["labelme"](tmp_path / folder)
    refs, _ = open_source("labelme", str(tmp_path), {"shares": "0.4,0.3,0.3"}).index()
    assert len({ref.group for ref in refs}) == 3
    assert len({(ref.group, ref.split) for ref in refs}) == 3


def test_coco_documents_may_lie_in_a_folder_for_each_split(tmp_path: Path) -> None:
    """As Roboflow exports them: train/_annotations.coco.json beside the images."""
    WRITERS["coco"](tmp_path)
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}2017.json").rename(
            tmp_path / f"{split}2017" / "_annotations.coco.json"
        )
    options: Options = {"annotations": "{split}/_annotations.coco.json", "images": "{split}"}
    refs, refused = open_source("coco", str(tmp_path), options).index()
    assert refused == []
    assert {ref.split for ref in refs} == {"train2017", "val2017"}


def test_yolo_names_are_what_is_written(tmp_path: Path) -> None:
    WRITERS["yolo"](tmp_path)
    (tmp_path / "data.yaml").write_text("names: [no, 2020-99-99]\n")
    assert [info.name for info in open_source("yolo", str(tmp_path)).classes] == ["no", "2020-99-99"]
