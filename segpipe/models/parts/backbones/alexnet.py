"""AlexNet in torchvision's form, the encoder of FCN-AlexNet. Not in `BACKBONES`: its maps have no promised size.

One weird trick for parallelizing convolutional neural networks, Krizhevsky, 2014, arXiv:1404.5997. Its first
convolution and its poolings are not padded to half their kernels, so that a map of stride s has fewer than ceil(H / s)
cells; what reads them must do its own arithmetic. As in Caffe, a pooling's last window may reach over the edge, which
changes nothing at torchvision's 224 x 224.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from segpipe.models.parts.backbones.layout import NO_NORM, Layout


def _layers(norm: str) -> Mapping[str, nn.Module]:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def relu() -> nn.Module:
        return nn.ReLU(inplace=True)

    layers = (
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), relu(), pool()),
        *(nn.Conv2d(64, 192, 5, padding=2), relu(), pool()),
        *(nn.Conv2d(192, 384, 3, padding=1), relu()),
        *(nn.Conv2d(384, 256, 3, padding=1), relu()),
        *(nn.Conv2d(256, 256, 3, padding=1), relu(), pool()),
    )
    return {str(place): layer for place, layer in enumerate(layers)}


LAYOUT = Layout(
    layers=_layers, taps=("2", "5", "12"), channels=(64, 192, 256), stem="0", norms=NO_NORM, output_strides=(32,)
)
