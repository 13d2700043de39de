"""Convolutions that leave nothing out: those of patches, whose kernel is as large as its stride, at any image size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CoveringConv2d(nn.Conv2d):
    """Of H rows it makes ceil(H / stride): the last patches may reach over the edge, and see zeros there.

    On multiples of the stride this is `nn.Conv2d`, which leaves the last rows and columns out otherwise, and of an
    image smaller than a patch nothing. Swin's own code for pixels pads the same way. Dilated instead of strided, a
    patch begins at every cell.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        height, width = input.shape[-2:]
        return super().forward(F.pad(input, (0, self._beyond(width, 1), 0, self._beyond(height, 0))))

    def _beyond(self, length: int, axis: int) -> int:
        """How far the last patch reaches over the edge."""
        stride, reach = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
        return max(0, (-(-length // stride) - 1) * stride + reach + 1 - length)


def cover(module: nn.Module) -> None:
    """Puts a `CoveringConv2d` with the same parameters in the place of every convolution of patches, in place."""
    for name, conv in list(module.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == conv.stride != (1, 1):
            kernel_size, stride = (conv.kernel_size[0], conv.kernel_size[1]), (conv.stride[0], conv.stride[1])
            covering = CoveringConv2d(conv.in_channels, conv.out_channels, kernel_size, stride=stride)
            covering.weight, covering.bias = conv.weight, conv.bias
            module.set_submodule(name, covering)
