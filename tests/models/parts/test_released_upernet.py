"""UPerNet on Swin-T and ConvNeXt-T, from transformers' released names: its logits, and no tensor lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.released_upernet import from_transformers
from tests.fixtures.waves import wave, wavy_images

CLASSES, CHANNELS = 5, 16
WIDTHS = (96, 192, 384, 768)
# Encoder, size of the image, and what transformers 5.23's UperNetForSemanticSegmentation (hidden_size 16) printed for
# `wavy_images` with the weights of `released()`, read by its own `from_pretrained`: the sum of its logits, and those at
# every hundredth row and ninetieth column.
THEIRS: list[tuple[str, tuple[int, int], float, list[float]]] = [
    (
        "swin_t",
        (260, 230),
        -5242.461135426711,
        [
            *[6.83099, 14.21695, 14.22911, -0.15546, -0.13992, -0.13092, -0.12235, 0.03074, -0.02796],
            *[4.99244, 6.25023, 6.13978, 0.13497, 0.14703, 0.17, 0.16151, 0.45689, 0.3334],
            *[-4.74332, -11.61861, -11.67561, 0.27095, 0.2603, 0.26064, 0.24861, 0.21545, 0.22401],
            *[-7.01126, -11.06047, -10.97318, -0.11795, -0.13432, -0.15716, -0.15356, -0.4624, -0.33543],
            *[1.69376, 6.92503, 7.01747, -0.52176, -0.51776, -0.52737, -0.51388, -0.60611, -0.56312],
        ],
    ),
    (
        "convnext_tiny",
        (256, 224),
        2373.008227494429,
        [
            *[8.17072, 17.14585, 17.03791, 0.0348, 0.53073, 0.15872, -0.04658, 0.19649, 0.14968],
            *[5.70421, 7.0133, 6.78827, 0.17636, 0.61532, 0.48904, 0.30856, 0.66225, 0.62865],
            *[-5.79407, -14.2377, -14.22112, 0.09749, -0.22022, 0.10053, 0.23254, 0.13308, 0.16624],
            *[-8.14964, -12.88692, -12.65517, -0.22976, -0.79771, -0.54121, -0.30712, -0.7012, -0.65413],
            *[2.28232, 8.80256, 8.88008, -0.3937, -0.30658, -0.52319, -0.56016, -0.6207, -0.63475],
        ],
    ),
]


def swin_block(stage: int, number: int) -> dict[str, tuple[int, ...]]:
    width, name = WIDTHS[stage], f"backbone.encoder.layers.{stage}.blocks.{number}"
    found: dict[str, tuple[int, ...]] = {}
    for part, shape in (
        *((f"layernorm_{where}", (width,)) for where in ("before", "after")),
        *((f"attention.self.{what}", (width, width)) for what in ("query", "key", "value")),
        ("attention.output.dense", (width, width)),
        ("intermediate.dense", (4 * width, width)),
        ("output.dense", (width, 4 * width)),
    ):
        found |= layer(f"{name}.{part}", *shape)
    return found | {f"{name}.attention.self.relative_position_bias_table": (13 * 13, 3 << stage)}


def convnext_block(stage: int, number: int) -> dict[str, tuple[int, ...]]:
    width, name = WIDTHS[stage], f"backbone.encoder.stages.{stage}.layers.{number}"
    return {
        **layer(f"{name}.dwconv", width, 1, 7, 7),
        **layer(f"{name}.layernorm", width),
        **layer(f"{name}.pwconv1", 4 * width, width),
        **layer(f"{name}.pwconv2", width, 4 * width),
        f"{name}.layer_scale_parameter": (width,),
    }


def layer(name: str, *weight: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def unit(name: str, outputs: int, inputs: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """A convolution with its norm."""
    statistics = {f"{name}.batch_norm.running_{which}": (outputs,) for which in ("mean", "var")}
    weight = {f"{name}.conv.weight": (outputs, inputs, kernel, kernel)}
    return {**weight, **layer(f"{name}.batch_norm", outputs), **statistics}


def encoder(name: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    if name == "swin_t":
        found |= layer("backbone.embeddings.patch_embeddings.projection", 96, 3, 4, 4)
        found |= layer("backbone.embeddings.norm", 96)
        for stage, depth in enumerate((2, 2, 6, 2)):
            for number in range(depth):
                found |= swin_block(stage, number)
        for stage, width in enumerate(WIDTHS[:3]):
            place = f"backbone.encoder.layers.{stage}.downsample"
            found |= {**layer(f"{place}.norm", 4 * width), f"{place}.reduction.weight": (2 * width, 4 * width)}
        found |= layer("backbone.swin.layernorm", 768)
    else:
        found |= layer("backbone.embeddings.patch_embeddings", 96, 3, 4, 4)
        found |= layer("backbone.embeddings.layernorm", 96)
        for stage, depth in enumerate((3, 3, 9, 3)):
            for number in range(depth):
                found |= convnext_block(stage, number)
        for stage, width in enumerate(WIDTHS[:3], start=1):
            place = f"backbone.encoder.stages.{stage}.downsampling_layer"
            found |= {**layer(f"{place}.0", width), **layer(f"{place}.1", 2 * width, width, 2, 2)}
    for stage, width in enumerate(WIDTHS, start=1):
        found |= layer(f"backbone.hidden_states_norms.stage{stage}", width)
    return found


def released(name: str) -> dict[str, Tensor]:
    shapes = encoder(name)
    for number in range(4):
        shapes |= unit(f"decode_head.psp_modules.{number}.1", CHANNELS, 768, 1)
    shapes |= unit("decode_head.bottleneck", CHANNELS, 768 + 4 * CHANNELS, 3)
    for number, width in enumerate(WIDTHS[:3]):
        shapes |= unit(f"decode_head.lateral_convs.{number}", CHANNELS, width, 1)
        shapes |= unit(f"decode_head.fpn_convs.{number}", CHANNELS, CHANNELS, 3)
    shapes |= unit("decode_head.fpn_bottleneck", CHANNELS, 4 * CHANNELS, 3)
    shapes |= layer("decode_head.classifier", CLASSES, CHANNELS, 1, 1)
    shapes |= unit("auxiliary_head.convs.0", 256, 384, 3)
    shapes |= layer("auxiliary_head.classifier", CLASSES, 256, 1, 1)
    return {key: wave(key, shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(("backbone", "size", "total", "logits"), THEIRS, ids=lambda value: str(value)[:13])
def test_transformers_released_names_give_transformers_logits(
    backbone: str, size: tuple[int, int], total: float, logits: list[float], tmp_path: Path
) -> None:
    torch.save(released(backbone), tmp_path / "upernet.pth")
    options = {"backbone": backbone, "channels": CHANNELS, "aux": True}
    model = models.create("upernet", CLASSES, pretrained=str(tmp_path / "upernet.pth"), **options).eval()
    with torch.no_grad():
        logits_NKHW = model(wavy_images(1, *size)).logits_NKHW
    assert float(logits_NKHW.double().sum()) == pytest.approx(total, abs=1e-2)
    found = logits_NKHW[0, :, ::100, ::90].flatten()
    torch.testing.assert_close(found, torch.tensor(logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", ["swin_t", "convnext_tiny"])
def test_nothing_is_lost_or_left_over(backbone: str) -> None:
    with torch.device("meta"):
        model = models.create("upernet", CLASSES, backbone=backbone, channels=CHANNELS, aux=True)
    adapted = {key: tuple(value.shape) for key, value in from_transformers(released(backbone)).items()}
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert adapted == {key: shape for key, shape in ours.items() if not key.endswith("num_batches_tracked")}


def test_other_files_stay_as_they_are_and_lone_queries_are_refused() -> None:
    other = {"backbone.conv1.weight": torch.zeros(1), "classifier.1.weight": torch.zeros(1)}
    assert from_transformers(other) == other
    query = "backbone.encoder.layers.0.blocks.0.attention.self.query.weight"
    with pytest.raises(InputError, match=r"query.weight has no key beside it; expected a file as transformers saves"):
        from_transformers({"decode_head.classifier.bias": torch.zeros(5), query: torch.zeros(3, 3)})
