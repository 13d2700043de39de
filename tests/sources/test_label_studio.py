"""Source `label_studio`: whose answers count, what is painted over what, which photograph a task means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.errors import BadSampleError, InputError
from segpipe.sources import open_source
from segpipe.types import Sample
from tests.fixtures.mini_label_studio import (
    CONFIG,
    EXPORT,
    answer,
    brush,
    polygon,
    region,
    task,
    tasks,
    write_export,
    write_label_studio,
)
from tests.fixtures.pictures import photograph
from tests.fixtures.small_files import HEIGHT, WIDTH, write

ALL = slice(0, HEIGHT), slice(0, WIDTH)
A = "/data/local-files/?d=mine/images/day%201/a.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_label_studio(tmp_path)
    return tmp_path


def read(root: Path, **options: str) -> dict[str, Sample]:
    source = open_source("label_studio", str(root), options)
    found = source.index()
    assert found.refused == []
    return {ref.sample_id: source.read(ref) for ref in found.refs}


def labels(sample: Sample) -> np.ndarray:
    return np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)


def test_later_regions_lie_over_earlier_ones(root: Path) -> None:
    found = read(root)
    assert sorted(found) == ["b", "day 1/a", "day 1/c"]
    expected = np.full((HEIGHT, WIDTH), 255)
    expected[12:] = 0
    expected[10:16, 4:10] = 1
    np.testing.assert_array_equal(labels(found["day 1/a"]), expected)
    assert [(s.class_id, s.area) for s in found["day 1/a"].segments] == [(0, 12 * WIDTH), (1, 36)]
    drawn = labels(found["b"])
    assert (drawn == 1).sum() == HEIGHT * WIDTH // 4
    assert (drawn[6:18, 9:27] == 1).all()
    assert (labels(found["day 1/c"]) == 255).all()
    assert found["day 1/c"].segments == ()


def test_classes_come_from_the_configuration(root: Path) -> None:
    source = open_source("label_studio", str(root))
    assert [(c.name, c.colour, c.is_thing) for c in source.classes] == [
        ("road", (128, 64, 128), False),
        ("car", (0, 0, 142), True),
    ]
    (root / "labelling_config.xml").unlink()
    assert [info.name for info in open_source("label_studio", str(root)).classes] == ["car", "road"]
    write(root, "elsewhere.xml", CONFIG)
    assert open_source("label_studio", str(root), {"config": "elsewhere.xml"}).classes == source.classes


def test_what_nobody_labelled_may_be_a_class(root: Path) -> None:
    source = open_source("label_studio", str(root), {"unlabelled": "ground"})
    assert [info.name for info in source.classes] == ["ground", "road", "car"]
    found = labels(read(root, unlabelled="ground")["day 1/a"])
    assert sorted(np.unique(found).tolist()) == [0, 1, 2]
    assert (labels(read(root, unlabelled="road")["day 1/c"]) == 0).all()


def test_only_what_a_person_answered_counts(root: Path) -> None:
    """Predictions, drafts, and tasks that were skipped are no answers."""
    given = brush("car", 1, *ALL)
    skipped = answer(1, [given], was_cancelled=True)
    found = [
        task(1, A, [skipped]),
        task(2, "b.jpg", [], drafts=[{"result": [given]}]),
        task(3, "day 1/c.jpg", [skipped, answer(2, [given])]),
    ]
    write_export(root, found)
    index = open_source("label_studio", str(root)).index()
    assert [ref.sample_id for ref in index.refs] == ["day 1/c"]
    assert index.refused == []
    assert "passed over: 2 tasks that nobody has answered: task 1, task 2;" in index.notes[0]


def test_of_several_answers_one_counts(root: Path) -> None:
    first, second = brush("road", 1, *ALL), brush("car", 2, *ALL)
    write_export(root, [task(1, A, [answer(2, [second]), answer(1, [first])])])
    assert (labels(read(root)["day 1/a"]) == 1).all(), "the newest"
    write_export(root, [task(1, A, [answer(2, [second]), answer(1, [first], ground_truth=True)])])
    assert (labels(read(root)["day 1/a"]) == 0).all(), "ground truth"
    note = open_source("label_studio", str(root)).index().notes[0]
    assert "1 further answer to the task: task 1;" in note


def test_a_group_keeps_together(root: Path) -> None:
    found = tasks()
    for each in found:
        each["data"]["group"] = "drive 7"
    write_export(root, found)
    refs = open_source("label_studio", str(root)).index().refs
    assert {ref.group for ref in refs} == {"drive 7"}
    assert len({ref.split for ref in refs}) == 1


def test_a_region_that_was_wiped_away_is_none(root: Path) -> None:
    write_export(root, [task(1, A, [answer(1, [brush("car", 1, slice(0, 0), slice(0, 0))])])])
    assert read(root)["day 1/a"].segments == ()


def spoilt(**changes: Any) -> dict[str, Any]:
    return {**brush("car", 1, *ALL), **changes}


def points(found: Any) -> dict[str, Any]:
    return region("polygonlabels", "car", 1, points=found)


HUGE = [[0, 0], [10**400, 0], [0, 1]]
REFUSED = {
    "a rectangle": (region("rectanglelabels", "car", 1, x=1, y=1, width=5, height=5), "tells no pixels"),
    "an ellipse": (region("ellipselabels", "car", 1, x=1, y=1), "tells no pixels"),
    "a brush without a label": (spoilt(type="brush"), "without a label"),
    "two labels": (spoilt(value={"rle": [1], "brushlabels": ["car", "road"]}), "expected one label"),
    "no value": (spoilt(value=None), "expected one label"),
    "no size": (spoilt(original_width=None), "expected pixels"),
    "a vast size": (spoilt(original_width=10**9), "expected pixels"),
    "a turned photograph": (spoilt(image_rotation=90), "expected 0"),
    "words": (region("brushlabels", "car", 1, rle=["a"]), "list of bytes"),
    "no bytes": (region("brushlabels", "car", 1, rle=[256]), "list of bytes"),
    "a number of bytes": (region("brushlabels", "car", 1, rle=10**9), "list of bytes"),
    "two points": (points([[1, 1], [2, 2]]), "at least three"),
    "huge points": (points(HUGE), "at least three"),
    "words for points": (points([["a", 1], [2, 3], [4, 5]]), "at least three"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_region_costs_its_photograph_and_no_other(name: str, root: Path) -> None:
    bad, message = REFUSED[name]
    write_export(root, [task(1, A, [answer(1, [bad])]), *tasks()[1:]])
    index = open_source("label_studio", str(root)).index()
    assert [(each.item, each.reason) for each in index.refused] == [("task 1", "bad_annotation")]
    assert message in index.refused[0].detail
    assert [ref.sample_id for ref in index.refs if "b" in ref.sample_id]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotations": [answer(1, [brush("bus", 1, *ALL)])]}, "label_out_of_range"),
        ({"annotations": "none"}, "bad_annotation"),
        ({"annotations": [answer(1, "none")]}, "bad_annotation"),  # type: ignore[arg-type]
        ({"data": {"picture": "a.jpg"}}, "bad_annotation"),
        ({"data": {"image": ["a.jpg"]}}, "bad_annotation"),
        ({"data": {"image": "http://[host/a.jpg"}}, "bad_annotation"),
        ({"data": {"image": "/data/local-files/?d=../../etc/passwd"}}, "missing_image"),
        ({"data": {"image": "s3://bucket/images/other.jpg"}}, "missing_image"),
        ({"data": {"image": "/data/upload/1/0a1b2c3d-b.jpg"}}, "duplicate_id"),
    ],
)
def test_a_task_that_cannot_be_used_is_told(changes: dict[str, Any], reason: str, root: Path) -> None:
    first, *others = tasks()
    write_export(root, [*others, {**first, **changes}])
    index = open_source("label_studio", str(root)).index()
    assert [each.reason for each in index.refused] == [reason]
    assert len(index.refs) == 2


def test_a_photograph_that_is_another_one_is_refused(root: Path) -> None:
    found = tasks()
    found[0]["data"]["image_sha256"] = "0" * 64
    write_export(root, found)
    write(root, "images/b.jpg", photograph(2 * HEIGHT, WIDTH))
    source = open_source("label_studio", str(root))
    reasons = {}
    for ref in source.index().refs:
        try:
            source.read(ref)
        except BadSampleError as error:
            reasons[ref.sample_id] = error.reason
    assert reasons == {"day 1/a": "bad_annotation", "b": "size_mismatch"}


def test_a_brush_of_another_size_is_refused_before_it_is_unpacked(root: Path) -> None:
    bad = region("brushlabels", "car", 1, rle=[255] * 12)
    write_export(root, [task(1, A, [answer(1, [bad])])])
    source = open_source("label_studio", str(root))
    with pytest.raises(BadSampleError, match="4294967295 values of 32 bits; expected 3456 of 8"):
        source.read(source.index().refs[0])


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        (EXPORT, "{", "JSON"),
        (EXPORT, "{}", "expected a list of tasks"),
        (EXPORT, "[1]", "expected a list of tasks"),
        (EXPORT, json.dumps([{"id": 1, "image": "a.jpg", "brush": []}]), "JSON-MIN are something else"),
        ("project-2.json", "[]", "2 files project-"),
        ("labelling_config.xml", "<View>", "expected the XML"),
        ("labelling_config.xml", BOMB, "declares a document type"),
        ("labelling_config.xml", BOMB.encode("utf-16"), "expected the XML"),
        ("labelling_config.xml", "<View><Choices/></View>", "0 labels of BrushLabels"),
        ("labelling_config.xml", CONFIG.replace("#00008e", "#00008f", 1), "the same colour"),
        ("labelling_config.xml", "<a>" * 200_000, "expected the XML"),
    ],
)
def test_files_that_the_source_stands_on_are_checked(file: str, data: str | bytes, message: str, root: Path) -> None:
    write(root, file, data)
    with pytest.raises(InputError, match=message):
        open_source("label_studio", str(root)).index()


def test_what_is_imported_is_no_export(root: Path) -> None:
    """The tasks that `segpipe select` writes hold predictions alone."""
    write(root, "tasks.json", json.dumps([{"data": {"image": "b.jpg"}, "predictions": [{"result": []}]}]))
    with pytest.raises(InputError, match="no task has annotations"):
        open_source("label_studio", str(root), {"export": "tasks.json"}).index()
    with pytest.raises(InputError, match="no such file"):
        open_source("label_studio", str(root), {"export": "other.json"})


def test_polygons_of_the_whole_photograph_fill_it(root: Path) -> None:
    write_export(root, [task(1, A, [answer(1, [polygon("car", 1, [[0, 0], [100, 0], [100, 100], [0, 100]])])])])
    assert (labels(read(root)["day 1/a"]) == 1).all()
