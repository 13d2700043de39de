"""A training tried for some seconds: what is measured is the recipe's training, and nothing of it stays."""

import math
import resource
from typing import Any

import numpy as np
import pytest
import torch

from segpipe.config import AugmentConfig
from segpipe.data.decode import decode
from segpipe.shards import open_dataset
from segpipe.train import rehearsal
from segpipe.train.rehearsal import LEAST_STEPS, MOST_STEPS, Rehearsal, fell, rehearse, stood
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
    assert found.first_entropy == found.losses[0] == pytest.approx(found.expected, rel=0.5)
    assert (found.batches, found.crops, found.unlabelled) == (4, 16, 0)
    assert found.seen == (0, 1, 2)
    assert found.step_seconds > 0
    assert found.image_seconds > 0


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


def test_a_rate_that_moves_nothing_does_not_make_the_loss_fall(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MOST_STEPS", 8)
    found = tried(data, learning_rate=1e-12)
    assert not fell(found.losses)
    assert stood(found.losses)
    assert found.losses_lower == (), "at a tenth of it no more would move"


def test_of_a_loss_of_several_terms_the_cross_entropy_is_what_is_near_ln_k(data: str) -> None:
    found = tried(data, loss={"cross_entropy": 0.5, "dice": 1.0, "lovasz": 1.0}, seconds=0)
    assert found.expected == pytest.approx(0.5 * math.log(len(CLASSES)))
    assert found.first_entropy == pytest.approx(found.expected, rel=0.5)
    assert found.losses[0] > 2 * found.expected


def test_without_a_cross_entropy_nothing_is_expected_of_it(data: str) -> None:
    found = tried(data, loss={"dice": 1.0}, seconds=0)
    assert (found.first_entropy, found.expected) == (None, None)


def test_memory_is_that_of_the_trial(data: str) -> None:
    larger = bytearray(b"1" * 2**28)
    del larger
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = tried(data, seconds=0)
    assert found.peak_bytes is not None
    assert 2**20 < found.peak_bytes < before


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
        ([0.0] * 5, False),
    ],
)
def test_what_counts_as_a_fall(losses: list[float], has_fallen: bool) -> None:
    assert fell(losses) is has_fallen


def test_what_counts_as_standing_still() -> None:
    still = [1.2, *(1.2 + (at % 2) * 1e-7 for at in range(1, MOST_STEPS))]
    assert stood(still)
    assert not stood(still[:5]), "it had no time to move"
    assert not stood([*still[:-1], 1.1999])
    assert not stood([0.0] * MOST_STEPS), "nothing was labelled in these images"
    assert not stood([])
