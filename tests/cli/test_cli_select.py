"""`segpipe select`: what it prints, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segpipe.config import ResourceConfig
from segpipe.stages.identity import resolve
from segpipe.stages.train import train
from segpipe.types import TrainResult
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.small import publish_small, small_run, small_samples


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder: Path = tmp_path_factory.mktemp("select")
    data = str(folder / "data")
    version = publish_small(data, train=4, val=2, test=2)
    run = resolve(small_run(epochs=1))
    return train(run, data=data, version=version, to=str(folder / "runs"), resources=ResourceConfig(), runtime="local")


def test_what_a_person_is_told(trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, sample in enumerate(small_samples("test", 4)):
        (photos / f"{number}.{'jpg' if number % 2 else 'png'}").write_bytes(sample.image)
    arguments = ("select", str(photos), "--by", trained.model_uri, "--count", "2", "--to", str(tmp_path / "out"))
    found = document(segpipe(*arguments, "--json"))
    assert (found["images"], found["asked"], len(found["chosen"]), found["quarantined"]) == (4, 4, 2, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "images",
        "labelling_config.xml",
        "segpipe-export.json",
        "selection.json",
        "tasks.json",
    ]
    shown = segpipe(*arguments)
    assert "2 of 4 images by entropy; 0 answers made now" in shown.stdout
    assert shown.stdout.endswith(f"  segpipe ingest label_studio {tmp_path / 'out'} --name NAME\n")
    other = segpipe(*arguments, "--format", "coco")
    assert (other.exit_code, "another export lies there" in other.stderr) == (1, True)
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    coco = segpipe(*arguments[:-1], str(tmp_path / "coco"), "--format", "coco")
    assert (coco.exit_code, "bad.png" in coco.stdout) == (1, True)
    assert "annotations=answers.json" in coco.stdout.splitlines()[-1]
    proposed = json.loads((tmp_path / "coco" / "proposals.json").read_text())["info"]
    assert proposed["proposed_by"].startswith("unet ")
    wrong = segpipe(*arguments, "--strategy", "vote-entropy")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "vote-entropy, pairwise-miou several" in wrong.stderr
