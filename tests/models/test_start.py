"""A model that starts from the weights of another: what fits is loaded, what does not is said."""

import logging

import pytest
import torch

from segpipe import models
from segpipe.errors import InputError


def test_a_relative_gets_what_fits_and_the_rest_is_said(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    parent = models.create("fcn_resnet18", 3)
    child = models.create("fcn_resnet18", 3, aux=True)
    fresh = {key: value.clone() for key, value in child.state_dict().items()}
    with caplog.at_level(logging.INFO):
        models.start_from(child, parent.state_dict(), start="parent")
    theirs = parent.state_dict()
    for key, value in child.state_dict().items():
        assert torch.equal(value, theirs[key] if key in theirs else fresh[key]), key
    assert f"loaded {len(theirs)} of {len(fresh)} tensors" in caplog.text
    assert "what begins as made: aux_classifier.0.weight, " in caplog.text
    assert "left behind" not in caplog.text


def test_another_backbone_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InputError, match=r"start_from 'unet': its model lacks \d+ tensors of this one's backbone, or"):
        models.check_start("fcn_resnet34", {}, "unet", {"backbone": "resnet18"})
    models.check_start("fcn_resnet34", {}, "unet", {})


def test_a_norm_that_was_frozen_may_learn_from_there_on() -> None:
    models.check_start("deeplab_v2", {"norm": "batch"}, "deeplab_v2", {"norm": "frozen"})
