"""The multi-scale network: its pyramid, local normalisation, connections, shared filters and window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.farabet import PartialConvolution, laplacian_pyramid, locally_normalised
from segpipe.models.parts.layers import resize


def noise(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (1, 1), (2, 5)])
def test_the_pyramid_adds_up_to_the_image(size: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    *details, whole = laplacian_pyramid(images, 3)
    assert [tuple(scale.shape[-2:]) for scale in [*details, whole]] == [
        tuple(-(-length // 2**level) for length in size) for level in range(3)
    ]
    for detail in reversed(details):
        whole = detail + resize(whole, *detail.shape[-2:])
    torch.testing.assert_close(whole, images)


def test_a_flat_image_has_no_details() -> None:
    *details, coarse = laplacian_pyramid(torch.full((1, 2, 20, 30), 0.7), 3)
    assert all(float(detail.abs().max()) < 1e-6 for detail in details)
    torch.testing.assert_close(coarse, torch.full((1, 2, 5, 8), 0.7))


def test_neighbourhoods_are_normalised_as_the_slow_way_does() -> None:
    image = noise(1, 1, 20, 24) * 3 + 5
    pixels = image[0, 0].double().numpy()

    def around(values: np.ndarray, row: int, column: int) -> float:
        return float(values[max(0, row - 7) : row + 8, max(0, column - 7) : column + 8].mean())

    places = [(row, column) for row in range(20) for column in range(24)]
    centred = np.array([pixels[place] - around(pixels, *place) for place in places]).reshape(20, 24)
    deviation = np.array([around(centred**2, *place) ** 0.5 for place in places]).reshape(20, 24)
    expected = centred / np.maximum(deviation, deviation.mean())
    np.testing.assert_allclose(locally_normalised(image)[0, 0].numpy(), expected, rtol=1e-3, atol=1e-4)


def test_brightness_and_contrast_do_not_count() -> None:
    image = noise(1, 2, 40, 40)
    torch.testing.assert_close(locally_normalised(image * 7 + 3), locally_normalised(image), rtol=1e-3, atol=1e-4)
    assert not locally_normalised(torch.full((1, 1, 30, 30), 4.0)).abs().max() > 1e-3


def test_each_map_sees_its_own_inputs_and_no_others() -> None:
    torch.manual_seed(0)
    layer, maps = PartialConvolution(16, 6, 8, seed=1), noise(1, 16, 9, 9)
    with torch.no_grad():
        found = layer(maps)
        for place, inputs in enumerate(layer.table_OI.tolist()):
            assert len(set(inputs)) == 8
            kernel = layer.weight[place : place + 1]
            alone = nn.functional.conv2d(maps[:, inputs], kernel, layer.bias[place : place + 1], padding=3)
            torch.testing.assert_close(found[:, place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(layer.table_OI, PartialConvolution(16, 6, 8, seed=1).table_OI)
    assert not torch.equal(layer.table_OI, PartialConvolution(16, 6, 8, seed=2).table_OI)


def test_filters_and_connections_are_the_papers() -> None:
    with torch.device("meta"):
        model = models.create("farabet", 8)
    counts = {name: sum(each.numel() for each in child.parameters()) for name, child in model.backbone.named_children()}
    assert {name: count for name, count in counts.items() if count} == {
        "conv1": 1_094,
        "conv2": 25_152,
        "conv3": 401_664,
    }
    assert (model.backbone.conv1.luma.out_channels, model.backbone.conv1.chroma.out_channels) == (10, 6)
    assert tuple(model.backbone.conv2.table_OI.shape) == (64, 8)
    assert tuple(model.backbone.conv3.table_OI.shape) == (256, 32)
    assert model.classifier[0].in_channels == 3 * 256


def test_f_sees_46_pixels() -> None:
    """The paper's window: 7 + 6 x 2 + 6 x 4 and what two poolings add; from the gradient of one cell."""
    torch.manual_seed(0)
    model = models.create("farabet", 2, in_channels=1, width=4, hidden=4)
    images = torch.randn(1, 1, 96, 96, requires_grad=True)
    model.backbone(images)[-1][0, :, 12, 12].sum().backward()
    assert images.grad is not None
    rows = images.grad[0, 0].abs().sum(1).nonzero().flatten()
    # A pooling passes on one of its two rows, so that the outermost may be silent.
    assert 43 <= int(rows.max() - rows.min()) + 1 <= 46


def test_the_scales_share_their_filters() -> None:
    torch.manual_seed(0)
    model, images, seen = models.create("farabet", 3, width=4, hidden=8).eval(), noise(1, 3, 40, 56), []
    model.classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    yuv = torch.einsum(
        "ck,nkhw->nchw",
        torch.tensor([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]),
        images,
    )
    with torch.no_grad():
        model(images)
        for place, scale in enumerate(laplacian_pyramid(yuv, 3)):
            (alone,) = model.backbone(locally_normalised(scale))
            torch.testing.assert_close(
                seen[0][:, place * 64 : (place + 1) * 64], resize(alone, 10, 14), rtol=1e-3, atol=1e-4
            )
    assert seen[0].shape == (1, 192, 10, 14)


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"width: expected an even number, .* found 5"):
        models.create("farabet", 3, width=5)
