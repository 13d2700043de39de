"""DeconvNet: VGG-16 and its mirror image, with unpooling at the remembered maxima and learned deconvolution.

Learning Deconvolution Network for Semantic Segmentation, Noh, Hong, Han, ICCV 2015, arXiv:1505.04366, figure 2 and
table 1 of the supplement; layers as in the authors' DeconvNet_inference_deploy.prototxt.

    224  conv1 x2 -- pool1 - - - - - - - switches - - - - - - - > unpool1 -- deconv1 x2 -- 1x1, K  "score"
    112    conv2 x2 -- pool2 - - - - - - - - - - - - - - - - - > unpool2 -- deconv2 x2
     56      conv3 x3 -- pool3 - - - - - - - - - - - - - - - -> unpool3 -- deconv3 x3
     28        conv4 x3 -- pool4 - - - - - - - - - - - - - - > unpool4 -- deconv4 x3
     14          conv5 x3 -- pool5 - - - - - - - - - - - - -> unpool5 -- deconv5 x3
      7            `--> fc6 7x7 --> fc7 1x1 --> fc6-deconv 7x7 --'
      1

Batch norm and ReLU follow every layer but the last.

Letter legend: N batch, K classes, H W image size, C channels, h w size of the coarsest map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, build_backbone, vgg
from segpipe.models.parts.convolutionalised import adapt_classifier, fc_convolution
from segpipe.models.parts.layers import BatchNorm2d
from segpipe.models.parts.switches import encoded, mirrored
from segpipe.models.parts.upsampling import MaxUnpool
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

FC_KERNEL = 7
BACKBONES = tuple(name for name in vgg.LAYOUTS if "_bn" in name)


class DeconvNet(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    fc6 sees 7 x 7 cells of stride 32, all of a 224 x 224 image; of a larger one it is a convolution, and a smaller
    one's coarsest map is filled up with zeros. Its deconvolution gives the map its size back either way.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, fc_channels: int) -> None:
        super().__init__()
        coarsest = backbone.channels[-1]
        decoder = mirrored(backbone.children())
        backbone.add_module("fc6", fc_convolution(coarsest, fc_channels, FC_KERNEL))
        backbone.add_module("fc7", fc_convolution(fc_channels, fc_channels, 1))
        self.backbone = backbone
        self.fc6 = _norm_relu(fc_channels)
        self.fc7 = _norm_relu(fc_channels)
        self.fc6_deconv = _deconvolution(fc_channels, coarsest, FC_KERNEL, padding=0)
        self.decoder = nn.ModuleList(
            nn.Sequential(*(_deconvolution(*channels, 3, padding=1) for channels in stage)) for stage in decoder
        )
        self.unpool = MaxUnpool()
        self.score = nn.Conv2d(decoder[-1][-1][1], num_classes, 1)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        # From a deviation of 0.01 the norms behind make every step of AdamW a leap: on eight images it stayed at 0.39.
        for layer in (backbone.get_submodule("fc6"), backbone.get_submodule("fc7"), self.score):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        *layers, fc6, fc7 = self.backbone.children()
        coarsest_NChw, poolings = encoded(layers, images_NCHW)
        height, width = coarsest_NChw.shape[-2:]
        filled = F.pad(coarsest_NChw, (0, max(0, FC_KERNEL - width), 0, max(0, FC_KERNEL - height)))
        features = self.fc7(fc7(self.fc6(fc6(filled))))
        features = self.fc6_deconv(features)[..., :height, :width]
        for stage, pooling in zip(self.decoder, reversed(poolings), strict=True):
            features = stage(self.unpool(features, pooling.height, pooling.width, pooling.switches_NChw))
        return DenseOutput(scores_NKhw=self.score(features))


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(BatchNorm2d(channels), nn.ReLU(inplace=True))


def _deconvolution(in_channels: int, out_channels: int, kernel_size: int, *, padding: int) -> nn.Sequential:
    made = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, padding=padding)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return nn.Sequential(made, *_norm_relu(out_channels))


def build(*, num_classes: int, in_channels: int, backbone: str, fc_channels: int) -> DeconvNet:
    """A DeconvNet of random weights. Raises InputError on a backbone without batch norm, and on no fc channel."""
    if backbone not in BACKBONES:
        raise InputError(f"backbone: {backbone!r} is not one of {', '.join(BACKBONES)}, which a DeconvNet mirrors")
    check_counts(fc_channels=fc_channels)
    return DeconvNet(build_backbone(backbone, in_channels=in_channels), num_classes, fc_channels=fc_channels)


_BOXES = "trained on SBD in two stages; scores of the 50 best of 2000 proposals an image joined"


SPEC = ModelSpec(
    name="deconvnet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="Learning Deconvolution Network for Semantic Segmentation, Noh, Hong, Han, 2015, arXiv:1505.04366",
    build=build,
    options={"backbone": "vgg16_bn", "fc_channels": 4096},
    tiny={"backbone": "vgg16_bn_slim", "fc_channels": 32},
    size_divisor=1,
    differs=(
        "whole images of any size instead of proposals resized to 224 x 224, whose scores the paper joins by their "
        "maximum; a coarsest map below 7 x 7 is filled up with zeros",
        "torchvision's VGG-16 with batch norm; the authors put theirs between layers trained without",
        "trained at once; the paper trains on crops of single objects first",
        "the layers after conv5 start from He et al.'s normal distribution (arXiv:1502.01852)",
        "a single value per channel (batch 1, one cell behind fc6) is normalised by the running statistics",
    ),
    published=(
        papers.voc_miou("test", f"{_BOXES}; no CRF", 0.696, "paper, table 1"),
        papers.voc_miou("test", f"{_BOXES}; with a dense CRF", 0.705, "paper, table 1"),
        papers.camvid_miou_by_segnet("1024 channels in place of 4096, whole images, 260,000 steps", 0.5977),
    ),
    counted=(
        Counted(
            parameters=251_805_653,
            num_classes=21,
            source="the layers of the authors' DeconvNet_inference_deploy.prototxt, added up: biases and norms too",
            published="about 252 M",
        ),
    ),
    adapt=adapt_classifier,
)
