"""Keypoints from files in COCO's format to a report with pictures: ingest, training, evaluation, one after another."""

import io
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.config import DatasetConfig, EvaluateConfig, ResourceConfig
from segpipe.shards import open_dataset
from segpipe.stages.evaluate import evaluate
from segpipe.stages.evaluations import load_pictures
from segpipe.stages.export import export
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import ingest
from segpipe.stages.train import train
from segpipe.types import Annotation, EvalReport, TrainResult
from tests.fixtures.figures import figure_run, publish_figures

pytestmark = pytest.mark.xdist_group("keypoints")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A home with the dataset, and the tiny pose network trained on it: a quarter of a minute of one core."""
    home: Path = tmp_path_factory.mktemp("keypoints")
    publish_figures(f"{home}/drawn", train=96, val=16, test=24)
    files = export(f"{home}/drawn", "coco", f"{home}/files")
    words = shlex.split(files.command)
    options = dict(word.split("=", 1) for word in words[6:] if word != "--option")
    config = DatasetConfig(name="figures", format="coco", root=words[3], options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        found = ingest(config, to=f"{home}/data")
    # Small batches: what counts for so short a training is the number of steps.
    run = resolve(figure_run(epochs=5, batch_size=4, learning_rate=1e-2, evaluate_every=5, schedule="cosine"))
    result = train(
        run,
        data=found.uri,
        version=found.version,
        to=f"{home}/runs",
        resources=ResourceConfig(),
        runtime="local",
    )
    return home, result


def score(home: Path, result: TrainResult, to: str, workers: int = 1) -> EvalReport:
    return evaluate(
        result.model_uri,
        data=f"{home}/data",
        version=result.dataset_version,
        to=f"{home}/{to}",
        config=EvaluateConfig(pictures=3, batch_size=4, workers=workers),
        experiment="figures",
        label="tiny",
        runtime="local",
    )


def test_the_dataset_has_keypoints_and_no_label_map(night: tuple[Path, TrainResult]) -> None:
    manifest = open_dataset(f"{night[0]}/data").manifest
    assert manifest.annotations == (Annotation.SEGMENTS, Annotation.KEYPOINTS)
    assert [info.name for info in manifest.classes] == ["person", "box"]


def test_a_tiny_network_learns_stick_figures(night: tuple[Path, TrainResult]) -> None:
    """On figures that it has never seen nine of ten joints lie within a tenth of the box; the loss tells why."""
    home, result = night
    report = score(home, result, "one")
    assert result.primary == report.primary == "pck/box/0.1"
    assert report.value > 0.9
    assert report.low <= report.value <= report.high
    assert report.metrics["ap50/coco/keypoints"] > 0.9  # type: ignore[operator]
    losses = [entry["metrics"]["train/loss"] for entry in result.history if "train/loss" in entry["metrics"]]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_any_number_of_workers_gives_the_same_report(night: tuple[Path, TrainResult]) -> None:
    home, result = night
    one, three = (score(home, result, f"workers-{n}", workers=n) for n in (1, 3))
    assert one.sample_counts == three.sample_counts
    assert (one.value, one.low, one.high, one.metrics) == (three.value, three.low, three.high, three.metrics)


def test_pictures_of_poses_stand_beside_the_report(night: tuple[Path, TrainResult]) -> None:
    home, result = night
    score(home, result, "one")
    (report,) = Path(home, "one").rglob("report.json")
    pictures = load_pictures(str(report.parent))
    assert len(pictures) == 3
    for _, data in pictures:
        assert Image.open(io.BytesIO(data)).width > 256, "truth and prediction side by side"
