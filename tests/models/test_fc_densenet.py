"""FC-DenseNet: tables 1 and 2 layer by layer, with the authors' own correction of the second."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.fc_densenet import DenseBlock, FCDenseNet, Up

DEPTHS = {56: 12, 67: 16, 103: 16}


def made(depth: int) -> FCDenseNet:
    with torch.device("meta"):
        model = models.create(f"fc_densenet{depth}", 11)
    assert isinstance(model, FCDenseNet)
    return model.eval()


@pytest.mark.parametrize("depth", list(DEPTHS))
def test_it_is_named_after_its_convolutions(depth: int) -> None:
    convolutions = [m for m in made(depth).modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == depth


def test_maps_after_each_block_are_those_of_table_2() -> None:
    """The first five as printed; the printed 880, 1072 and 800 lack 16 by the authors' README, which gives this sum."""
    found: list[int] = []
    model = made(103)
    for block in model.modules():
        if isinstance(block, DenseBlock):
            block.register_forward_hook(lambda m, given, new: found.append(given[0].shape[1] + new.shape[1]))
    with torch.device("meta"):
        model(torch.empty(1, 3, 224, 224))
    assert found[:8] == [112, 192, 304, 464, 656, 880 + 16, 1072 + 16, 800 + 16]
    assert found[8:] == [304 + 16 * (10 + 7), 192 + 16 * (7 + 5), 112 + 16 * (5 + 4)]


@pytest.mark.parametrize(("depth", "counts"), [(56, [4] * 11), (67, [5] * 11)])
def test_smaller_members_have_blocks_of_one_length(depth: int, counts: list[int]) -> None:
    blocks = [m for m in made(depth).modules() if isinstance(m, DenseBlock)]
    assert [len(block.layers) for block in blocks] == counts
    assert {layer[2].out_channels for block in blocks for layer in block.layers} == {DEPTHS[depth]}


def test_blocks_of_103_have_the_lengths_of_table_2() -> None:
    blocks = [len(m.layers) for m in made(103).modules() if isinstance(m, DenseBlock)]
    assert blocks == [4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4]


@pytest.mark.parametrize(("depth", "printed"), [(67, 3.5), (103, 9.4)])
def test_table_3_counts_the_norms_statistics_as_parameters(depth: int, printed: float) -> None:
    model = made(depth)
    statistics = [b.numel() for key, b in model.named_buffers() if not key.endswith("num_batches_tracked")]
    assert round((sum(statistics) + sum(p.numel() for p in model.parameters())) / 1e6, 1) == printed


def test_a_layer_is_norm_relu_convolution_dropout() -> None:
    """Table 1."""
    layer = made(103).ups[0].block.layers[0]
    assert [type(part).__name__ for part in layer] == ["BatchNorm2d", "ReLU", "Conv2d", "Dropout"]
    assert (layer[2].kernel_size, layer[3].p) == ((3, 3), 0.2)
    down = made(103).backbone.downs[0]
    assert [type(part).__name__ for part in down] == ["BatchNorm2d", "ReLU", "Conv2d", "Dropout", "MaxPool2d"]
    assert (down[2].kernel_size, down[3].p, down[4].kernel_size) == ((1, 1), 0.2, 2)


def test_a_dense_block_feeds_every_layer_with_all_before_it() -> None:
    block = DenseBlock(2, 3, 1, 0.0)
    for layer in block.layers:
        layer.forward = lambda maps: maps.sum(dim=1, keepdim=True)
    maps = torch.tensor([1.0, 2.0])[None, :, None, None]
    assert block(maps).flatten().tolist() == [3.0, 6.0, 12.0]


def test_only_new_maps_are_upsampled() -> None:
    model = made(103)
    assert [up.conv.in_channels for up in model.ups] == [16 * count for count in (15, 12, 10, 7, 5)]
    assert [up.conv.kernel_size for up in model.ups] == [(3, 3)] * 5


@pytest.mark.parametrize("size", [6, 7])
def test_the_way_up_meets_the_skip_at_an_even_and_an_odd_size(size: int) -> None:
    """Without any resizing: 3 cells become 7, of which 6 are kept where the skip has 6."""
    up, seen = Up(1, 1, 1, 1, 0.0), []
    up.conv.register_forward_hook(lambda module, given, result: seen.append(result))
    new, skip = torch.randn(1, 1, 3, 3), torch.randn(1, 1, size, size)
    joined, found = up(new, skip)
    assert seen[0].shape[-1] == 7
    assert torch.equal(joined[:, :1], seen[0][..., :size, :size])
    assert torch.equal(joined[:, 1:], skip)
    assert found.shape == (1, 1, size, size)


def in_training(*, dropout: float) -> FCDenseNet:
    torch.manual_seed(0)
    return models.create("fc_densenet56", 2, growth=2, width=4, dropout=dropout).train()


def statistics(model: FCDenseNet) -> dict[str, Tensor]:
    return {key: value for key, value in model.named_buffers() if not key.endswith("num_batches_tracked")}


def test_statistics_are_those_of_a_pass_without_dropout() -> None:
    """Behind dropout a norm sees more variance than there is in evaluation."""
    images_NCHW = torch.randn(2, 3, 64, 64)
    with_dropout, without = in_training(dropout=0.2), in_training(dropout=0.0)
    assert not torch.equal(with_dropout(images_NCHW).logits_NKHW, without(images_NCHW).logits_NKHW)
    for key, value in statistics(without).items():
        assert value.unique().numel() > 1, key
        assert torch.equal(statistics(with_dropout)[key], value), key


def test_taking_statistics_leaves_every_module_as_it_was() -> None:
    model = in_training(dropout=0.2)
    model.ups[0].block.layers[0][3].eval()
    modes = [module.training for module in model.modules()]
    model(torch.randn(2, 3, 64, 64))
    assert [module.training for module in model.modules()] == modes
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.0}


def test_statistics_rest_in_evaluation() -> None:
    model = in_training(dropout=0.2).eval()
    before = {key: value.clone() for key, value in statistics(model).items()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in statistics(model).items())


def test_the_gradient_comes_through_the_pass_with_dropout_in_bfloat16() -> None:
    """Autocast keeps the weights that it has cast: those of a pass without gradient would give none."""
    model = in_training(dropout=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(2, 3, 64, 64)).logits_NKHW.square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.backbone.conv.parameters())


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # torch's compiler looks at all
def test_it_trains_when_compiled() -> None:
    """`train.compile`: the pass for the statistics stays out of what is compiled, and takes the same ones."""
    torch._dynamo.reset()
    plain, compiled = in_training(dropout=0.2), in_training(dropout=0.2)
    images_NCHW = torch.randn(2, 3, 32, 32)
    torch.compile(compiled, backend="eager")(images_NCHW).logits_NKHW.sum().backward()
    plain(images_NCHW)
    assert all(torch.equal(statistics(compiled)[key], value) for key, value in statistics(plain).items())


def test_a_small_image_is_padded_and_a_large_one_is_not() -> None:
    sizes: list[tuple[int, ...]] = []
    model = models.create("fc_densenet56", 2, growth=1, width=1).eval()
    model.backbone.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape[-2:])))

    def logits(*size: int) -> Tensor:
        with torch.no_grad():
            return model(torch.zeros(1, 3, *size)).logits_NKHW

    assert logits(5, 90).shape[-2:] == (5, 90)
    assert logits(45, 33).shape[-2:] == (45, 33)
    assert sizes == [(32, 90), (45, 33)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth": 0}, r"growth: expected a whole number of at least 1, found 0"),
        ({"width": -1}, r"width: expected a whole number of at least 1, found -1"),
        ({"dropout": 1.0}, r"dropout: expected a share of at least 0 and below 1, found 1.0"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create("fc_densenet56", 2, **options)
