"""torchvision's detection weights in our models: the same boxes, scores, classes and masks as its own models give.

There is no network: the files are state dicts of torchvision's constructors with random weights, in today's layout and
in that of the files which are released.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.parts.released_regions import COCO_ROWS
from segpipe.models.spec import Regions

K, PROPOSALS, DETECTIONS = 3, 16, 8
CATEGORIES = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
TWO_STAGE = {
    "rpn_pre_nms_top_n_test": PROPOSALS,
    "rpn_post_nms_top_n_test": PROPOSALS,
    "box_score_thresh": 0.0,
    "box_detections_per_img": DETECTIONS,
}
ONE_STAGE = {"topk_candidates": PROPOSALS, "score_thresh": 0.0, "detections_per_img": DETECTIONS}
OURS = {"detections": DETECTIONS, "min_score": 0.0}


class Untouched(nn.Module):
    """In the place of torchvision's transform: images as they come, answers as the heads give them."""

    def forward(self, images: list[Tensor], targets: Any) -> tuple[ImageList, Any]:
        return ImageList(torch.stack(images), [tuple(image.shape[-2:]) for image in images]), targets

    def postprocess(self, result: Any, *sizes: Any) -> Any:
        return result


def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def theirs(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """A model of torchvision's with random weights, and norms that do something."""
    torch.manual_seed(3)
    model = make(**options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    model.transform = Untouched()
    return model


def ours(arch: str, num_classes: int, path: Path, **options: Any) -> nn.Module:
    candidates = {"candidates": PROPOSALS} if arch == "retinanet" else {"proposals": PROPOSALS}
    return models.create(arch, num_classes, pretrained=str(path), **OURS, **candidates, **options).eval()


def assert_equal(found: Regions, expected: Mapping[str, Tensor], class_ids: Tensor) -> None:
    assert len(found.scores_M) == DETECTIONS
    assert torch.equal(found.class_ids_M, class_ids)
    torch.testing.assert_close(found.boxes_M4, expected["boxes"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.scores_M, expected["scores"], rtol=0, atol=1e-5)
    assert (found.mask_probabilities_Mss is None) == ("masks" not in expected)
    if found.mask_probabilities_Mss is not None:
        torch.testing.assert_close(found.mask_probabilities_Mss, expected["masks"][:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "builder", "options"),
    [
        ("faster_rcnn", "fasterrcnn_resnet50_fpn", {"form": "v1"}),
        ("faster_rcnn", "fasterrcnn_resnet50_fpn_v2", {"form": "v2"}),
        ("faster_rcnn", "fasterrcnn_mobilenet_v3_large_fpn", {"form": "mobile", "backbone": "mobilenet_v3_large"}),
        ("mask_rcnn", "maskrcnn_resnet50_fpn", {"form": "v1"}),
        ("mask_rcnn", "maskrcnn_resnet50_fpn_v2", {"form": "v2"}),
        ("retinanet", "retinanet_resnet50_fpn", {"form": "v1"}),
        ("retinanet", "retinanet_resnet50_fpn_v2", {"form": "v2"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_detections_are_torchvisions(arch: str, builder: str, options: dict[str, str], tmp_path: Path) -> None:
    background = int(arch != "retinanet")
    limits = TWO_STAGE if background else ONE_STAGE
    model = theirs(
        getattr(detection, builder), weights=None, weights_backbone=None, num_classes=K + background, **limits
    )
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    with torch.no_grad():
        expected = model(list(images()))
        found = ours(arch, K, tmp_path / "theirs.pth", **options)(images()).regions
    for regions, answer in zip(found, expected, strict=True):
        assert_equal(regions, answer, answer["labels"] - background)


# --- the files that are released: COCO's raw ids, frozen norms with an eps of zero, names of before torchvision 0.14


def frozen(make: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """A detector of COCO as torchvision's v1 weights were trained: 91 rows, of which those of the holes stay silent."""
    body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, **BODY[make])
    model = theirs(make, backbone=body, num_classes=len(CATEGORIES), **options)
    for module in body.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    holes = torch.tensor([row for row, name in enumerate(CATEGORIES) if name == "N/A"])
    with torch.no_grad():
        if make is detection.RetinaNet:
            rows = model.head.classification_head.cls_logits.bias.view(-1, len(CATEGORIES))
            rows[:, [0, *holes.tolist()]] = -1e4
        else:
            model.roi_heads.box_predictor.cls_score.bias[holes] = -1e4
    return model


BODY: dict[Callable[..., nn.Module], dict[str, Any]] = {
    detection.FasterRCNN: {},
    detection.MaskRCNN: {},
    detection.RetinaNet: {
        "returned_layers": [2, 3, 4],
        "extra_blocks": torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    },
}
OLD_NAMES = (
    (r"(fpn\.(?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
    (r"rpn\.head\.conv\.0\.0\.", r"rpn.head.conv."),
    (r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}."),
    (r"(_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{int(found[2]) * 2}."),
)


def old_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in OLD_NAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


@pytest.mark.parametrize(
    ("arch", "make", "limits"),
    [
        ("faster_rcnn", detection.FasterRCNN, TWO_STAGE),
        ("mask_rcnn", detection.MaskRCNN, TWO_STAGE),
        ("retinanet", detection.RetinaNet, ONE_STAGE),
    ],
)
def test_a_released_file_becomes_a_model_of_cocos_80_classes(
    arch: str, make: Callable[..., nn.Module], limits: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = frozen(make, **limits)
    old = old_layout(model.state_dict())
    assert len(old.keys() - model.state_dict().keys()) >= 12, "the names of then are others"
    torch.save(old, tmp_path / "released.pth")
    with torch.no_grad():
        expected = model(list(images()))
        found = ours(arch, 80, tmp_path / "released.pth", norm="frozen")(images()).regions
    assert "not loaded" not in caplog.text
    classes = {row: class_id for class_id, row in enumerate(COCO_ROWS[1:])}
    for regions, answer in zip(found, expected, strict=True):
        assert_equal(regions, answer, torch.tensor([classes[row] for row in answer["labels"].tolist()]))


def test_cocos_classes_come_in_order() -> None:
    names = [CATEGORIES[row] for row in COCO_ROWS]
    assert len(names) == 81
    assert names[:3] == ["__background__", "person", "bicycle"]
    assert names[12:14] == ["stop sign", "parking meter"], "raw ids 13 and 14, since 12 is a hole"
    assert names[-1] == "toothbrush"


@pytest.mark.parametrize(
    ("arch", "kept", "lost"),
    [
        ("faster_rcnn", "roi_heads.box_head.fc6.weight", ["cls_score.weight", "bbox_pred.bias"]),
        ("mask_rcnn", "roi_heads.mask_head.0.0.weight", ["cls_score.weight", "bbox_pred.bias", "mask_fcn_logits.bias"]),
        ("retinanet", "head.regression_head.bbox_reg.weight", ["cls_logits.weight", "cls_logits.bias"]),
    ],
)
def test_another_number_of_classes_keeps_all_but_the_last_layers(
    arch: str, kept: str, lost: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"backbone": "resnet18", "channels": 32}
    torch.manual_seed(0)
    source = models.create(arch, 5, **small).state_dict()
    torch.save(source, tmp_path / "five.pth")
    with caplog.at_level(logging.WARNING, logger="segpipe"):
        found = models.create(arch, 2, pretrained=str(tmp_path / "five.pth"), **small).state_dict()
    assert torch.equal(found[kept], source[kept])
    dropped = {key for key in source if found[key].shape != source[key].shape}
    assert all(any(key.endswith(end) for key in dropped) for end in lost)
    assert all(torch.equal(found[key], source[key]) for key in source if key not in dropped)
    assert "not loaded" in caplog.text
    assert models.create(arch, 5, pretrained=str(tmp_path / "five.pth"), **small) is not None
    models.check(arch, small, pretrained=str(tmp_path / "five.pth"))


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_classifier_fills_the_backbone_whatever_its_norms(norm: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    classifier = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(classifier, tmp_path / "resnet18.pth")
    made = models.create("mask_rcnn", 2, backbone="resnet18", norm=norm, pretrained=str(tmp_path / "resnet18.pth"))
    loaded = made.backbone.state_dict()
    assert {key for key in classifier if not key.startswith("fc.")} >= loaded.keys()
    assert all(torch.equal(loaded[key], classifier[key]) for key in loaded)
    norms = [module for module in made.backbone.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == (20 if norm == "frozen" else 0)


@pytest.mark.parametrize(
    ("arch", "options", "name", "meant"),
    [
        ("faster_rcnn", {}, "COCO_V1", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"),
        ("faster_rcnn", {"form": "v2"}, "COCO_V1", "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1"),
        (
            "faster_rcnn",
            {"form": "mobile", "backbone": "mobilenet_v3_large"},
            "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1",
            "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1",
        ),
        ("mask_rcnn", {}, "COCO_V1", "MaskRCNN_ResNet50_FPN_Weights.COCO_V1"),
        ("mask_rcnn", {"form": "v2"}, "COCO_V1", "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1"),
        ("retinanet", {}, "COCO_V1", "RetinaNet_ResNet50_FPN_Weights.COCO_V1"),
        (
            "retinanet",
            {"form": "v2"},
            "RetinaNet_ResNet50_FPN_V2_Weights.DEFAULT",
            "RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
        ),
        ("mask_rcnn", {"backbone": "resnext101_32x8d"}, "DEFAULT", "ResNeXt101_32X8D_Weights.IMAGENET1K_V2"),
    ],
)
def test_released_weights_have_names(arch: str, options: dict[str, Any], name: str, meant: str) -> None:
    assert models.weights_id(arch, options, name) == meant
    models.check(arch, options, pretrained=name)


def test_a_form_without_released_weights_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"'COCO_V1' is not known for mask_rcnn with resnet18; expected one of IMAGE"):
        models.check("mask_rcnn", {"backbone": "resnet18"}, pretrained="COCO_V1")


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        retina = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
        faster = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    for other, arch in ((retina, "mask_rcnn"), (faster, "retinanet"), (faster, "mask_rcnn")):
        state = {key: torch.empty(value.shape) for key, value in other.state_dict().items()}
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(InputError, match=rf"for {arch}: the tensors do not fit: \d+ missing"):
            models.check(arch, {}, pretrained=str(tmp_path / "other.pth"))
