"""torchvision's released detection weights as ours: names of tensors, COCO's classes, and an epsilon.

Used by the `adapt` of the region architectures. What has no key of torchvision's layout (`backbone.body.`), such as our
own bundles, passes as it is.

Letter legend: K classes, A anchors of a cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

# Files of before torchvision 0.14 have names without the number of the layer in its block.
_RENAMED = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.", "pyramid."),
    (r"^(pyramid\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
)
_MASK_LAYER = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$")
_RETINA_LAYER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.([0246])\.(weight|bias)$")
# COCO's raw category ids 1..90 have holes, which torchvision's heads keep a row for; 0 is the background.
COCO_ROWS = tuple(
    row for row, name in enumerate(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) if name != "N/A"
)
NUM_COCO_ROWS = 91
_TWO_STAGE_HEADS = tuple(
    f"roi_heads.{layer}.{part}"
    for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    for part in ("weight", "bias")
)
_RETINA_HEADS = tuple(f"head.classification_head.cls_logits.{part}" for part in ("weight", "bias"))
# The eps of our norms, and what torchvision's detection models have in their place.
RESNET_EPS, MOBILENET_EPS, PLAIN_EPS = 1e-5, 1e-3, 1e-5


def adapt_two_stage(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's Faster and Mask R-CNN -> our keys; heads of 91 rows -> background and COCO's 80 classes in order.

    Heads of another number of rows stay as they are: a background and one's own classes. So does what a file of another
    model holds, which is not ours to judge.
    """
    if not _is_torchvisions(state_dict):
        return dict(state_dict)
    state = _with_eps(_with_our_keys(state_dict))
    for name in _TWO_STAGE_HEADS:
        rows_per_class = 4 if "bbox_pred" in name else 1
        if name in state and len(state[name]) == NUM_COCO_ROWS * rows_per_class:
            state[name] = _coco_classes(state[name], outer=1, rows=COCO_ROWS)
    return state


def adapt_retinanet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's RetinaNet -> our keys; a head of 91 rows an anchor -> COCO's 80 classes in order."""
    if not _is_torchvisions(state_dict):
        return dict(state_dict)
    state = _with_eps(_with_our_keys(state_dict))
    num_anchors = _num_anchors(state)
    for name in _RETINA_HEADS:
        if num_anchors and name in state and len(state[name]) == NUM_COCO_ROWS * num_anchors:
            # No row for a background here, but torchvision counts the classes from 1 all the same.
            state[name] = _coco_classes(state[name], outer=num_anchors, rows=COCO_ROWS[1:])
    return state


def _is_torchvisions(state_dict: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("backbone.body.") for key in state_dict)


def _with_our_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_our_key(key): value for key, value in state_dict.items()}


def _our_key(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    if layer := _MASK_LAYER.match(key):
        return f"roi_heads.mask_head.{int(layer[1]) - 1}.0.{layer[2]}"
    if layer := _RETINA_LAYER.match(key):
        # Convolutions with a ReLU after each: 0, 2, 4, 6. Newer files have blocks 0 to 3, and no bare weight.
        return f"{layer[1]}.{int(layer[2]) // 2}.0.{layer[3]}"
    return key


def _coco_classes(tensor: Tensor, *, outer: int, rows: tuple[int, ...]) -> Tensor:
    """The rows of COCO's 80 classes (and of the background, if asked for) of (outer * 91 * inner, ...)."""
    inner = len(tensor) // (outer * NUM_COCO_ROWS)
    split = tensor.reshape(outer, NUM_COCO_ROWS, inner, *tensor.shape[1:])
    return split[:, torch.tensor(rows)].reshape(-1, *tensor.shape[1:])


def _with_eps(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Variances of the backbone moved by how far torchvision's eps is from ours, so that their sum is the same.

    torchvision's MobileNet detectors have norms of 1e-5, where the classifier has 1e-3; its frozen norms of the first
    ResNet detectors (COCO_V1 of the v1 form: COCO's 91 rows, no counters of batches) were trained with an eps of zero.
    """
    if "backbone.layer1.0.conv1.weight" not in state:
        shift = PLAIN_EPS - MOBILENET_EPS
    elif _has_coco_rows(state) and not any(key.endswith("num_batches_tracked") for key in state):
        shift = -RESNET_EPS
    else:
        return state
    moved = {
        key: value + shift
        for key, value in state.items()
        if key.startswith("backbone.") and key.endswith(".running_var")
    }
    return {**state, **moved}


def _has_coco_rows(state: Mapping[str, Tensor]) -> bool:
    if _TWO_STAGE_HEADS[0] in state:
        return len(state[_TWO_STAGE_HEADS[0]]) == NUM_COCO_ROWS
    num_anchors = _num_anchors(state)
    return num_anchors > 0 and len(state.get(_RETINA_HEADS[0], ())) == NUM_COCO_ROWS * num_anchors


def _num_anchors(state: Mapping[str, Tensor]) -> int:
    """Anchors of a cell of a RetinaNet, 0 of anything else."""
    return len(state.get("head.regression_head.bbox_reg.bias", ())) // 4
