"""Several models as one: the mean of their logits, made from plain options, saved and loaded as one."""

import pytest
import torch

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from tests.fixtures.small import OPTIONS

MEMBERS = [{"arch": name, "options": options} for name, options in OPTIONS.items()]


@torch.no_grad()
def test_an_ensemble_says_the_mean_of_what_its_members_say() -> None:
    torch.manual_seed(0)
    ensemble = models.create("ensemble", 3, members=MEMBERS).eval()
    images = torch.randn(2, 3, 33, 47)
    output = ensemble(images)
    assert isinstance(output, DenseOutput)
    alone = [member(images).logits_NKHW for member in ensemble.members]
    torch.testing.assert_close(output.logits_NKHW, (alone[0] + alone[1]) / 2)
    geometric = (alone[0].softmax(1) * alone[1].softmax(1)).sqrt()
    torch.testing.assert_close(output.logits_NKHW.softmax(1), geometric / geometric.sum(1, keepdim=True))
    again = models.create("ensemble", 3, members=MEMBERS).eval()
    again.load_state_dict(ensemble.state_dict())
    assert torch.equal(again(images).logits_NKHW, output.logits_NKHW)


def test_what_an_ensemble_cannot_be_of_is_refused() -> None:
    with pytest.raises(InputError, match="ensemble: mask2former has no logits for every pixel to take the mean of"):
        models.create("ensemble", 3, members=[*MEMBERS, {"arch": "mask2former", "options": {}}])
    with pytest.raises(InputError, match="unknown 'unett'; did you mean 'unet'"):
        models.create("ensemble", 3, members=[{"arch": "unett", "options": {}}])
    assert "ensemble" not in models.names()
