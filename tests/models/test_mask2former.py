"""Mask2Former: what queries may look at, what padding must not change, sizes, and the paper's number of parameters."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.mask2former import Mask2Former, QueryDecoder, where_to_look
from segpipe.models.parts.pixel_decoders import DeformablePixelDecoder, PlainPixelDecoder
from segpipe.models.spec import QueryOutput

K, Q, LAYERS = 4, 6, 4
TINY = {"backbone": "resnet18", "num_queries": Q, "layers": LAYERS, "hidden": 32, "heads": 4}
every_decoder = pytest.mark.parametrize("decoder", ["fpn", "deformable"])


@functools.cache
def ready(decoder: str) -> Mask2Former:
    torch.manual_seed(0)
    model = models.create("mask2former", K, decoder=decoder, **TINY).eval()
    assert isinstance(model, Mask2Former)
    return model


def images(height: int, width: int, *, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))


def parts(output: QueryOutput) -> list[Tensor]:
    return [each for layer in (*output.aux, output) for each in (layer.class_logits_NQK, layer.mask_logits_NQhw)]


@every_decoder
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (33, 32), (65, 47)], ids=lambda size: "x".join(map(str, size)))
def test_a_prediction_from_the_queries_alone_and_one_after_every_layer(decoder: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        output = ready(decoder)(images(*size, batch=2))
    assert type(output) is QueryOutput
    assert len(output.aux) == LAYERS
    for layer in (*output.aux, output):
        assert layer.size == size
        assert layer.class_logits_NQK.shape == (2, Q, K + 1)
        assert layer.mask_logits_NQhw.shape == (2, Q, -(-size[0] // 4), -(-size[1] // 4))
        assert layer.class_logits_NQK.isfinite().all()
        assert layer.mask_logits_NQhw.isfinite().all()
    assert all(layer.aux == () for layer in output.aux)
    # Without having looked, queries say the same of every image.
    torch.testing.assert_close(output.aux[0].class_logits_NQK[0], output.aux[0].class_logits_NQK[1])


@pytest.mark.parametrize("size", [(1, 1), (33, 47)], ids=lambda size: "x".join(map(str, size)))
def test_a_training_step_reaches_every_parameter_of_the_plain_pyramid(size: tuple[int, int]) -> None:
    """What the contract of every architecture asks of the deformable one."""
    model = copy.deepcopy(ready("fpn")).train()
    torch.stack([each.square().sum() for each in parts(model(images(*size)))]).sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@every_decoder
def test_half_precision_stays_finite(decoder: str) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(bool(each.isfinite().all()) for each in parts(ready(decoder)(images(40, 40))))


def test_the_paper_s_model_has_the_paper_s_size() -> None:
    """Table 1: 44 million parameters with ResNet-50, on COCO's 133 classes."""
    with torch.device("meta"):
        model = models.spec("mask2former").build(num_classes=133, in_channels=3, **models.complete("mask2former", {}))
    assert round(sum(each.numel() for each in model.parameters()) / 1e6) == 44


def test_a_query_looks_inside_its_mask_and_everywhere_when_that_is_empty() -> None:
    logits = torch.tensor([[[-1.0, 0.5, 0.0], [-1.0, -2.0, -3.0]]])
    assert where_to_look(logits).tolist() == [[[False, True, True], [True, True, True]]]


def decoder_inputs() -> tuple[list[Tensor], Tensor, list[tuple[int, int]]]:
    """Maps of an image of 40 x 50 in a frame of 64 x 64."""
    generator = torch.Generator().manual_seed(4)
    levels = [torch.randn(2, 32, side, side, generator=generator) for side in (2, 4, 8)]
    return levels, torch.randn(2, 32, 16, 16, generator=generator), [(2, 2), (3, 4), (5, 7)]


def test_each_layer_looks_at_the_next_level_inside_the_mask_before_it() -> None:
    """Against the paper's rule spelt out: level i mod 3, 1/32 first, keys where the last mask, resized, is >= 0.5."""
    decoder = QueryDecoder(K, num_queries=Q, layers=LAYERS, channels=32, heads=4).eval()
    levels, pixels, extents = decoder_inputs()
    seen: list[tuple[Tensor, Tensor]] = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda module, given: seen.append((given[2], given[4])))
    with torch.no_grad():
        predictions = decoder(levels, pixels, extents)
    assert len(seen) == LAYERS
    for number, (cells, attend) in enumerate(seen):
        level, (rows, columns) = levels[number % 3], extents[number % 3]
        expected = level[..., :rows, :columns].flatten(2).transpose(1, 2) + decoder.level_features[number % 3]
        torch.testing.assert_close(cells, expected)
        masks = torch.nn.functional.interpolate(predictions[number][1], size=level.shape[2:], mode="bilinear")
        inside = (masks.sigmoid() >= 0.5)[..., :rows, :columns].flatten(2)
        for image in range(2):
            for query in range(Q):
                here = inside[image, query] if inside[image, query].any() else torch.ones_like(inside[image, query])
                assert torch.equal(attend[image, query], here)


def test_padding_is_not_looked_at() -> None:
    decoder = QueryDecoder(K, num_queries=Q, layers=LAYERS, channels=32, heads=4).eval()
    levels, pixels, extents = decoder_inputs()
    spoilt = [level.clone() for level in levels]
    for level, (rows, columns) in zip(spoilt, extents, strict=True):
        level[..., rows:, :] = 1e4
        level[..., columns:] = 1e4
    with torch.no_grad():
        for (classes, masks), (other_classes, other_masks) in zip(
            decoder(levels, pixels, extents), decoder(spoilt, pixels, extents), strict=True
        ):
            assert torch.equal(classes, other_classes)
            assert torch.equal(masks, other_masks)


def test_cells_of_the_image_do_not_see_padding_in_the_pixel_decoder() -> None:
    pyramid = DeformablePixelDecoder((4, 6, 8, 10), 32, 4).eval()
    # The maps are normalised as wholes, so that what lies in the padding is put behind the norm.
    for projection, channels in zip(pyramid.projections, (10, 8, 6), strict=True):
        projection[1] = torch.nn.Identity()
        assert projection[0].in_channels == channels
    maps = [torch.randn(1, channels, side, side) for channels, side in ((4, 16), (6, 8), (8, 4), (10, 2))]
    extents = [(2, 1), (3, 2), (5, 4)]
    spoilt = [each.clone() for each in maps]
    for each, (rows, columns) in zip(spoilt[:0:-1], extents, strict=True):
        each[..., rows:, :] = 50.0
        each[..., columns:] = 50.0
    with torch.no_grad():
        levels, other = pyramid(maps, extents)[0], pyramid(spoilt, extents)[0]
    for level, same, (rows, columns) in zip(levels, other, extents, strict=True):
        torch.testing.assert_close(same[..., :rows, :columns], level[..., :rows, :columns])
        assert level.shape[1] == 32


def test_the_pyramid_of_features_adds_what_is_coarser() -> None:
    pyramid = PlainPixelDecoder((4, 6, 8, 10), 32, 4).eval()
    maps = [torch.randn(1, channels, side, side) for channels, side in ((4, 16), (6, 8), (8, 4), (10, 2))]
    with torch.no_grad():
        levels, pixels = pyramid(maps, [])
        top = pyramid.top(maps[3])
        second = pyramid.outputs[0](pyramid.laterals[0](maps[2]) + top.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert [tuple(level.shape[1:]) for level in levels] == [(32, 2, 2), (32, 4, 4), (32, 8, 8)]
    assert pixels.shape == (1, 32, 16, 16)
    torch.testing.assert_close(levels[0], top)
    torch.testing.assert_close(levels[1], second)


@every_decoder
def test_the_order_of_the_queries_is_the_order_of_the_answers(decoder: str) -> None:
    model, order = copy.deepcopy(ready(decoder)), torch.tensor([3, 0, 5, 1, 2, 4])
    with torch.no_grad():
        before = parts(model(images(40, 50)))
        model.decoder.queries.copy_(model.decoder.queries[order])
        model.decoder.places.copy_(model.decoder.places[order])
        after = parts(model(images(40, 50)))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one[:, order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "bifpn"}, r"decoder: unknown 'bifpn'; expected one of: deformable, fpn"),
        ({"num_queries": 0}, r"num_queries: expected a whole number of at least 1, found 0"),
        ({"layers": -1}, r"layers: expected a whole number of at least 1, found -1"),
        ({"hidden": 100}, r"mask2former: hidden=100 with heads=8; expected a positive multiple of 8"),
        ({"backbone": "swin"}, r"backbone: unknown 'swin'"),
        ({"heads": 2.0}, r"option heads: expected int, found 2.0"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("mask2former", options)
