"""The evaluation stage: one report a model and dataset version, pictures beside it, and nothing counted twice."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe import metrics, reports
from segpipe.config import EvaluateConfig
from segpipe.errors import CorruptError, InputError
from segpipe.shards import open_dataset
from segpipe.stages import evaluate as stage
from segpipe.stages.evaluate import evaluate, location
from segpipe.stages.evaluations import load_pictures, load_report
from segpipe.types import EvalReport
from tests.fixtures.small import publish_small
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")

CONFIG = EvaluateConfig(pictures=3, batch_size=2)


def score(shapes: Shapes, to: Path, config: EvaluateConfig = CONFIG, **changes: Any) -> EvalReport:
    arguments = {"data": shapes.data, "version": shapes.version, "model_uri": shapes.result.model_uri, **changes}
    return evaluate(to=str(to), config=config, experiment="shapes", label="unet", runtime="local", **arguments)


def folder_of(shapes: Shapes, to: Path, config: EvaluateConfig = CONFIG) -> str:
    return location(shapes.result.weights_sha256, label="unet", version=shapes.version, config=config, to=str(to))


@pytest.fixture(scope="module")
def scored(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvalReport]:
    to: Path = tmp_path_factory.mktemp("evaluations")
    return to, score(shapes, to)


def test_the_report_is_about_this_model_on_this_split(shapes: Shapes, scored: tuple[Path, EvalReport]) -> None:
    to, report = scored
    dataset = open_dataset(shapes.data)
    assert (report.experiment, report.arch, report.label) == ("shapes", "unet", "unet")
    assert (report.dataset, report.dataset_version, report.split) == ("shapes", shapes.version, "test")
    assert report.weights_sha256 == shapes.result.weights_sha256
    assert (report.checkpoint, report.config_digest) == (shapes.result.model_uri, shapes.run.digest)
    assert list(report.sample_ids) == dataset.sample_ids("test")
    assert list(report.groups) == dataset.groups("test")
    assert tuple(map(sum, report.confusion)) == dataset.manifest.splits["test"].class_pixels
    scores = metrics.semantic_scores(np.array(report.confusion))
    assert report.value == pytest.approx(float(scores["miou"]))
    assert np.array(report.sample_counts).sum(axis=0)[:, 1].tolist() == list(map(sum, report.confusion))
    assert report.low <= report.value <= report.high
    assert load_report(folder_of(shapes, to)) == report
    assert json.loads(Path(folder_of(shapes, to), "report.json").read_text()) == reports.to_plain(report)


def test_pictures_stand_beside_the_report(shapes: Shapes, scored: tuple[Path, EvalReport]) -> None:
    pictures = load_pictures(folder_of(shapes, scored[0]))
    assert [name.rpartition("-")[0] for name, _ in pictures] == ["test-0000", "test-0002", "test-0004"]
    for _, data in pictures:
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.format == "PNG"
        assert image.width > 40, "photograph, truth and prediction side by side"


def test_evaluating_again_is_free(
    shapes: Shapes, scored: tuple[Path, EvalReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "evaluate_share", lambda share: pytest.fail("a model was loaded"))
    to, report = scored
    assert score(shapes, to) == report
    assert score(shapes, to, CONFIG.model_copy(update={"workers": 3})) == report, "workers are no part of the question"
    assert score(shapes, to, version=shapes.version[:10]) == report, "the beginning of a version names it"


def test_any_number_of_workers_counts_the_same(shapes: Shapes, scored: tuple[Path, EvalReport], tmp_path: Path) -> None:
    report = score(shapes, tmp_path, CONFIG.model_copy(update={"workers": 2}))
    for field in (
        "confusion",
        "sample_counts",
        "sample_ids",
        "value",
        "low",
        "high",
        "metrics",
        "per_class",
        "details",
    ):
        assert getattr(report, field) == getattr(scored[1], field)
    assert load_pictures(folder_of(shapes, tmp_path)) == load_pictures(folder_of(shapes, scored[0]))


@pytest.mark.parametrize("content", [b"", b'{"experiment": "shapes"}', b"{}\n", b"\xff"])
def test_a_damaged_report_is_made_again(
    content: bytes, shapes: Shapes, scored: tuple[Path, EvalReport], tmp_path: Path
) -> None:
    path = Path(folder_of(shapes, tmp_path), "report.json")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert score(shapes, tmp_path).sample_counts == scored[1].sample_counts
    assert load_report(str(path.parent)).confusion == scored[1].confusion


def test_what_is_damaged_beside_a_damaged_report_is_made_again_too(
    shapes: Shapes, scored: tuple[Path, EvalReport], tmp_path: Path
) -> None:
    folder = Path(folder_of(shapes, tmp_path))
    shutil.copytree(folder_of(shapes, scored[0]), folder)
    picture = next((folder / "pictures").iterdir())
    for path in (folder / "report.json", picture):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptError, match=rf"Delete {folder}/report\.json and run the command that made it again"):
        load_report(str(folder))
    assert score(shapes, tmp_path).sample_counts == scored[1].sample_counts
    assert load_pictures(str(folder)) == load_pictures(folder_of(shapes, scored[0]))


def test_no_pictures_where_none_are_asked_for(shapes: Shapes, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"pictures": 0, "split": "val"})
    assert score(shapes, tmp_path, config).num_samples == 4
    assert load_pictures(folder_of(shapes, tmp_path, config)) == []


def test_another_split_version_or_code_is_another_report(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {
        folder_of(shapes, tmp_path),
        folder_of(shapes, tmp_path, CONFIG.model_copy(update={"split": "val"})),
        location("f" * 64, label="unet", version=shapes.version, config=CONFIG, to=str(tmp_path)),
        location(shapes.result.weights_sha256, label="unet", version="f" * 64, config=CONFIG, to=str(tmp_path)),
    }
    monkeypatch.setattr(stage, "code_version", lambda: "0.1.0+other")
    assert len({*folders, folder_of(shapes, tmp_path)}) == 5


def test_a_missing_split_is_named_with_those_there_are(shapes: Shapes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        score(shapes, tmp_path, CONFIG.model_copy(update={"split": "dev"}))
    assert "evaluate.split is 'dev', which is missing or empty; there are: test (6), train (16), val (4)" in str(
        caught.value
    )


def test_a_folder_that_is_no_model_and_a_version_that_is_not_there_are_named(shapes: Shapes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a model bundle, model\.json is missing"):
        score(shapes, tmp_path, model_uri=shapes.result.run_uri)
    with pytest.raises(InputError, match="version 00000000 is not here"):
        score(shapes, tmp_path, version="00000000")


def test_damaged_weights_are_never_scored(shapes: Shapes, tmp_path: Path) -> None:
    weights = shapes.copy_run(tmp_path) / "model" / "weights.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptError, match=r"weights\.safetensors: SHA-256 is .*run the same training again"):
        score(shapes, tmp_path / "to", model_uri=str(weights.parent))


def test_a_model_of_other_classes_is_refused(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fixtures import small

    renamed = (*small.CLASSES[:2], small.ClassInfo(name="ring", colour=(1, 2, 3)))
    monkeypatch.setattr(small, "CLASSES", renamed)
    version = publish_small(str(tmp_path / "data"), train=1, val=1, test=1)
    with pytest.raises(InputError, match=r"knows the classes \['ground', 'box', 'disc'\], dataset 'shapes' has"):
        score(shapes, tmp_path / "to", data=str(tmp_path / "data"), version=version)


@pytest.mark.parametrize(
    "sample_id", ["../../../etc/passwd", "a/b", "/absolute", "nul\0", "ünï 🚲", "", "." * 300, "a\\b", "-rf"]
)
def test_a_sample_id_never_becomes_a_path(sample_id: str) -> None:
    name = stage._file_name(sample_id)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert 6 < len(name) < 60


def test_sample_ids_that_look_alike_keep_their_own_pictures() -> None:
    assert len({stage._file_name(sample_id) for sample_id in ("a/b", "a-b", "a b", "a.b")}) == 4
