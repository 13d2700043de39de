"""Blocks that several architectures share: the norm layer, convolution units, resizing, the FCN-style head.

Letter legend: N batch, C channels, H W map size.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also trains when a channel has a single value: one image, pooled to 1 x 1.

    A single value has no variance, and torch refuses it. It is then normalised by the running statistics, as in
    evaluation; they stay unchanged and the affine parameters learn. Everywhere else, and in its state dict, this is
    `nn.BatchNorm2d` bit for bit. It subclasses so that `SyncBatchNorm.convert_sync_batchnorm` still recognises it, and
    because torchvision's backbones only accept a class (`norm_layer=`).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU; keeps H and W (odd kernels)."""
    padding = dilation * (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False
        ),
        BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_conv(in_channels: int, out_channels: int, *, dilation: int = 1) -> nn.Sequential:
    """Atrous separable convolution: 3 x 3 depthwise, then 1 x 1 pointwise, each with batch norm and ReLU."""
    return nn.Sequential(
        conv_norm_relu(in_channels, in_channels, 3, dilation=dilation, groups=in_channels),
        conv_norm_relu(in_channels, out_channels, 1),
    )


def fcn_head(
    in_channels: int, num_classes: int, *, channels: int | None = None, dropout: type[nn.Module] = nn.Dropout
) -> nn.Sequential:
    """torchvision's FCNHead, key for key: 3 x 3 to `channels`, batch norm, ReLU, dropout of 0.1, 1 x 1.

    `channels` are a quarter of those that come in unless they are said. `nn.Dropout2d` drops whole channels.
    """
    inner = in_channels // 4 if channels is None else channels
    return nn.Sequential(*conv_norm_relu(in_channels, inner, 3), dropout(0.1), nn.Conv2d(inner, num_classes, 1))


def resize(maps_NCHW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, pixel centres aligned at the corners of the image area (`align_corners=False`)."""
    if maps_NCHW.shape[-2:] == (height, width):
        return maps_NCHW
    return F.interpolate(maps_NCHW, size=(height, width), mode="bilinear", align_corners=False)
