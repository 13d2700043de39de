"""Recipes with every loss that they may choose, through the real loop: what is logged, learnt and kept."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segpipe import checkpoint, models
from segpipe.config.loss import LossConfig
from segpipe.errors import InputError
from segpipe.train.session import TrainJob
from tests.fixtures.bundles import parts_of, report_of, share_of
from tests.fixtures.small import publish_small, small_run
from tests.fixtures.train_worker import moved, same, train

TERMS: dict[str, Any] = {
    "cross_entropy": 2.0,
    "bootstrapped_cross_entropy": {"threshold": 0.7, "top_k": 100},
    "focal": {"gamma": 1.5},
    "dice": {"smooth": 1.0},
    "jaccard": {"per_image": True},
    "tversky": {"weight": 0.5, "alpha": 0.2, "beta": 0.8},
    "lovasz": 1.0,
    "boundary": 0.01,
}


def logged(result: Any) -> list[dict[str, float]]:
    return [entry["metrics"] for entry in result.history if "train/loss" in entry["metrics"]]


def test_every_term_of_a_recipe_is_tried_here() -> None:
    assert set(TERMS) == set(LossConfig.model_fields)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "boundary"])
def test_each_loss_is_trained_with_alone(job: TrainJob, name: str) -> None:
    """Four epochs of four steps: the last ones are better than the first."""
    run = small_run(loss={name: TERMS[name]}, epochs=4)
    result = train(replace(job, run=run))
    steps = [metrics["train/loss"] for metrics in logged(result)]
    assert len(steps) == 16
    assert sum(steps[-4:]) < 0.95 * sum(steps[:4])
    assert {tuple(sorted(metrics)) for metrics in logged(result)} == {("train/learning_rate", "train/loss")}


def test_all_losses_together_are_logged_by_name_for_each_head(job: TrainJob) -> None:
    run = small_run("fcn_mobilenet_v3_large", loss=TERMS, epochs=1, aux_weight=0.25, class_weights="enet")
    run = run.model_copy(update={"options": {"aux": True}})
    result = train(replace(job, run=run))
    for metrics in logged(result):
        terms = {key.removeprefix("train/losses/"): value for key, value in metrics.items() if "losses" in key}
        assert set(terms) == {f"{head}/{name}" for head in ("main", "aux") for name in TERMS}
        assert metrics["train/loss"] == pytest.approx(sum(terms.values()))
        assert all(math.isfinite(value) for value in terms.values())


def test_the_choice_of_a_loss_is_a_choice_of_weights(job: TrainJob) -> None:
    plain = train(replace(job, run=small_run(epochs=1)))
    named = moved(job, f"{job.run_uri}-named")
    assert same(train(replace(named, run=small_run(epochs=1, loss={"cross_entropy": 1.0})))) == same(plain)
    other = train(replace(moved(job, f"{job.run_uri}-other"), run=small_run(epochs=1, loss={"dice": 1.0})))
    assert other.weights_sha256 != plain.weights_sha256


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    """A job of two classes: ground and box."""
    folder = tmp_path_factory.mktemp("two")
    version = publish_small(f"{folder}/data", two_classes=True)
    return TrainJob(
        run=small_run(), data=f"{folder}/data", version=version, run_uri=f"{folder}/run", code_version="test"
    )


@pytest.mark.parametrize(
    ("settings", "floor"),
    [
        ({"loss": {"focal": {"alpha": 0.9}}, "epochs": 8, "evaluate_every": 2}, 0.6),  # one class alone has 0.46
        ({"loss": TERMS, "epochs": 1, "class_weights": "enet"}, 0.0),
    ],
)
def test_one_logit_for_two_classes_is_trained_kept_and_scored_as_two(
    two: TrainJob, tmp_path: Path, settings: dict[str, Any], floor: float
) -> None:
    run = small_run(sigmoid=True, **settings)
    result = train(replace(moved(two, str(tmp_path)), run=run))
    model, bundle = checkpoint.load_model(result.model_uri)
    assert bundle.sigmoid
    assert [info.name for info in bundle.classes] == ["ground", "box"]
    assert model(torch.zeros(1, 3, 32, 40)).logits_NKHW.shape == (1, 1, 32, 40)
    share = share_of(two, result, batch_size=4)
    report = report_of(share, parts_of(share, 1))
    assert report.classes == ("ground", "box")
    assert report.metrics["miou"] is not None
    assert report.metrics["miou"] > floor


def test_one_logit_of_other_than_two_classes_is_refused(job: TrainJob) -> None:
    with pytest.raises(InputError, match=r"sigmoid is true: that is for two classes, and the dataset has 3 \(ground, "):
        train(replace(job, run=small_run(sigmoid=True)))
    with pytest.raises(InputError, match=r"loss: focal.alpha is set: that is for two classes, and the dataset has 3"):
        train(replace(job, run=small_run(loss={"focal": {"alpha": 0.3}})))


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("unet", {}, r"unet: train: aux_weight is 0.3: it has no auxiliary heads; leave it out$"),
        (
            "fcn_resnet18",
            {},
            r"aux_weight is 0.3: it has no auxiliary heads; leave it out \(or set its option aux: true",
        ),
    ],
)
def test_a_weight_of_heads_that_are_not_there_is_refused(
    job: TrainJob, arch: str, options: dict[str, Any], expected: str
) -> None:
    run = small_run(arch, aux_weight=0.3).model_copy(update={"options": options})
    with pytest.raises(InputError, match=expected):
        train(replace(job, run=run))
    assert models.aux_heads(arch, options) == ()
    assert models.aux_heads("fcn_resnet18", {"aux": True}) == ("aux",)
