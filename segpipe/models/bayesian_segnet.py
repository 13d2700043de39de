"""Bayesian SegNet: SegNet with dropout at its centre, which stays on to sample what the model is unsure of.

Bayesian SegNet: Model Uncertainty in Deep Convolutional Encoder-Decoder Architectures for Scene Understanding, Kendall,
Badrinarayanan, Cipolla, BMVC 2017, arXiv:1511.02680, "central four encoder-decoder"; layers as in the authors'
SegNet-Tutorial (`Models/bayesian_segnet_inference.prototxt`), with dropout behind six blocks.

    conv1 - conv2 - conv3 - drop - conv4 - drop - conv5 - drop     encoder, each block with its pooling
    conv1 - conv2 - drop - conv3 - drop - conv4 - drop - conv5     decoder, read from right to left

Child of `segnet.py`, whose network it is: the weights of one fit the other. As a model it answers like any other, with
dropout off in evaluation (the paper's "weight averaging"), unless a recipe's `train.inference.samples` takes samples.

Letter legend: K classes, C channels.
"""

from __future__ import annotations

from torch import nn

from segpipe.models import segnet
from segpipe.models.parts.backbones import BACKBONES, Backbone
from segpipe.models.parts.backbones.vgg import Pool
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_shares
from segpipe.types import Task

CENTRAL = (3, 4, 5)  # blocks, counted from 1, behind which a share of the values is dropped


def _dropping(backbone: Backbone, dropout: float) -> Backbone:
    """The same layers, with dropout behind the poolings of the central blocks."""
    layers: dict[str, nn.Module] = {}
    block = 1
    for name, layer in backbone.named_children():
        layers[name] = layer
        if isinstance(layer, Pool):
            if block in CENTRAL:
                layers[f"encdrop{block}"] = nn.Dropout(dropout)
            block += 1
    return Backbone(backbone.name, layers, BACKBONES[backbone.name])


def build(*, num_classes: int, in_channels: int, backbone: str, dropout: float) -> segnet.SegNet:
    """A SegNet with dropout. Raises InputError as `segnet.build` and on a dropout outside 0..1, 1 excluded."""
    check_shares(dropout=dropout)
    plain = segnet.build(num_classes=num_classes, in_channels=in_channels, backbone=backbone, upsampling="max_unpool")
    # The decoder begins with block 5; its dropout adds no tensors, and so changes no key, at the end of a block.
    for block, stage in zip((5, 4, 3, 2, 1), plain.decoder, strict=True):
        if block in CENTRAL:
            assert isinstance(stage, nn.Sequential)
            stage.add_module("decdrop", nn.Dropout(dropout))
    encoder = _dropping(plain.backbone, dropout)
    return segnet.SegNet(encoder, list(plain.upsamplers), list(plain.decoder), plain.classifier)


SPEC = ModelSpec(
    name="bayesian_segnet",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "Bayesian SegNet: Model Uncertainty in Deep Convolutional Encoder-Decoder Architectures for Scene "
        "Understanding, Kendall, Badrinarayanan, Cipolla, 2015, arXiv:1511.02680"
    ),
    build=build,
    options={"backbone": "vgg16_bn", "dropout": 0.5},
    tiny={"backbone": "vgg16_bn_slim"},
    size_divisor=1,
    differs=(
        "a prediction is one pass with dropout off; the mean of samples and their variance where "
        "train.inference.samples asks for them",
        "dropout behind encoders 3, 4, 5 and decoders 5, 4, 3, as the authors' prototxt has it; the paper "
        "counts four central encoder-decoder units",
        *segnet.SPECS[0].differs,
    ),
    # The paper's own tables were not read, so that its number of CamVid is not here.
    published=tuple(
        Published(
            dataset="SUN RGB-D",
            split="test",
            protocol="37 classes, colours without depth; which of the paper's ways of sampling is not said",
            metric=metric,
            value=value,
            source="paper, as FuseNet's authors quote it (Hazirbas, Ma, Domokos, Cremers, ACCV 2016, table 1)",
        )
        for metric, value in (("miou", 0.307), ("mean_accuracy", 0.459), ("pixel_accuracy", 0.712))
    ),
    counted=(
        Counted(
            parameters=segnet.SPECS[0].counted[0].parameters,
            num_classes=11,
            source="the layers of the authors' Models/bayesian_segnet_inference.prototxt: those of SegNet and dropout",
        ),
    ),
)
