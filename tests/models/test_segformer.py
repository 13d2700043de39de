"""SegFormer: logits and released keys of transformers, sizes of the paper's table, what attention looks at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.mix_transformer import EfficientAttention, MixFFN
from segpipe.models.segformer import MEMBERS, adapt
from tests.fixtures.waves import wave, wavy_images

CLASSES = 5
# What transformers 5.23's SegformerForSemanticSegmentation of B0 printed for `wavy_images` with the weights of
# `released()`, read by its own `from_pretrained`: its logits at the size of the image, their sum, and those of the
# second image at every 22nd row and 31st column.
THEIR_SUM = -11203.795350849628
THEIR_LOGITS = [
    *[-0.37025, -0.34656, -0.34368, -0.34494, -0.50519, -0.49563, -0.49158, -0.48039],
    *[-0.48538, -0.4878, -0.49216, -0.51577, -0.37701, -0.40144, -0.40648, -0.39522],
    *[0.62661, 0.60072, 0.59777, 0.59905, 0.76767, 0.75801, 0.75378, 0.74221],
    *[0.74752, 0.74996, 0.75443, 0.77866, 0.6316, 0.65611, 0.66127, 0.64957],
    *[-0.68279, -0.65513, -0.65215, -0.65344, -0.82761, -0.81801, -0.81367, -0.80191],
    *[-0.80746, -0.80989, -0.81439, -0.83883, -0.68591, -0.7101, -0.71529, -0.70335],
    *[0.43688, 0.40793, 0.40496, 0.40624, 0.58306, 0.57368, 0.56931, 0.55756],
    *[0.56324, 0.56561, 0.57008, 0.59432, 0.43809, 0.46156, 0.46669, 0.45471],
    *[-0.8181, -0.78832, -0.78543, -0.78667, -0.9632, -0.95419, -0.94985, -0.9383],
    *[-0.94404, -0.94631, -0.95066, -0.97431, -0.81738, -0.83973, -0.84471, -0.8329],
]


def names_and_shapes(member: str) -> dict[str, tuple[int, ...]]:
    """A file of transformers as it was released."""
    widths, depths, channels = MEMBERS[member]
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        found.update({f"{name}.weight": weight, f"{name}.bias": weight[:1]})

    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        embedding, kernel = f"segformer.encoder.patch_embeddings.{stage}", 3 if stage else 7
        layer(f"{embedding}.proj", width, (3, *widths)[stage], kernel, kernel)
        layer(f"{embedding}.layer_norm", width)
        for number in range(depth):
            block, reduction = f"segformer.encoder.block.{stage}.{number}", (8, 4, 2, 1)[stage]
            layer(f"{block}.layer_norm_1", width)
            layer(f"{block}.layer_norm_2", width)
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                layer(f"{block}.attention.{part}", width, width)
            if reduction > 1:
                layer(f"{block}.attention.self.sr", width, width, reduction, reduction)
                layer(f"{block}.attention.self.layer_norm", width)
            layer(f"{block}.mlp.dense1", 4 * width, width)
            layer(f"{block}.mlp.dense2", width, 4 * width)
            layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
        layer(f"segformer.encoder.layer_norm.{stage}", width)
        layer(f"decode_head.linear_c.{stage}.proj", channels, width)
    found["decode_head.linear_fuse.weight"] = (channels, 4 * channels, 1, 1)
    layer("decode_head.batch_norm", channels)
    found |= {f"decode_head.batch_norm.running_{statistic}": (channels,) for statistic in ("mean", "var")}
    layer("decode_head.classifier", CLASSES, channels, 1, 1)
    return found


def released() -> dict[str, Tensor]:
    return {name: wave(name, shape) for name, shape in names_and_shapes("b0").items()}


def test_transformers_released_keys_give_transformers_logits(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "b0.pth")
    model = models.create("segformer_b0", CLASSES, pretrained=str(tmp_path / "b0.pth")).eval()
    with torch.no_grad():
        logits_NKHW = model(wavy_images(2, 67, 94)).logits_NKHW
    assert float(logits_NKHW.double().sum()) == pytest.approx(THEIR_SUM, abs=1.0)  # of 62,980 logits
    found = logits_NKHW[1, :, ::22, ::31].flatten()
    torch.testing.assert_close(found, torch.tensor(THEIR_LOGITS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("member", list(MEMBERS))
def test_every_member_has_the_keys_and_shapes_of_transformers(member: str) -> None:
    with torch.device("meta"):
        model = models.create(f"segformer_{member}", CLASSES)
        theirs = {name: torch.empty(shape) for name, shape in names_and_shapes(member).items()}
        adapted = {name: tuple(value.shape) for name, value in adapt(theirs).items()}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert adapted == {name: shape for name, shape in ours.items() if not name.endswith("num_batches_tracked")}


def test_mit_alone_loads_from_transformers_and_from_the_authors(tmp_path: Path) -> None:
    mine = models.create("segformer_b0", CLASSES).backbone.state_dict()
    authors = {**mine, "head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    theirs = {name: value for name, value in released().items() if name.startswith("segformer.")}
    theirs |= {"classifier.weight": torch.zeros(1000, 256), "classifier.bias": torch.zeros(1000)}
    for file, state, key, value in (
        ("authors.pth", authors, "block3.1.attn.kv.weight", mine["block3.1.attn.kv.weight"]),
        ("mit.pth", theirs, "norm4.weight", theirs["segformer.encoder.layer_norm.3.weight"]),
    ):
        torch.save(state, tmp_path / file)
        loaded = models.create("segformer_b0", CLASSES, pretrained=str(tmp_path / file)).backbone.state_dict()
        assert torch.equal(loaded[key], value)


def test_the_authors_whole_file_has_our_names_and_scores_that_nobody_asks_for() -> None:
    state = models.create("segformer_b0", CLASSES, widths=[4, 8, 10, 16]).state_dict()
    assert adapt({**state, "decode_head.conv_seg.weight": torch.zeros(1)}) == state
    missing = {name: value for name, value in released().items() if not name.endswith("1.attention.self.value.bias")}
    with pytest.raises(InputError, match=r"block.0.1.attention.self.key.bias has no values beside it"):
        adapt(missing)


@pytest.mark.parametrize("member", list(MEMBERS))
def test_members_are_those_of_table_6(member: str) -> None:
    table = {
        "b0": "32 64 160 256  2 2 2 2  256",
        "b1": "64 128 320 512  2 2 2 2  256",
        "b2": "64 128 320 512  3 4 6 3  768",
        "b3": "64 128 320 512  3 4 18 3  768",
        "b4": "64 128 320 512  3 8 27 3  768",
        "b5": "64 128 320 512  3 6 40 3  768",
    }
    numbers = [int(number) for number in table[member].split()]
    with torch.device("meta"):
        model = models.create(f"segformer_{member}", 150)
        maps = model.backbone(torch.empty(1, 3, 512, 480))
    expected = [(1, width, 512 // s, 480 // s) for width, s in zip(numbers[:4], (4, 8, 16, 32), strict=True)]
    assert [tuple(each.shape) for each in maps] == expected
    assert [len(model.backbone.get_submodule(f"block{stage}")) for stage in (1, 2, 3, 4)] == numbers[4:8]
    assert model.decode_head.linear_fuse.conv.out_channels == numbers[8]
    attention = [model.backbone.get_submodule(f"block{stage}")[0].attn for stage in (1, 2, 3, 4)]
    assert [(each.heads, each.reduction) for each in attention] == [(1, 8), (2, 4), (5, 2), (8, 1)]
    counted = models.spec(f"segformer_{member}").counted[0]
    printed = re.match(r"([\d.]+) M", counted.published)
    assert printed is not None
    assert round(counted.parameters / 1e6, 1) == float(printed[1])


def test_attention_without_reduction_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = EfficientAttention(8, 2, 1), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.q.weight, ours.kv.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.q.bias, ours.kv.bias)))
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
        cells = torch.randn(2, 15, 8)
        torch.testing.assert_close(ours(cells, 3, 5), theirs(cells, cells, cells, need_weights=False)[0])


@pytest.mark.parametrize(("height", "width", "seen"), [(9, 11, 4), (8, 4, 2), (2, 3, 1), (1, 1, 1)])
def test_keys_are_of_whole_squares_of_cells_and_at_least_one(height: int, width: int, seen: int) -> None:
    attention, keys = EfficientAttention(4, 1, 4), []
    attention.kv.register_forward_pre_hook(lambda module, given: keys.append(given[0].shape[1]))
    assert attention(torch.randn(1, height * width, 4), height, width).shape == (1, height * width, 4)
    assert keys == [seen]


def test_mix_ffn_tells_a_corner_from_the_middle() -> None:
    torch.manual_seed(0)
    mixed = MixFFN(4)(torch.ones(1, 25, 4), 5, 5).unflatten(1, (5, 5))
    assert torch.allclose(mixed[0, 2, 2], mixed[0, 1, 2], atol=1e-6)
    assert not torch.allclose(mixed[0, 2, 2], mixed[0, 0, 0], atol=1e-3)


def test_fewer_images_pass_the_later_blocks_in_training() -> None:
    model = models.create("segformer_b0", 2, widths=[4, 8, 10, 16], drop_path=0.7)
    blocks = [block for stage in (1, 2, 3, 4) for block in model.backbone.get_submodule(f"block{stage}")]
    assert [block.drop_path.p for block in blocks] == pytest.approx([0.1 * number for number in range(8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [32, 64, 160]}, r"widths, depths: .*expected four whole numbers"),
        ({"depths": [2, 2, 0, 2]}, r"widths, depths: .*expected four whole numbers"),
        ({"widths": [32, 64, 162, 256]}, r"widths: .*expected multiples of 1, 2, 5, 8, the numbers of heads"),
        ({"drop_path": 1.0}, r"drop_path: expected a share of at least 0 and below 1, found 1.0"),
        ({"dropout": -0.1}, r"dropout: expected a share of at least 0 and below 1, found -0.1"),
        ({"decoder_channels": 0}, r"decoder_channels: expected a whole number of at least 1"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create("segformer_b0", 2, **options)
