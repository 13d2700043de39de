"""The U-Net of objects is the parent's network with one row more, and deaf to targets."""

import torch

from segpipe import models


def test_it_is_the_unet_with_the_background_as_first_of_its_classes() -> None:
    options = {"backbone": "resnet18", "width": 4}
    child, parent = (models.create(name, k, **options).eval() for name, k in (("unet_watershed", 3), ("unet", 4)))
    child.load_state_dict(parent.state_dict())
    images_NCHW = torch.randn(2, 3, 33, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = parent(images_NCHW).logits_NKHW
        assert torch.equal(child(images_NCHW).logits_NKHW, expected)
        assert torch.equal(child(images_NCHW, targets=()).logits_NKHW, expected)
