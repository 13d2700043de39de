"""segpipe/reports.py: what is written comes back equal, and nothing else is let in."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from segpipe.errors import CorruptError, NonFiniteError
from segpipe.reports import from_plain, to_plain
from segpipe.types import (
    Annotation,
    ClassInfo,
    CrfSettings,
    EvalReport,
    Inference,
    LabelCoding,
    Manifest,
    ModelBundle,
    Shard,
    Split,
    Task,
    Window,
)
from tests.fixtures.example_reports import eval_report, train_result

CLASSES = (ClassInfo(name="sky", colour=(70, 130, 180)), ClassInfo(name="car", colour=(0, 0, 142), is_thing=True))


def manifest() -> Manifest:
    shard = Shard(path="shards/train-0.parquet", rows=9, bytes=100, sha256="ab", row_groups=(8, 1))
    return Manifest(
        schema_version=2,
        dataset="toy",
        source="folder",
        licence="CC0",
        classes=CLASSES,
        ignore_index=255,
        coding=LabelCoding(values=((0, 0), (9, 1)), rules=("9 is it",)),
        annotations=(Annotation.LABEL_MAP,),
        splits={"train": Split(samples=9, shards=(shard,), class_pixels=(1, 2), image_pixels=(3, 3), ignored_pixels=0)},
        quarantined={"truncated": 1},
        quarantine_path=None,
    )


def bundle() -> ModelBundle:
    return ModelBundle(
        arch="unet",
        options={"backbone": "resnet18", "stages": [1, 2], "deep": {"x": None}},
        task=Task.SEMANTIC,
        classes=CLASSES,
        ignore_index=255,
        coding=LabelCoding(values=((0, 0), (9, 1)), rules=("9 is it",)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        input_scale=0.5,
        inference=Inference(scales=(0.5, 1.0), mirror=True),
        dataset="toy",
        dataset_version="v1",
        config_digest="cd",
        code_version="0.1.0",
        weights_sha256="ab",
    )


@pytest.mark.parametrize("value", [eval_report(), train_result(), manifest(), bundle()], ids=lambda v: type(v).__name__)
def test_survives_json(value: Any) -> None:
    text = json.dumps(to_plain(value), allow_nan=False)
    assert from_plain(type(value), json.loads(text), origin="x") == value


def test_what_came_later_is_written_where_it_is_used_and_may_be_absent() -> None:
    """So the model.json of an earlier segpipe is read, and one that uses nothing new is the same to the byte."""
    plain = to_plain(bundle())
    assert "sigmoid" not in plain
    assert set(plain["inference"]) == {"scales", "mirror"}
    windowed = Inference(scales=(1.0,), mirror=False, window=Window(size=(64, 96), overlap=0.5))
    used = replace(bundle(), sigmoid=True, inference=windowed)
    assert to_plain(used)["sigmoid"] is True
    assert to_plain(used)["inference"]["window"] == {"size": [64, 96], "overlap": 0.5}
    assert from_plain(ModelBundle, json.loads(json.dumps(to_plain(used))), origin="x") == used


def test_a_crf_is_written_where_there_is_one_and_may_be_absent() -> None:
    """So the model.json of an earlier segpipe is read, and one that uses nothing new is the same to the byte."""
    assert set(to_plain(bundle())["inference"]) == {"scales", "mirror"}
    used = replace(bundle(), inference=Inference(scales=(1.0,), mirror=False, crf=CrfSettings(iterations=3)))
    plain = json.loads(json.dumps(to_plain(used)))
    assert plain["inference"]["crf"] == {"iterations": 3, "gaussian": [3.0, 3.0], "bilateral": [80.0, 13.0, 10.0]}
    assert from_plain(ModelBundle, plain, origin="x") == used


def test_samples_are_written_where_there_are_some() -> None:
    used = replace(bundle(), inference=Inference(scales=(1.0,), mirror=False, samples=40))
    assert to_plain(used)["inference"]["samples"] == 40
    assert from_plain(ModelBundle, json.loads(json.dumps(to_plain(used))), origin="x") == used


def test_types_are_restored_not_only_values() -> None:
    read = from_plain(Manifest, json.loads(json.dumps(to_plain(manifest()))), origin="x")
    assert read.annotations[0] is Annotation.LABEL_MAP
    assert isinstance(read.classes, tuple)
    assert read.splits["train"].shards[0].row_groups == (8, 1)


def test_an_integer_is_a_float_where_one_is_expected() -> None:
    read = from_plain(EvalReport, {**to_plain(eval_report()), "seconds": 3}, origin="x")
    assert isinstance(read.seconds, float)
    assert read.seconds == 3.0


# What is changed in the plain EvalReport, and what the message must then name.
FAULTS: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "unknown field": ({"extra": 1}, ("only the fields of EvalReport", "extra")),
    "text for a number": ({"value": "0.5"}, ("value: expected a finite number", "'0.5'")),
    "nan": ({"value": math.nan}, ("value: expected a finite number", "nan")),
    "infinity": ({"high": math.inf}, ("high: expected a finite number", "inf")),
    "an integer no float holds": ({"high": 10**400}, ("high: expected a finite number",)),
    "true for a number": ({"low": True}, ("low: expected a finite number", "True")),
    "true for an integer": ({"parameters": True}, ("parameters: expected an integer", "True")),
    "float for an integer": ({"num_samples": 2.0}, ("num_samples: expected an integer", "2.0")),
    "number for text": ({"arch": 7}, ("arch: expected a string", "7")),
    "null for text": ({"arch": None}, ("arch: expected a string", "None")),
    "no such task": ({"task": "tennis"}, ("task: expected one of semantic", "'tennis'")),
    "task of a wrong type": ({"task": ["semantic"]}, ("task: expected one of semantic",)),
    "text for a list": ({"sample_ids": "ab"}, ("sample_ids: expected a list", "'ab'")),
    "deep in a list": ({"confusion": [[3, 1], [0, "4"]]}, ("confusion[1][1]: expected an integer", "'4'")),
    "too short a row": ({"detections": [[[1, 2]]]}, ("detections[0][0]: expected a list of 4", "[1, 2]")),
    "deep in a mapping": ({"per_class": {"sky": {"iou": "x"}}}, ("per_class.sky.iou: expected a finite number", "'x'")),
    "list for a mapping": ({"metrics": [1]}, ("metrics: expected an object", "[1]")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_its_path_and_value(fault: str) -> None:
    change, expected = FAULTS[fault]
    with pytest.raises(CorruptError) as caught:
        from_plain(EvalReport, {**to_plain(eval_report()), **change}, origin="s3://b/report.json")
    message = str(caught.value)
    assert message.startswith("s3://b/report.json: ")
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("name", ["experiment", "seconds", "metrics"])
def test_a_missing_field_is_named(name: str) -> None:
    document = to_plain(eval_report())
    del document[name]
    with pytest.raises(CorruptError, match=f"every field of EvalReport, found 'none called {name}'"):
        from_plain(EvalReport, document, origin="x")


@pytest.mark.parametrize("document", [None, [], "text", 3, [["experiment", "x"]]])
def test_a_document_that_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(CorruptError, match=r"x: \(top level\): expected an object \(EvalReport\)"):
        from_plain(EvalReport, document, origin="x")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(CorruptError) as caught:
        from_plain(EvalReport, {**to_plain(eval_report()), "value": "9" * 10_000}, origin="x")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_json_cannot_hold_is_refused_on_the_way_out(number: float) -> None:
    report = replace(eval_report(), per_class={"sky": {"iou": number}})
    with pytest.raises(NonFiniteError, match=r"EvalReport.per_class.sky.iou"):
        to_plain(report)


def test_nan_inside_free_data_is_refused() -> None:
    document = to_plain(bundle())
    document["options"] = {"a": [0.5, math.nan]}
    with pytest.raises(CorruptError, match=r"options.a\[1\]: expected a finite number"):
        from_plain(ModelBundle, document, origin="x")


@pytest.mark.parametrize("value", [b"bytes", {1: "x"}, {1, 2}, object()])
def test_what_has_no_plain_form_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match=r"options\.x"):
        to_plain(replace(bundle(), options={"x": value}))


@dataclass(frozen=True)
class Choice:
    mode: Literal["fast", "exact"]
    level: Literal[1, 2] | None


def test_literals_and_optionals() -> None:
    assert from_plain(Choice, {"mode": "fast", "level": None}, origin="x") == Choice("fast", None)
    with pytest.raises(CorruptError, match="mode: expected one of 'fast', 'exact', found 'slow'"):
        from_plain(Choice, {"mode": "slow", "level": 1}, origin="x")
    with pytest.raises(CorruptError, match="level: expected one of 1, 2, found True"):
        from_plain(Choice, {"mode": "fast", "level": True}, origin="x")


@dataclass(frozen=True)
class Unreadable:
    names: set[str]


def test_a_hint_without_plain_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"set\[str\]"):
        from_plain(Unreadable, {"names": []}, origin="x")
