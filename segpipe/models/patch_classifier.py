"""A classifier of the window around each pixel: the network that won ISBI 2012, and what FCN did away with.

Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy Images, Ciresan, Giusti, Gambardella,
Schmidhuber, NIPS 2012, table 1: network N4.

    window 95 -> 4x4, 48 -> pool -> 5x5, 48 -> pool -> 4x4, 48 -> pool -> 4x4, 48 -> pool -> 200 -> K
    size           92       46       42       21       18       9        6        3       1      1

All windows of an image are classified in one pass, by holes where a single window has strides (parts/scanning.py): the
same numbers as window by window, at a five-hundredth of the work. Beyond its border an image is mirrored.

Letter legend: N batch, K classes, H W image size, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from segpipe.models.parts import papers
from segpipe.models.parts.backbones import Backbone, Layout
from segpipe.models.parts.borders import Mirrored
from segpipe.models.parts.scanning import scanned, window_of
from segpipe.models.spec import Counted, DenseOutput, ModelSpec, Published, check_counts
from segpipe.types import Task

KERNELS = (4, 5, 4, 4)
LAST_SIZE = 3  # of the map that the fully connected layer sees


class PatchClassifier(nn.Module):
    """Maps images_NCHW (normalised, any H, W >= 1) to DenseOutput without auxiliary logits.

    `backbone` and `classifier` are called with windows when these are to be classified one by one: they map a
    window of `window` pixels to one cell.
    """

    def __init__(self, backbone: Backbone, classifier: nn.Sequential) -> None:
        super().__init__()
        self.mirrored = Mirrored()
        self.backbone = backbone
        self.classifier = classifier
        self.window = window_of([*backbone.children(), *classifier])

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        layers = [*self.backbone.children(), *self.classifier]
        margin = self.window // 2
        # Of an odd window the middle is a pixel: as many on each side make as many windows as the image has pixels.
        logits_NKHW, _ = scanned(layers, self.mirrored(images_NCHW, (margin, margin), (margin, margin)))
        return DenseOutput(scores_NKhw=logits_NKHW)


def build(*, num_classes: int, in_channels: int, width: int, hidden: int) -> PatchClassifier:
    """A patch classifier with random weights. Raises InputError on a width or hidden below 1."""
    check_counts(width=width, hidden=hidden)
    layers: dict[str, nn.Module] = {}
    for place, kernel_size in enumerate(KERNELS, 1):
        layers[f"conv{place}"] = nn.Conv2d(in_channels if place == 1 else width, width, kernel_size)
        layers[f"tanh{place}"] = nn.Tanh()
        layers[f"pool{place}"] = nn.MaxPool2d(2, stride=2)
    layout = Layout(layers=lambda norm: layers, taps=(f"pool{len(KERNELS)}",), channels=(width,), stem="conv1")
    classifier = nn.Sequential(nn.Conv2d(width, hidden, LAST_SIZE), nn.Tanh(), nn.Conv2d(hidden, num_classes, 1))
    return PatchClassifier(Backbone("patch_classifier", layers, layout), classifier)


SPEC = ModelSpec(
    name="patch_classifier",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper=(
        "Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy Images, Ciresan, Giusti, Gambardella, "
        "Schmidhuber, 2012, NIPS 25"
    ),
    build=build,
    options={"width": 48, "hidden": 200},
    tiny={"width": 4, "hidden": 8},
    size_divisor=1,
    differs=(
        "network N4 alone; the winning entry is the mean of several networks, calibrated and median filtered",
        "maps and kernels were checked against another's code of N4 alone; the steps around it are as remembered",
        "no foveation of the window (blur towards its edge) and no coarser sampling there",
        "trained on all pixels of an image at once, not on as many windows of either class",
        "the non-linearity is the hyperbolic tangent, unscaled",
    ),
    published=(
        Published(
            dataset="ISBI 2012 EM segmentation",
            split="test",
            protocol="the entry IDSIA, of several networks; one minus the pixel error of the challenge's server",
            metric="pixel_accuracy",
            value=0.9387,
            source="Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597), table 1, row IDSIA: pixel error 0.0613",
        ),
    ),
    counted=(
        Counted(
            parameters=220_826,
            num_classes=2,
            source=f"the paper's table of N4, for images of three channels, {papers.ADDED_UP}",
        ),
    ),
)
