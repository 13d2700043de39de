"""Panoptic FPN: Mask R-CNN with a branch beside it that takes every level to stride 4, as figure 3 of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from tests.fixtures.model_kinds import region_tensors, whole_image

OPTIONS = dict(models.spec("panoptic_fpn").tiny)


def test_widths_and_steps_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        spec = models.spec("panoptic_fpn")
        branch = spec.build(num_classes=53, in_channels=3, **spec.options).semantic
    for steps, level in enumerate(branch.levels):
        convolutions = [m for m in level if isinstance(m, nn.Conv2d)]
        norms = [m for m in level if isinstance(m, nn.GroupNorm)]
        assert [m.in_channels for m in convolutions] == [256] + [128] * (max(1, steps) - 1)
        assert {(m.kernel_size, m.out_channels) for m in convolutions} == {((3, 3), 128)}
        assert {(m.num_groups, m.num_channels) for m in norms} == {(32, 128)}
        assert sum(isinstance(m, nn.Upsample) for m in level) == steps
    assert (branch.head.kernel_size, branch.head.out_channels) == ((1, 1), 53)


def test_it_is_mask_rcnn_with_its_keys_and_its_answers() -> None:
    torch.manual_seed(0)
    parent, child = (models.create(name, 4, **OPTIONS).eval() for name in ("mask_rcnn", "panoptic_fpn"))
    missing, unexpected = child.load_state_dict(parent.state_dict(), strict=False)
    assert unexpected == []
    assert all(key.startswith("semantic.") for key in missing)
    images = torch.randn(1, 3, 45, 70)
    with torch.no_grad():
        theirs, ours = region_tensors(parent(images)), region_tensors(child(images))
    assert ours.pop("logits").shape == (1, 4, 45, 70)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


def test_logits_come_with_losses_as_well() -> None:
    torch.manual_seed(0)
    model, images = models.create("panoptic_fpn", 4, **OPTIONS).train(), torch.randn(2, 3, 33, 40)
    output = model(images, whole_image(images))
    assert set(output.losses) == {"rpn_objectness", "rpn_box", "class", "box", "mask"}
    assert output.logits_NKHW.shape == (2, 4, 33, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 20}, r"channels: 20 is not a positive multiple of 8"),
        ({"form": "mobile"}, r"form: 'mobile' is not"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("panoptic_fpn", options)
