"""Hugging Face datasets on disk: columns and classes as they are found in the field, and what is wrong in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.config import DatasetConfig
from segpipe.errors import BadSampleError, InputError
from segpipe.shards import open_dataset
from segpipe.sources import open_source
from segpipe.stages.ingest import ingest
from tests.fixtures.mini_depth import write_hf
from tests.fixtures.pictures import label_blocks, photograph, png
from tests.fixtures.small_files import HEIGHT, WIDTH, write

Options = dict[str, str | int | float | bool]
PICTURE, MASK = photograph(HEIGHT, WIDTH), png(label_blocks(HEIGHT, WIDTH, 3))


def write_table(root: Path, path: str, columns: dict[str, list[Any]], notes: dict[str, str] | None = None) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(notes), root / path)


def labels_of(root: Path, options: Options | None = None) -> np.ndarray:
    source = open_source("hf", str(root), options)
    return np.frombuffer(source.read(source.index()[0][0]).label_map or b"", np.uint8).reshape(HEIGHT, WIDTH)


def test_rows_become_samples_with_the_bytes_of_the_row(tmp_path: Path) -> None:
    write_hf(tmp_path)
    source = open_source("hf", str(tmp_path))
    refs, refused, _ = source.index()
    assert refused == []
    assert [(ref.split, ref.sample_id) for ref in refs] == [
        ("train", "data/train-00000-of-00002/000000"),
        ("train", "data/train-00000-of-00002/000001"),
        ("train", "data/train-00001-of-00002/000000"),
        ("train", "data/train-00001-of-00002/000001"),
        ("val", "data/validation-00000-of-00001/000000"),
    ]
    assert [info.name for info in source.classes] == ["road", "car", "sky"]
    assert source.read(refs[1]).image == photograph(HEIGHT, WIDTH, number=21, encoding="PNG")


@pytest.mark.parametrize("path", ["data/train-00000-of-00001-90f25bc59d5f9e8c.parquet", "default/train/0000.parquet"])
def test_bare_bytes_other_names_and_another_place_are_read_too(path: str, tmp_path: Path) -> None:
    write_table(tmp_path, path, {"pixel_values": [PICTURE], "annotation": [MASK], "label": [3]})
    write(tmp_path, "id2label.json", json.dumps({"2": "sky", "0": "road", "1": "car"}))
    assert (labels_of(tmp_path) == label_blocks(HEIGHT, WIDTH, 3)).all()
    assert {ref.split for ref in open_source("hf", str(tmp_path)).index()[0]} == {"train"}


def test_zero_and_a_named_value_may_mean_void(tmp_path: Path) -> None:
    write_table(tmp_path, "train.parquet", {"image": [PICTURE], "mask": [MASK]})
    write(tmp_path, "names.json", json.dumps({"0": "a", "1": "b", "2": "c"}))
    raw = label_blocks(HEIGHT, WIDTH, 3)
    assert (labels_of(tmp_path, {"classes": "names.json", "ignore": 1}) == np.array([0, 255, 1])[raw]).all()
    write(tmp_path, "names.json", json.dumps({"0": "a", "1": "b"}))
    options: Options = {"classes": "names.json", "reduce_zero": True}
    assert (labels_of(tmp_path, options) == np.array([255, 0, 1])[raw]).all()
    assert (labels_of(tmp_path, options | {"ignore": 1}) == np.array([255, 255, 0])[raw]).all()


def test_names_may_stand_in_the_feature_of_the_mask(tmp_path: Path) -> None:
    notes = {"huggingface": json.dumps({"info": {"features": {"mask": {"names": ["a", "b", "c"]}}}})}
    write_table(tmp_path, "test.parquet", {"image": [PICTURE], "mask": [MASK]}, notes)
    assert [info.name for info in open_source("hf", str(tmp_path)).classes] == ["a", "b", "c"]


@pytest.mark.usefixtures("one_core")
def test_an_ingested_dataset_holds_the_rows(tmp_path: Path) -> None:
    write_hf(tmp_path / "root")
    table = pq.read_table(tmp_path / "root" / "data" / "train-00001-of-00002.parquet")
    broken = table.set_column(0, "image", pa.array([{"bytes": b"II*", "path": "x"}, *table["image"].to_pylist()[1:]]))
    pq.write_table(broken, tmp_path / "root" / "data" / "train-00001-of-00002.parquet")
    config = DatasetConfig(name="toy", format="hf", root=str(tmp_path / "root"), max_quarantine=0.5)
    result = ingest(config, to=str(tmp_path / "out"))
    assert result.splits == {"train": 3, "val": 1}
    assert [(entry.reason, entry.item) for entry in result.quarantined] == [
        ("format_not_allowed", "data/train-00001-of-00002/000000")
    ]
    assert ingest(config, to=str(tmp_path / "out")).status == "already_published"
    assert len(list(open_dataset(result.uri).samples("train"))) == 3


CELLS = [
    ({"bytes": None, "path": "/home/me/1.png"}, {"bytes": MASK, "path": None}, "missing_image", "the path '/home/me/1"),
    ({"bytes": PICTURE, "path": ""}, {"bytes": None, "path": None}, "missing_mask", "holds no bytes: save"),
    ({"bytes": PICTURE, "path": ""}, {"bytes": PICTURE, "path": ""}, "format_not_allowed", "the mask is a JPEG"),
    ({"bytes": PICTURE, "path": ""}, {"bytes": png(label_blocks(8, 8, 3)), "path": ""}, "size_mismatch", "mask 8x8"),
    (
        {"bytes": PICTURE, "path": ""},
        {"bytes": png(label_blocks(HEIGHT, WIDTH, 9)), "path": ""},
        "label_out_of_range",
        "",
    ),
]


@pytest.mark.parametrize(("image", "label", "reason", "detail"), CELLS, ids=[cell[2] for cell in CELLS])
def test_a_bad_row_is_named(image: Any, label: Any, reason: str, detail: str, tmp_path: Path) -> None:
    write_hf(tmp_path)
    good = {"bytes": PICTURE, "path": ""}, {"bytes": MASK, "path": ""}
    columns = {"image": [good[0], image], "label": [good[1], label]}
    write_table(tmp_path, "data/validation-00000-of-00001.parquet", columns)
    source = open_source("hf", str(tmp_path))
    refs = [ref for ref in source.index()[0] if ref.split == "val"]
    assert source.read(refs[0]).image == PICTURE
    with pytest.raises(BadSampleError, match=r"validation-00000-of-00001.parquet, row 1") as caught:
        source.read(refs[1])
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_a_damaged_row_group_costs_its_rows_and_tells_no_root(tmp_path: Path) -> None:
    write_hf(tmp_path)
    file = tmp_path / "data" / "train-00000-of-00002.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    source = open_source("hf", str(tmp_path))
    refs, _, _ = source.index()
    assert source.read(refs[2]).sample_id == "data/train-00001-of-00002/000000"
    with pytest.raises(BadSampleError) as caught:
        source.read(refs[0])
    assert (caught.value.reason, caught.value.file) == ("unreadable", "data/train-00000-of-00002.parquet")
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda root: (root / "id2label.json").unlink(), {}, 'id2label.json: expected the class of each .* {"0"'),
        (lambda root: write(root, "id2label.json", '{"0": "a", "1": "a"}'), {}, "each name once"),
        (lambda root: write(root, "id2label.json", '{"a": "b"}'), {}, "expected the class of each mask value"),
        (lambda root: (root / "data/train-00001-of-00002.parquet").unlink(), {}, "00001-of-00002.*: this and 0"),
        (lambda root: write(root, "data/train-00000-of-00002.parquet", "x"), {}, "expected a Parquet file"),
        (lambda root: None, {"label": "scene"}, r"no column scene .* scene \(string\): name the"),
        (lambda root: None, {"folder": "no"}, r"no: no \*.parquet here; expected Hugging Face's files"),
        (lambda root: None, {"classes": "no.json"}, "no.json"),
    ],
)
def test_what_is_no_such_dataset_says_what_was_expected(
    spoil: Any, options: Options, message: str, tmp_path: Path
) -> None:
    write_hf(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        open_source("hf", str(tmp_path), options).index()
