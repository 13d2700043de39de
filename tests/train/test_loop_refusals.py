"""What stops a training: a NaN or Inf within its step, and what no retry can mend before the first one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segpipe import checkpoint
from segpipe.errors import InputError, NonFiniteError
from segpipe.shards import make_split, manifest_from_json, manifest_to_json, open_dataset, publish, write_shard
from segpipe.train.loop import fit
from segpipe.train.runtime import LocalRuntime
from segpipe.train.session import TrainJob
from segpipe.types import Annotation, Manifest
from tests.fixtures.figures import figure_run, publish_figures
from tests.fixtures.small import publish_small, small_run, small_samples
from tests.fixtures.train_worker import CPU, train

# B6: nonsense.


class Poisoned(LocalRuntime):
    """Puts a number into one weight, or into the gradient, before the step of that number (from 0)."""

    def __init__(self, value: float, *, step: int, gradient: bool) -> None:
        super().__init__(CPU)
        self._value, self._step, self._gradient = value, step, gradient
        self._seen = 0

    def wrap(self, model: nn.Module) -> nn.Module:
        parameter = model.head.weight

        def poison(module: nn.Module, arguments: Any) -> None:
            if module.training:
                if self._seen == self._step and not self._gradient:
                    with torch.no_grad():
                        parameter[0, 0] = self._value
                self._seen += 1

        def poison_gradient(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * self._value if self._seen == self._step + 1 else gradient

        model.register_forward_pre_hook(poison)
        if self._gradient:
            parameter.register_hook(poison_gradient)
        return super().wrap(model)


@pytest.fixture
def champion(tmp_path: Path) -> Iterator[Path]:
    """Files of an earlier, better run beside this one; nothing that this run does may touch them."""
    folder = tmp_path / "champion"
    folder.mkdir()
    for name in ("model.json", "000001.json"):
        (folder / name).write_text(name)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    yield folder
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


@pytest.mark.usefixtures("champion")
@pytest.mark.parametrize("gradient", [False, True], ids=["weight", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("step", [0, 5])
def test_nonsense_stops_the_run_within_its_step(job: TrainJob, value: float, step: int, gradient: bool) -> None:
    job = replace(job, run=small_run(checkpoint_every=3))
    with pytest.raises(NonFiniteError) as caught:
        fit(job, Poisoned(value, step=step, gradient=gradient))
    message = str(caught.value)
    assert f"at step {step} (epoch {step // 4})" in message
    ids = [word.strip(",.") for word in message.split() if word.startswith("train/")]
    assert len(ids) == 4
    assert set(ids) <= set(open_dataset(job.data).sample_ids("train"))
    assert "Lower train.learning_rate" in message
    assert not Path(job.run_uri, "model").exists()
    if step == 5:
        found = checkpoint.latest(job.run_uri)
        assert found is not None
        assert found.step == 4, "what was saved before is whole"


def test_the_named_samples_are_those_of_all_micro_batches(job: TrainJob) -> None:
    with pytest.raises(NonFiniteError) as caught:
        fit(replace(job, run=small_run(batch_size=2, accumulate=2)), Poisoned(float("nan"), step=0, gradient=False))
    assert str(caught.value).count("train/0") == 4


def test_an_absurd_learning_rate_is_no_model(job: TrainJob) -> None:
    with pytest.raises(NonFiniteError, match="NaN or Inf"):
        train(replace(job, run=small_run(learning_rate=1e38, optimizer="sgd")))
    assert not Path(job.run_uri, "model").exists()


def test_weights_that_overflow_in_the_very_last_step_are_not_saved(job: TrainJob) -> None:
    """Loss and gradient were finite; what the optimiser made of them is not."""
    run = small_run(epochs=1, train_split="val", learning_rate=3e30, optimizer="sgd", schedule="constant")
    with pytest.raises(NonFiniteError, match=r"holds NaN or Inf at step 1; nothing was saved"):
        fit(replace(job, run=run), Poisoned(1e15, step=0, gradient=True))
    assert checkpoint.latest(job.run_uri) is None


# What no retry can mend.


@pytest.mark.parametrize(
    ("train_keys", "message"),
    [
        ({"train_split": "trian"}, r"split 'trian' is missing or empty; the dataset has .*'train': 16"),
        ({"validation_split": "dev"}, r"split 'dev' is missing or empty; the dataset has .*'val': 4"),
        ({"batch_size": 32}, r"split 'train' has 16 samples, and one step needs 32"),
    ],
)
def test_a_recipe_that_does_not_fit_the_dataset_is_refused(
    job: TrainJob, train_keys: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(replace(job, run=small_run(**train_keys)))
    assert not Path(job.run_uri).exists()


def published_without_labels(uri: str, *, split: str, annotations: list[str]) -> str:
    """The small dataset, but the label maps of one split are gone or all ignored. Gives the version."""
    publish_small(uri)
    document = manifest_to_json(open_dataset(uri).manifest)
    samples = [
        replace(sample, label_map=b"\xff" * (sample.height * sample.width) if annotations else None)
        for sample in small_samples(split, 4)
    ]
    manifest: Manifest = manifest_from_json({**document, "annotations": annotations}, where="test")
    splits = {**manifest.splits, split: make_split([write_shard(samples, uri, split)], len(manifest.classes))}
    return publish(uri, replace(manifest, splits=splits))[0]


@pytest.mark.parametrize("class_weights", ["none", "enet", "median_frequency"])
def test_a_dataset_without_what_the_task_needs_is_refused(tmp_path: Path, class_weights: str) -> None:
    uri = str(tmp_path / "data")
    version = published_without_labels(uri, split="train", annotations=[])
    run = small_run(class_weights=class_weights)
    job = TrainJob(run=run, data=uri, version=version, run_uri=str(tmp_path / "run"), code_version="test")
    with pytest.raises(InputError, match=r"task semantic needs label_map, which dataset .* does not fill"):
        train(job)


def test_a_validation_split_without_a_label_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "data")
    version = published_without_labels(uri, split="val", annotations=[str(Annotation.LABEL_MAP)])
    job = TrainJob(
        run=small_run(epochs=1), data=uri, version=version, run_uri=str(tmp_path / "run"), code_version="test"
    )
    with pytest.raises(InputError, match=r"miou of split 'val' is undefined, since nothing in it is labelled"):
        train(job)


@pytest.mark.parametrize("heatmaps", [5, 18])
def test_other_heatmaps_than_the_data_has_keypoints_are_refused(tmp_path: Path, heatmaps: int) -> None:
    uri = str(tmp_path / "data")
    version = publish_figures(uri, train=2, val=1)
    assert open_dataset(uri).num_keypoints("train") == 17
    run = figure_run(options={"keypoints": heatmaps})
    job = TrainJob(run=run, data=uri, version=version, run_uri=str(tmp_path / "run"), code_version="test")
    with pytest.raises(InputError, match=rf"option keypoints is {heatmaps}, and objects of .* have up to 17"):
        train(job)
