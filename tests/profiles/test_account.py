"""What is put on record of a training: the parts by themselves, and what cannot be counted by its reason."""

from __future__ import annotations

import pytest

from segpipe import models
from segpipe.errors import InputError
from segpipe.profiles import account, profile
from segpipe.profiles.fields import fields_of


def test_it_is_the_profile_at_either_size() -> None:
    options = {"backbone": "resnet18", "width": 4}
    found = account("unet", 3, options, passes={(64, 96): 1}, crops=(1, 32, 48))
    whole, crop = (profile("unet", 3, size=size, runs=0, **options) for size in ((64, 96), (32, 48)))
    assert (found.size, found.parameters) == ((64, 96), whole.parameters)
    assert (found.multiply_adds, found.pass_bytes) == (whole.multiply_adds, whole.inference_bytes)
    assert (found.crop_multiply_adds, found.step_bytes) == (crop.multiply_adds, crop.training_bytes)
    assert found.fields is not None
    assert found.fields.receptive_field == whole.receptive_field == (435, 435)
    assert found.uncounted == ""


def test_a_prediction_is_all_of_its_passes() -> None:
    options = {"backbone": "resnet18", "width": 4}
    sizes = ((32, 32), (64, 96))
    small, large = (account("unet", 3, options, passes={size: 1}, crops=None) for size in sizes)
    both = account("unet", 3, options, passes={sizes[0]: 6, sizes[1]: 2}, crops=None)
    assert (both.size, both.multiply_adds, both.pass_bytes) == (sizes[1], large.multiply_adds, large.pass_bytes)
    assert small.multiply_adds is not None
    assert large.multiply_adds is not None
    assert small.prediction_multiply_adds == small.multiply_adds
    assert both.prediction_multiply_adds == 6 * small.multiply_adds + 2 * large.multiply_adds


def test_a_step_grows_with_its_batch_and_a_pass_does_not() -> None:
    one, four = (
        account("unet", 3, {"backbone": "resnet18", "width": 4}, passes={(32, 32): 1}, crops=(number, 32, 32))
        for number in (1, 4)
    )
    assert one.step_bytes is not None
    assert four.step_bytes is not None
    assert one.step_bytes < four.step_bytes < 4 * one.step_bytes
    assert (one.pass_bytes, one.crop_multiply_adds) == (four.pass_bytes, four.crop_multiply_adds)


def test_a_crop_costs_what_it_does_in_training() -> None:
    """At the stride of training, not of evaluation; a second pass in each step counts."""
    options = {**models.spec("deeplab_v3").tiny, "output_stride": 16}
    alike, finer = (
        account("deeplab_v3", 3, {**options, "evaluation_stride": stride}, passes={(64, 64): 1}, crops=(2, 64, 64))
        for stride in (0, 8)
    )
    assert alike.crop_multiply_adds == finer.crop_multiply_adds == alike.multiply_adds
    assert (finer.multiply_adds or 0) > (alike.multiply_adds or 0) > 0
    twice = account("fc_densenet56", 3, models.spec("fc_densenet56").tiny, passes={(32, 32): 1}, crops=(2, 32, 32))
    assert twice.multiply_adds is not None
    assert twice.crop_multiply_adds == 2 * twice.multiply_adds


def test_an_ensemble_has_no_step_of_its_own() -> None:
    member = {"arch": "unet", "options": {"backbone": "resnet18", "width": 4}}
    one = account("unet", 3, member["options"], passes={(32, 48): 1}, crops=None)
    both = account("ensemble", 3, {"members": [member, member]}, passes={(32, 48): 1}, crops=None)
    assert one.multiply_adds is not None
    assert (both.parameters, both.multiply_adds) == (2 * one.parameters, 2 * one.multiply_adds)
    assert (both.crop_multiply_adds, both.step_bytes) == (None, None)
    assert both.fields is not None
    assert one.fields is not None
    assert both.fields.field_of_view == one.fields.field_of_view


def test_a_detector_tells_its_size_and_field_alone() -> None:
    found = account("mask_rcnn", 3, models.spec("mask_rcnn").tiny, passes={(64, 64): 1}, crops=(2, 64, 64))
    assert found.parameters > 0
    assert (found.multiply_adds, found.step_bytes) == (None, None)
    assert found.uncounted == "a detector's depend on what it finds"
    assert found.fields is not None
    assert found.fields.receptive_field is not None


@pytest.mark.parametrize("name", [name for name, spec in models.MODELS.items() if spec.learns_by != "descent"])
def test_a_method_without_a_network_says_so(name: str) -> None:
    found = account(name, 3, {}, passes={(20, 30): 1}, crops=None)
    assert (found.parameters, found.multiply_adds, found.fields) == (0, None, None)
    assert found.uncounted == "it is no network"
    assert fields_of(name, 3, {}).not_followed == ("it is no network",)


@pytest.mark.parametrize("side", [1, 7, 33])
def test_images_may_have_any_size(side: int) -> None:
    found = account(
        "deeplab_v3", 2, models.spec("deeplab_v3").tiny, passes={(side, side + 1): 1}, crops=(1, side, side)
    )
    assert found.multiply_adds is not None
    assert found.multiply_adds > 0


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(InputError, match="unet: unknown option 'depth'"):
        account("unet", 2, {"depth": 3}, passes={(32, 32): 1}, crops=None)


def test_what_was_counted_in_this_process_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"backbone": "resnet18", "width": 4}
    found = account("unet", 3, options, passes={(32, 32): 1, (32, 64): 2}, crops=None)
    monkeypatch.setitem(account.__globals__, "inference_cost", lambda *given: pytest.fail("a pass was counted again"))
    backwards = dict(reversed(options.items()))
    again = account("unet", 3, backwards, passes={(32, 64): 2, (32, 32): 1}, crops=(1, 32, 32))
    assert (again.multiply_adds, again.pass_bytes) == (found.multiply_adds, found.pass_bytes)
    assert again.step_bytes is not None
