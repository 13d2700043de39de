"""The contract of every source, over the table SOURCES; and the table itself."""

import io
import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import segpipe.sources
from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.shards import sample_to_row
from segpipe.sources import SOURCES, Source, names, open_source
from segpipe.types import Annotation
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.mini_variants import VARIANTS, open_mini, write_mini
from tests.test_walls import SIBLINGS

Options = dict[str, str | int | float | bool]
OPTIONS: dict[str, Options] = {
    "scenes": {"train": 5, "val": 4, "test": 1, "height": 48, "width": 64, "clips": 0.8},
}


@pytest.fixture(scope="module", params=sorted([*SOURCES, *VARIANTS]))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp(request.param)
    write_mini(request.param, root)
    return open_mini(request.param, root, OPTIONS.get(request.param))


def test_every_source_has_a_mini_dataset() -> None:
    assert WRITERS.keys() == SOURCES.keys()


def test_every_file_of_the_room_is_in_the_table() -> None:
    room = Path(segpipe.sources.__file__).parent
    found = {path.stem for path in room.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    # The one that is no format: it names the sources that read what torchvision's objects read.
    for name in sorted(found - SIBLINGS["sources"] - {"torchvision_objects"}):
        line = f'    "{name}": {name}.INFO,'
        assert name in SOURCES, f"segpipe/sources/{name} is not in SOURCES; add to segpipe/sources/__init__.py:\n{line}"
        assert SOURCES[name].name == name


def test_names_are_listed_sorted() -> None:
    assert names() == sorted(SOURCES)


def test_index_gives_unique_ids_in_order_and_is_repeatable(source: Source) -> None:
    refs, refused, notes = found = source.index()
    assert refs
    assert refused == []
    assert not any(note.startswith("passed over") for note in notes), "nothing to say of a published layout"
    keys = [(ref.split, ref.sample_id) for ref in refs]
    assert keys == sorted(keys)
    assert len({sample_id for _, sample_id in keys}) == len(keys)
    assert all(ref.sample_id and ref.group and ref.split for ref in refs)
    assert source.index() == found


# A folder of drawings holds two kinds of files, each of which is asked for.
LISTED = {"labelme": 2}


def test_an_index_lists_a_folder_once(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an object store a hundred thousand files are a hundred requests, each time."""
    listed: Counter[str] = Counter()
    list_tree, list_names = storage.list_tree, storage.list_names
    monkeypatch.setattr(storage, "list_tree", lambda uri, **how: listed.update([uri]) or list_tree(uri, **how))
    monkeypatch.setattr(storage, "list_names", lambda uri, **how: listed.update([uri]) or list_names(uri, **how))
    source.index()
    assert max(listed.values(), default=0) <= LISTED.get(source.name, 1), listed


def test_references_are_plain_data(source: Source) -> None:
    for ref in source.index()[0]:
        assert pickle.loads(pickle.dumps(ref)) == ref
        assert json.loads(json.dumps(dict(ref.extra))) == dict(ref.extra)
        assert not any(Path(file).is_absolute() for file in ref.files)


def test_read_gives_what_is_declared(source: Source) -> None:
    allowed = set(range(len(source.classes))) | {source.ignore_index}
    for ref in source.index()[0]:
        sample = source.read(ref)
        assert (sample.sample_id, sample.group) == (ref.sample_id, ref.group)
        assert Image.open(io.BytesIO(sample.image)).size == (sample.width, sample.height)
        if Annotation.LABEL_MAP in source.annotations:
            width = len(sample.label_map or b"") // (sample.height * sample.width)
            assert width == (1 if source.ignore_index == 255 else 2)
            labels = np.frombuffer(sample.label_map or b"", f"<u{width}")
            assert labels.size == sample.height * sample.width
            assert set(np.unique(labels).tolist()) <= allowed
        assert (sample.label_map is not None) == (Annotation.LABEL_MAP in source.annotations)
        assert all(0 <= segment.class_id < len(source.classes) for segment in sample.segments)
        sample_to_row(sample)  # checks what belongs together


def test_every_file_that_is_read_is_listed(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest knows by the files of a reference whether anything changed since."""
    opened: list[str] = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri, **limits: opened.append(uri) or read_bytes(uri, **limits))
    for ref in source.index()[0]:
        opened.clear()
        source.read(ref)
        assert set(opened) <= {storage.join(source.root, file) for file in ref.files}  # type: ignore[attr-defined]


def test_optional_annotations_occur_where_declared(source: Source) -> None:
    refs = source.index()[0]
    samples = [source.read(ref) for ref in refs]
    assert any(sample.segments for sample in samples) == (Annotation.SEGMENTS in source.annotations)
    assert any(sample.keypoints for sample in samples) == (Annotation.KEYPOINTS in source.annotations)
    assert [sample.clip_id for sample in samples] == [ref.clip for ref in refs], "ingest keeps clips whole by it"
    assert any(sample.clip_id for sample in samples) == (Annotation.CLIPS in source.annotations)
    clips = {(sample.clip_id, sample.group) for sample in samples if sample.clip_id is not None}
    assert len({clip for clip, _ in clips}) == len(clips), "a clip must not be cut by a split"
    kinds = {Annotation.DEPTH: "depth", Annotation.FLOW: "flow"}
    declared = {name for kind, name in kinds.items() if kind in source.annotations}
    assert {name for sample in samples for name in sample.extras} == declared
    assert all(any(name in rule for rule in source.coding.rules) for name in declared), "say what its values mean"
    for sample in samples:
        for name, data in sample.extras.items():
            masks.check_extra(data, file=name, height=sample.height, width=sample.width)


def test_a_pickled_source_reads_the_same(source: Source) -> None:
    copy = pickle.loads(pickle.dumps(source))
    refs, _, _ = source.index()
    assert copy.index()[0] == refs
    assert copy.read(refs[-1]) == source.read(refs[-1])


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"scenes"}))
def test_a_root_may_be_in_an_object_store(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    store = fsspec.filesystem("memory")
    store.put(f"{tmp_path}/", f"/{name}/", recursive=True)
    local, remote = open_source(name, str(tmp_path)), open_source(name, f"memory://{name}")
    refs, _, _ = found = remote.index()
    assert found == local.index()
    assert remote.read(refs[0]) == local.read(refs[0])
    missing = replace(refs[0], files=("no/image.jpg", *refs[0].files[1:]))
    with pytest.raises(BadSampleError) as caught:
        remote.read(missing)
    assert caught.value.reason == "missing_image"


def test_the_table_agrees_with_the_source(source: Source) -> None:
    info = SOURCES[source.name]
    assert info.summary
    assert info.licence
    assert info.tasks
    assert all(sample_id and reason for sample_id, reason in info.known_bad.items())
    assert source.licence
    assert len({entry.name for entry in source.classes}) == len(source.classes)
    assert len({entry.colour for entry in source.classes}) == len(source.classes)


def test_an_unknown_format_names_the_closest_and_all() -> None:
    with pytest.raises(InputError, match=r"'camvdi'; did you mean 'camvid'\? known are: ade20k, .*, voc"):
        open_source("camvdi", "")


def test_an_unknown_option_and_a_wrong_type_are_named() -> None:
    with pytest.raises(InputError, match=r"no option 'trian' \(value 3\).*train=240"):
        open_source("scenes", "", {"trian": 3})
    with pytest.raises(InputError, match=r"option 'train': '3' is of type str; expected int, e.g. 240"):
        open_source("scenes", "", {"train": "3"})
    with pytest.raises(InputError, match=r"option 'train': True is of type bool"):
        open_source("scenes", "", {"train": True})
    assert open_source("scenes", "", {"clips": 1}).name == "scenes"
