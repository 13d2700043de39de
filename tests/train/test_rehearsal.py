"""A training tried for some seconds: what is measured is the recipe's training, and nothing of it stays."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from segpipe.config import AugmentConfig
from segpipe.data.decode import decode
from segpipe.shards import open_dataset
from segpipe.train.rehearsal import LEAST_STEPS, MOST_STEPS, Rehearsal, fell, rehearse
from segpipe.train.session import TrainJob
from tests.fixtures.small import CLASSES, publish_small, small_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("rehearsed") / "data")
    publish_small(uri)
    return uri


def tried(data: str, *, seconds: float = 60, **train: Any) -> Rehearsal:
    version = open_dataset(data).version
    job = TrainJob(run=small_run(**train), data=data, version=version, run_uri="", code_version="test")
    return rehearse(job, seconds=seconds)


def test_a_sound_training_learns_one_step_by_heart(data: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = tried(data)
    assert torch.equal(torch.get_rng_state(), before), "a retrain in this process meets the same random numbers"
    assert fell(found.losses)
    assert found.losses_lower == ()
    assert LEAST_STEPS <= len(found.losses) <= MOST_STEPS
    assert found.expected == pytest.approx(math.log(len(CLASSES)))
    assert found.losses[0] == pytest.approx(found.expected, rel=0.5)
    assert (found.batches, found.crops, found.unlabelled) == (4, 16, 0)
    assert found.seen == (0, 1, 2)
    assert found.step_seconds > 0
    assert found.image_seconds > 0
    assert found.peak_bytes > 2**20


def test_the_crops_are_those_that_enter_the_model(data: str) -> None:
    """Without augmentation they are the images themselves, a level of 8 bit apart."""
    found = tried(data, augment=AugmentConfig(crop=(32, 40), scale=(1.0, 1.0), colour=0.0))
    images = np.frombuffer(found.images_NHW3, np.uint8).reshape(-1, *found.size, 3).astype(int)
    stored = [
        decode(sample).image_3HW.permute(1, 2, 0).numpy().astype(int) for sample in open_dataset(data).samples("train")
    ]
    for image in images:
        either = [min(abs(image - each).max(), abs(image[:, ::-1] - each).max()) for each in stored]
        assert min(either) <= 1


def test_a_rate_that_moves_nothing_does_not_make_the_loss_fall(data: str) -> None:
    found = tried(data, learning_rate=1e-12, seconds=1)
    assert not fell(found.losses)
    assert not fell(found.losses_lower)
    assert len(found.losses_lower) >= LEAST_STEPS


def test_a_rate_too_high_is_tried_at_a_tenth(data: str) -> None:
    found = tried(data, learning_rate=1e12, optimizer="sgd", seconds=5)
    assert not fell(found.losses)
    assert found.losses_lower


@pytest.mark.parametrize(
    ("losses", "has_fallen"),
    [
        ([1.0, 0.9, 0.8, 0.7], True),
        ([1.0, 1.2, 1.1, 1.0], False),
        ([1.0, 0.99, 0.985, 0.985], False),
        ([1.0, 0.5, math.nan], False),
        ([1.0], False),
        ([], False),
    ],
)
def test_what_counts_as_a_fall(losses: list[float], has_fallen: bool) -> None:
    assert fell(losses) is has_fallen
