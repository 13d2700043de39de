"""COCO's documents are parsed once for all that is asked of a source, and again when they change."""

import json
from pathlib import Path
from typing import Any

import pytest

from segpipe.sources import open_source
from segpipe.sources.reading import coco_json
from tests.fixtures.mini_datasets import WRITERS

NAMES = {"coco": "instances_", "coco_panoptic": "panoptic_"}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that were parsed, one by one."""
    paths: list[str] = []
    read_document = coco_json.read_document

    def counted(root: str, path: str) -> Any:
        paths.append(path)
        return read_document(root, path)

    monkeypatch.setattr(coco_json, "read_document", counted)
    coco_json._parsed.cache_clear()
    return paths


@pytest.mark.parametrize("name", ["coco", "coco_panoptic"])
def test_each_document_is_parsed_once(name: str, parsed: list[str], tmp_path: Path) -> None:
    """As an ingest asks: a source that is opened twice, its classes before and after the index, all samples."""
    WRITERS[name](tmp_path)
    documents = sorted(path.name for path in tmp_path.glob("annotations/*.json") if path.name.startswith(NAMES[name]))
    for _ in range(2):
        source = open_source(name, str(tmp_path))
        assert all((source.classes, source.ignore_index, source.coding, source.annotations))
        refs = source.index().refs
        assert [source.read(ref).sample_id for ref in refs if "missing" not in ref.sample_id]
    assert sorted(Path(path).name for path in parsed) == documents
    changed = tmp_path / parsed[0]
    document = json.loads(changed.read_text())
    document["info"] = {"year": 2017}
    changed.write_text(json.dumps(document))
    open_source(name, str(tmp_path)).index()
    assert sorted(Path(path).name for path in parsed) == sorted(documents * 2)
