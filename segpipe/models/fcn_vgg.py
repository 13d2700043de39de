"""FCN-32s, -16s and -8s: a classifier made convolutional, scored at up to three strides, upsampled to the input.

Fully Convolutional Networks for Semantic Segmentation, Long, Shelhamer, Darrell, CVPR 2015, arXiv:1411.4038, figure 3;
sizes, crops and the at-once form from the authors' fcn.berkeleyvision.org (`voc-fcn*/net.py`).

    images, 100 pixels of zeros around
      -> conv1, pool1 ... conv3 -> pool3 -> conv4 -> pool4 -> conv5 -> pool5 -> fc6 7x7 -> fc7 1x1     "backbone"
                                     |                 |                                    |
                                1x1, K, crop 9    1x1, K, crop 5                         1x1, K
                                     |                 |                                    |
      32s                                                                                 x 32 -> crop 19
      16s                                              + <------------------------------- x 2
                                                        `- x 16 -> crop 27
      8s                             + <--------- x 2 -'
                                      `- x 8 -> crop 31

Each form has the tensors of the coarser one and of one more skip, which begins at zero: fcn16s those of fcn32s with
`upscore2` and `score_pool4`; fcn8s those of fcn16s with `upscore_pool4` and `score_pool3`. fcn8s_at_once has those of
fcn32s with `score_pool4` and `score_pool3`; nothing of its upsampling is learned.

Letter legend: N batch, K classes, H W image size, C channels, h w size of a map of scores.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, Layout, alexnet, vgg, with_stem
from segpipe.models.parts.convolutionalised import adapt_classifier, fc_layers
from segpipe.models.parts.upsampling import FixedBilinear, bilinear_
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

PADDING = 100
# Where the image begins in what is upsampled, and so what is cut off left and above: the layers' offsets, added up.
CROP = {32: 19, 16: 27, 8: 31}
CROP_POOL4, CROP_POOL3 = 5, 9
ALEXNET_CROP = 18
ALEXNET_KERNEL = 63  # of its upsampling by 32
# The authors' factors on what `score_pool4` and `score_pool3` see, for Caffe's images in 0..255. Normalised images are
# 57 times smaller; and AdamW's steps, of one size whatever the gradient, do not reach weights of 10,000.
AT_ONCE_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}


class FCN(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    `finest` is the stride of the finest scores: 32, 16 or 8. `scales`, of pool4 and pool3, make the at-once form: the
    skips' inputs are scaled and all upsampling is fixed, so that the three streams are trained together.
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, *, finest: int, scales: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.score_fr = _score(backbone.channels[-1], num_classes)
        self.scales = scales or (1.0, 1.0)
        if finest <= 16:
            self.upscore2 = _double(num_classes, fixed=scales is not None)
            self.score_pool4 = _score(backbone.channels[1], num_classes)
        if finest == 8:
            self.upscore_pool4 = _double(num_classes, fixed=scales is not None)
            self.score_pool3 = _score(backbone.channels[0], num_classes)
        self.finest = finest
        shallow = backbone.name == "alexnet"
        self.upscore = FixedBilinear(finest, ALEXNET_KERNEL if shallow else None)
        self.crop = ALEXNET_CROP if shallow else CROP[finest]

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        *pools, fc7 = self.backbone(images_NCHW)
        scores_NKhw = self.score_fr(fc7)
        if self.finest <= 16:
            skip_NKhw = self.score_pool4(pools[1] * self.scales[0])
            scores_NKhw = _fuse(self.upscore2(scores_NKhw), skip_NKhw, CROP_POOL4)
        if self.finest == 8:
            skip_NKhw = self.score_pool3(pools[0] * self.scales[1])
            scores_NKhw = _fuse(self.upscore_pool4(scores_NKhw), skip_NKhw, CROP_POOL3)
        return DenseOutput(scores_NKhw=_crop(self.upscore(scores_NKhw), self.crop, height, width))


def _score(in_channels: int, num_classes: int) -> nn.Conv2d:
    made = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)  # type: ignore[arg-type]
    return made


def _double(num_classes: int, *, fixed: bool) -> nn.Module:
    """Upsampling by two, one kernel a class, bilinear to begin with or for good; of h cells 2 h + 2 are made."""
    if fixed:
        return FixedBilinear(2)
    made = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, groups=num_classes, bias=False)
    bilinear_(made)
    return made


def _fuse(coarse_NKhw: Tensor, skip_NKhw: Tensor, crop: int) -> Tensor:
    return coarse_NKhw + _crop(skip_NKhw, crop, *coarse_NKhw.shape[-2:])


def _crop(maps_NCHW: Tensor, offset: int, height: int, width: int) -> Tensor:
    return maps_NCHW[..., offset : offset + height, offset : offset + width]


def _backbone(name: str, *, in_channels: int, fc_channels: int) -> Backbone:
    """The whole classifier but its last layer, with maps after pool3, pool4 (VGG alone) and fc7."""
    layout = alexnet.LAYOUT if name == "alexnet" else vgg.LAYOUTS[name]
    pools = () if name == "alexnet" else (2, 3)
    hidden = fc_layers(layout.channels[-1], fc_channels, 6 if name == "alexnet" else 7)
    taps = Layout(
        layers=layout.layers,
        taps=(*(layout.taps[pool] for pool in pools), "drop7"),
        channels=(*(layout.channels[pool] for pool in pools), fc_channels),
        stem=layout.stem,
    )
    backbone = with_stem(Backbone(name, {**layout.layers(layout.norms[0]), **hidden}, taps), in_channels)
    stem = backbone.get_submodule(backbone.stem)
    assert isinstance(stem, nn.Conv2d)
    stem.padding = (PADDING, PADDING)
    return backbone


def build(finest: int, *, num_classes: int, in_channels: int, backbone: str, fc_channels: int, **scales: float) -> FCN:
    """An FCN whose scores are zero and whose other weights are random; with `AT_ONCE_SCALES` the at-once form.

    Raises InputError on a backbone that is no VGG (or, at stride 32, AlexNet), on fewer than one fc channel, and on a
    scale that is not above 0 or no number.
    """
    known = (*vgg.LAYOUTS, "alexnet") if finest == 32 else tuple(vgg.LAYOUTS)
    if backbone not in known:
        raise InputError(f"backbone: {backbone!r} is not one of {', '.join(known)}, which this FCN is made of")
    check_counts(fc_channels=fc_channels)
    for option, scale in scales.items():
        if not 0 < scale < math.inf:
            raise InputError(f"{option}: expected a number above 0, found {scale!r}")
    body = _backbone(backbone, in_channels=in_channels, fc_channels=fc_channels)
    at_once = (scales["scale_pool4"], scales["scale_pool3"]) if scales else None
    return FCN(body, num_classes, finest=finest, scales=at_once)


DIFFERS = (
    "torchvision's VGG-16 and its normalised RGB instead of Caffe's BGR in 0..255 less its mean",
    "a caller's batch may hold several images; the paper trains on one at a time, unnormalised loss, high momentum",
)
_LEARNED = (
    "the upsamplings by two are learned from bilinear kernels, one a class, as in the paper; a kernel between two "
    "classes, which the authors' layer would have at zero, is none here. Their later code fixes them at bilinear"
)
_ALEXNET = (
    "backbone=alexnet is torchvision's, without local response norm and groups of channels; the authors' is CaffeNet"
)
_AT_ONCE = (
    "the at-once form is the authors' code, not the paper: all upsampling fixed, pool4 scaled by 0.01, pool3 by 1e-4. "
    "These are made for their images in 0..255; from normalised ones the skips then say next to nothing, unless "
    "scale_pool4 and scale_pool3 are set higher"
)


def _published(value: float, source: str, protocol: str) -> Published:
    return Published(
        dataset="PASCAL VOC 2011",
        split="val without the images of SBD's train (seg11valid)",
        protocol=protocol,
        metric="miou",
        value=value,
        source=source,
    )


_TABLE = "paper, table 2"
_CODE = "fcn.berkeleyvision.org, README"
_STAGED = "VGG-16, trained on SBD in stages of 32s, 16s, 8s; one scale"


def _spec(
    name: str,
    finest: int,
    *,
    parameters: int,
    doublings: int = 0,
    differs: tuple[str, ...],
    published: tuple[Published, ...],
    at_once: bool = False,
) -> ModelSpec:
    # AlexNet is the quicker one, and the only one that FCN-32s alone can have.
    kernels = f" and {doublings} x 21 kernels of 4 x 4" if doublings else ""
    small = {"backbone": "alexnet" if finest == 32 else "vgg16_slim", "fc_channels": 32}
    return ModelSpec(
        name=name,
        task=Task.SEMANTIC,
        output=DenseOutput,
        paper=papers.FCN,
        build=partial(build, finest),
        options={"backbone": "vgg16", "fc_channels": 4096} | (AT_ONCE_SCALES if at_once else {}),
        tiny=small,
        size_divisor=1,
        differs=(*DIFFERS, *differs),
        published=published,
        counted=(
            Counted(
                parameters=parameters,
                num_classes=21,
                source=f"the convolutions of the authors' voc-{name.replace('_at_once', '-atonce')}/net.py{kernels}",
                published="134 M, table 1 (FCN-VGG16)",
            ),
        ),
        adapt=adapt_classifier,
    )


SPECS = (
    _spec(
        "fcn32s",
        32,
        parameters=134_346_581,
        differs=(_ALEXNET,),
        published=(
            _published(0.594, _TABLE, _STAGED),
            _published(0.636, _CODE, f"{_STAGED}, high momentum"),
            _published(0.480, _CODE, "AlexNet (CaffeNet), trained on SBD; one scale"),
            papers.camvid_miou_by_another("VGG-16 with ImageNet weights", 0.4862),
        ),
    ),
    _spec(
        "fcn16s",
        16,
        parameters=134_357_690,
        doublings=1,
        differs=(_LEARNED,),
        published=(_published(0.624, _TABLE, _STAGED), _published(0.650, _CODE, f"{_STAGED}, high momentum")),
    ),
    _spec(
        "fcn8s",
        8,
        parameters=134_363_423,
        doublings=2,
        differs=(_LEARNED,),
        published=(
            _published(0.627, _TABLE, _STAGED),
            _published(0.655, _CODE, f"{_STAGED}, high momentum"),
            papers.camvid_miou_by_another("VGG-16 with ImageNet weights", 0.5036),
        ),
    ),
    _spec(
        "fcn8s_at_once",
        8,
        parameters=134_362_751,
        differs=(_AT_ONCE,),
        published=(_published(0.654, _CODE, "VGG-16, trained on SBD all at once, high momentum; one scale"),),
        at_once=True,
    ),
)
