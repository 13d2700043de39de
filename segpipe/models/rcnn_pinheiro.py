"""Recurrent scene labelling: one small network, applied again to its own labels and a coarser image.

Recurrent Convolutional Neural Networks for Scene Labeling, Pinheiro, Collobert, ICML 2014, arXiv:1306.2795, figure 3.

    f:  3 + K planes -> 8x8, C -> pool -> tanh -> 8x8, 2C -> tanh -> 1x1 -> K planes at half the size

    images, zeros --> f --> labels -- images at 1/2 --> f --> labels -- images at 1/4 --> f --> labels
                            window 23                         window 67                         window 155

The weights of f are the same each time, so that context grows without parameters. All windows of an image are labelled
in one pass, by holes where a single window has strides (parts/scanning.py): the p-th time round, f looks 2^(p-1) pixels
apart. Beyond its border an image is mirrored.

Letter legend: N batch, K classes, H W image size, C channels, p time round.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, Layout
from segpipe.models.parts.borders import Mirrored, middle
from segpipe.models.parts.scanning import scanned, window_of
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, check_counts
from segpipe.types import Task

KERNEL = 8
STRIDE = 2  # of f: its labels are of every second pixel


class RecurrentLabeller(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput; `aux` holds the labels of the earlier times round,
    "round1" and so on, which the paper trains as well."""

    def __init__(self, backbone: Backbone, classifier: nn.Conv2d, *, instances: int) -> None:
        super().__init__()
        self.mirrored = Mirrored()
        self.backbone = backbone
        self.classifier = classifier
        self.instances = instances
        self.window = window_of(backbone.children())

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        height, width = images_NCHW.shape[-2:]
        layers = [*self.backbone.children(), self.classifier]
        spacings = [STRIDE**instance for instance in range(self.instances)]
        margin = sum(self.window // 2 * spacing for spacing in spacings)
        wide_NCHW = self.mirrored(images_NCHW, (margin, margin), (margin, margin))
        labels_NKHW = wide_NCHW.new_zeros(len(wide_NCHW), self.classifier.out_channels, *wide_NCHW.shape[-2:])
        rounds = []
        for spacing in spacings:
            seen_NCHW = middle(_seen_from(wide_NCHW, spacing), *labels_NKHW.shape[-2:])
            labels_NKHW, _ = scanned(layers, torch.cat((labels_NKHW, seen_NCHW), dim=1), spacing=spacing)
            rounds.append(middle(labels_NKHW, height, width))
        aux = {f"round{number}": logits_NKHW for number, logits_NKHW in enumerate(rounds[:-1], 1)}
        return DenseOutput(scores_NKhw=rounds[-1], aux_scores=aux)


def _seen_from(images_NCHW: Tensor, spacing: int) -> Tensor:
    """The images as they are when only every `spacing`-th pixel will be looked at: the mean of as many around each."""
    if spacing == 1:
        return images_NCHW
    before, behind = (spacing - 1) // 2, spacing // 2
    padded = F.pad(images_NCHW, (before, behind, before, behind), mode="replicate")
    return F.avg_pool2d(padded, spacing, stride=1)


def build(*, num_classes: int, in_channels: int, instances: int, width: int) -> RecurrentLabeller:
    """A recurrent labeller with random weights. Raises InputError on fewer than one instance or channel."""
    check_counts(instances=instances, width=width)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(num_classes + in_channels, width, KERNEL),
        "pool1": nn.MaxPool2d(STRIDE, stride=STRIDE),
        "tanh1": nn.Tanh(),
        "conv2": nn.Conv2d(width, 2 * width, KERNEL),
        "tanh2": nn.Tanh(),
    }
    layout = Layout(layers=lambda norm: layers, taps=("tanh2",), channels=(2 * width,), stem="conv1")
    classifier = nn.Conv2d(2 * width, num_classes, 1)
    return RecurrentLabeller(Backbone("rcnn_pinheiro", layers, layout), classifier, instances=instances)


SPEC = ModelSpec(
    name="rcnn_pinheiro",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="Recurrent Convolutional Neural Networks for Scene Labeling, Pinheiro, Collobert, 2014, arXiv:1306.2795",
    build=build,
    options={"instances": 3, "width": 25},
    tiny={"instances": 2, "width": 2},
    size_divisor=1,
    differs=(
        "trained on all pixels of an image at once, not on windows; logits of every pixel in one pass, where the paper "
        "shifts the image and stitches",
        "at its p-th time the network sees means over 2^(p-1) pixels that lie where its labels do; the paper rescales "
        "the window to the size of the label planes",
        "the recurrent network alone; the paper's plain ones, of windows of 133 and 67 pixels, are not members here",
        "kernels and the order of convolution, pooling and tanh were checked against another's code alone, which has "
        "no second tanh; 25 and 50 channels are as remembered: the paper was not at hand, nor its table of results",
    ),
    published=papers.sift_flow("three times round (RCNN3)", 0.777, 0.298),
    counted=(
        Counted(
            parameters=98_083,
            num_classes=8,
            source=f"the maps and kernels of f, once for all times round, {papers.ADDED_UP}",
        ),
    ),
)
