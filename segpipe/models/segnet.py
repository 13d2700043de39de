"""SegNet and SegNet-Basic: an encoder that remembers its maxima and a decoder that puts values back there.

SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation, Badrinarayanan, Kendall, Cipolla, IEEE
TPAMI 39(12), 2017, arXiv:1511.00561, figure 2; layers as in the authors' SegNet-Tutorial (`Models/segnet*.prototxt`).

    stride 1   conv1 x2, 64 -- pool - - - - - - - places - - - - - - - > unpool -- conv1 x1, 64 -- 3x3, K
           2     conv2 x2, 128 -- pool - - - - - - - - - - - - - - > unpool -- conv2 x2, 64
           4       conv3 x3, 256 -- pool - - - - - - - - - - - > unpool -- conv3 x3, 128
           8         conv4 x3, 512 -- pool - - - - - - - - > unpool -- conv4 x3, 256
          16           conv5 x3, 512 -- pool - - - - - > unpool -- conv5 x3, 512
          32                              `---------------'

Basic: four encoders of one 7x7 convolution to 64 channels each, four decoders of one without ReLU, and 1x1 to K.

Places are what SegNet is about; `upsampling` puts other ways in their stead, as table 1 of the paper compares some.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, Layout, build_backbone, vgg
from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.parts.switches import encoded, mirrored
from segpipe.models.parts.upsampling import upsample
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

BACKBONES = tuple(name for name in vgg.LAYOUTS if "_bn" in name)
BASIC_STAGES = 4
BASIC_KERNEL = 7


class SegNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    `backbone` holds the encoder's layers, each pooling among them; `decoder` one module for each of its poolings,
    coarsest first, and `upsamplers` what stands before each (`parts.upsampling`).
    """

    def __init__(
        self, backbone: Backbone, upsamplers: list[nn.Module], decoder: list[nn.Module], classifier: nn.Module
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.upsamplers = nn.ModuleList(upsamplers)
        self.decoder = nn.ModuleList(decoder)
        self.classifier = classifier

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        features, poolings = encoded(self.backbone.children(), images_NCHW)
        for upsampler, stage, pooling in zip(self.upsamplers, self.decoder, reversed(poolings), strict=True):
            features = stage(upsampler(features, pooling.height, pooling.width, pooling.switches_NChw))
        return DenseOutput(scores_NKhw=self.classifier(features))


def convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """With bias, keeping H and W; initialised as He et al. do, the authors' "msra"."""
    made = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def decoder_stage(channels: list[tuple[int, int]]) -> nn.Sequential:
    """A 3 x 3 convolution, batch norm and ReLU for each (in, out)."""
    units = ((convolution(*each, 3), BatchNorm2d(each[1]), nn.ReLU(inplace=True)) for each in channels)
    return nn.Sequential(*(layer for unit in units for layer in unit))


def build(*, num_classes: int, in_channels: int, backbone: str, upsampling: str) -> SegNet:
    """A SegNet with random weights. Raises InputError on a backbone without batch norm and an unknown upsampling."""
    if backbone not in BACKBONES:
        raise InputError(f"backbone: {backbone!r} is not one of {', '.join(BACKBONES)}, which a SegNet mirrors")
    body = build_backbone(backbone, in_channels=in_channels)
    stages = mirrored(body.children())
    upsamplers = [upsample(upsampling, stage[0][0], stage[0][0]) for stage in stages]
    last, _ = stages[-1].pop()
    return SegNet(body, upsamplers, [decoder_stage(stage) for stage in stages], convolution(last, num_classes, 3))


def build_basic(*, num_classes: int, in_channels: int, width: int, upsampling: str) -> SegNet:
    """A SegNet-Basic with random weights. Raises InputError on a width below 1 and an unknown upsampling."""
    check_counts(width=width)
    layers: dict[str, nn.Module] = {"norm": nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)}
    for stage in range(1, BASIC_STAGES + 1):
        layers |= {
            f"conv{stage}": convolution(in_channels if stage == 1 else width, width, BASIC_KERNEL),
            f"conv{stage}_bn": BatchNorm2d(width),
            f"relu{stage}": nn.ReLU(inplace=True),
            f"pool{stage}": vgg.Pool(),
        }
    layout = Layout(layers=lambda norm: layers, taps=("pool4",), channels=(width,), stem="conv1")
    decoder: list[nn.Module] = [
        nn.Sequential(convolution(width, width, BASIC_KERNEL), BatchNorm2d(width)) for _ in range(BASIC_STAGES)
    ]
    upsamplers = [upsample(upsampling, width, width) for _ in range(BASIC_STAGES)]
    return SegNet(Backbone("segnet_basic", layers, layout), upsamplers, decoder, convolution(width, num_classes, 1))


PAPER = (
    "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation, Badrinarayanan, Kendall, "
    "Cipolla, 2015, arXiv:1511.00561"
)
DIFFERS = (
    "convolutions have biases beside their batch norm, as in the authors' prototxt and against the paper's text of "
    "SegNet-Basic",
    "a single value per channel (batch 1, one cell) is normalised by the running statistics",
    "no class weights: median frequency balancing is a loss's business here (losses.median_frequency_weights)",
)


def _counted(parameters: int, prototxt: str) -> Counted:
    return Counted(
        parameters=parameters,
        num_classes=11,
        source=f"the layers of the authors' Models/{prototxt}_inference.prototxt, added up: biases and norms too",
    )


SPECS = (
    ModelSpec(
        name="segnet",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=PAPER,
        build=build,
        options={"backbone": "vgg16_bn", "upsampling": "max_unpool"},
        tiny={"backbone": "vgg16_bn_slim"},
        size_divisor=1,
        differs=(
            "torchvision's VGG-16 with batch norm; the authors put theirs between layers trained without",
            *DIFFERS,
        ),
        published=(
            papers.camvid_miou(
                "images of 480x360, trained on 3433 road scenes, 140,000 steps without class weights",
                0.601,
                "paper, tables 2 and 3",
            ),
        ),
        counted=(_counted(29_449_355, "segnet"),),
    ),
    ModelSpec(
        name="segnet_basic",
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=PAPER,
        build=build_basic,
        options={"width": 64, "upsampling": "max_unpool"},
        tiny={"width": 4},
        size_divisor=1,
        differs=(
            "local response norm sees normalised images, not pixels of 0..255 as in the authors' prototxt, and changes "
            "them little",
            *DIFFERS,
        ),
        published=tuple(
            papers.camvid_miou(
                f"images of 480x360, trained on CamVid's 367 from random weights, {weights}", value, "paper, table 1"
            )
            for weights, value in (("median frequency balancing", 0.477), ("no class weights", 0.463))
        ),
        counted=(_counted(1_416_587, "segnet_basic"),),
    ),
)
