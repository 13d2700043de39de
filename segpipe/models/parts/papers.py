"""What several architectures say of themselves alike: their paper, the numbers it printed, what they depart in.

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

FCN = "Fully Convolutional Networks for Semantic Segmentation, Long, Shelhamer, Darrell, 2015, arXiv:1411.4038"

DEEPLAB_V3 = (
    "Rethinking Atrous Convolution for Semantic Image Segmentation, Chen, Papandreou, Schroff, Adam, 2017, "
    "arXiv:1706.05587"
)

DEEPLAB_V3_DIFFERS = (
    "torchvision's ResNets: one 7x7 convolution as stem, where the authors' code has three 3x3, and the stride in "
    "the first unit of a stage instead of the last unit of the one before",
    "bilinear resizing samples at cell centres (align_corners=False); the authors' code aligns corners",
    "evaluation_stride: 0 evaluates at the output stride of training; 8 is the paper's for its best numbers",
)

PANOPTIC_FPN = "Panoptic Feature Pyramid Networks, Kirillov, Girshick, He, Dollar, 2019, arXiv:1901.02446"

ADDED_UP = "added up (tests/models/test_counts_by_hand.py)"  # a number of parameters that nobody printed

TORCHVISION_RELEASE = "torchvision, weights COCO_WITH_VOC_LABELS_V1"


def voc_miou(split: str, protocol: str, value: float, source: str) -> Published:
    """A mean IoU that a paper printed of PASCAL VOC 2012, where most of them were compared."""
    return Published(
        dataset="PASCAL VOC 2012", split=split, protocol=protocol, metric="miou", value=value, source=source
    )


def camvid_miou(protocol: str, value: float, source: str) -> Published:
    """A mean IoU that somebody printed of CamVid's test split, 11 classes, which `benchmarks/camvid.md` compares."""
    return Published(
        dataset="CamVid", split="test", protocol=f"11 classes, {protocol}", metric="miou", value=value, source=source
    )


def camvid_miou_by_segnet(network: str, value: float) -> Published:
    """Of a network that SegNet's authors trained beside theirs."""
    return camvid_miou(
        f"images of 480x360, {network}; trained on 3433 road scenes without class weights, all networks alike, batch "
        "norm behind every convolution",
        value,
        "SegNet's authors, arXiv:1511.00561v3, table 3",
    )


def camvid_miou_by_another(network: str, value: float) -> Published:
    """Of an implementation that is neither the authors' nor a library's; its README.md has had other numbers, too."""
    return camvid_miou(
        f"{network}; images resized to 320x320, as its evaluate.py has them by default",
        value,
        "another's implementation, github.com/GitLanx/Semantic-Segmentation-PyTorch, README.md",
    )


def sift_flow(protocol: str, pixel_accuracy: float, mean_accuracy: float) -> tuple[Published, ...]:
    """What FCN's authors quote of the networks before theirs."""
    return tuple(
        Published(
            dataset="SIFT Flow",
            split="test",
            protocol=f"33 classes, 200 images; {protocol}",
            metric=metric,
            value=value,
            source="paper, as FCN's authors quote it (arXiv:1411.4038v2, table 5)",
        )
        for metric, value in (("pixel_accuracy", pixel_accuracy), ("mean_accuracy", mean_accuracy))
    )


def torchvision_published(miou: float, pixel_accuracy: float, *, network: str = "") -> tuple[Published, ...]:
    """What torchvision prints of one of its networks for pixels; `network` says which, where an architecture has more
    than one of them."""
    of_network = f"{network}, " if network else ""
    return tuple(
        Published(
            dataset="COCO 2017 with VOC labels",
            split="val2017",
            protocol=f"{of_network}trained on the COCO images that hold VOC's classes; 20 classes and background, "
            "short side 520, one scale",
            metric=metric,
            value=value,
            source=TORCHVISION_RELEASE,
        )
        for metric, value in (("miou", miou), ("pixel_accuracy", pixel_accuracy))
    )
