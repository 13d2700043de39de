"""What several architectures say of themselves alike: a paper that they all are of, and the numbers it printed.

Below the architectures of `models/`, which are siblings and do not read each other's files.
"""

from __future__ import annotations

from segpipe.models.spec import Published

UNET = (
    "U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger, Fischer, Brox, 2015, "
    "arXiv:1505.04597"
)
UNET_PUBLISHED = tuple(
    Published(
        dataset=dataset,
        split="test",
        protocol="ISBI cell tracking challenge 2015; the paper's own U-Net on grey images, trained from scratch with "
        "weights for borders",
        metric="iou",
        value=value,
        source="paper, table 2",
    )
    for dataset, value in (("PhC-U373", 0.9203), ("DIC-HeLa", 0.7756))
)
