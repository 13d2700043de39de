"""The models room: the table of architectures and the one way to make them. Below `tasks/`; the only nn.Modules.

An architecture is one file here (paper, departures, modules, SPEC) and its line in `MODELS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import nn

from segpipe.errors import InputError
from segpipe.models import (
    bayesian_segnet,
    classical,
    deconvnet,
    deeplab_v1,
    deeplab_v2,
    deeplab_v3,
    deeplab_v3_cascade,
    deeplab_v3plus,
    enet,
    farabet,
    faster_rcnn,
    fc_densenet,
    fcn,
    fcn_vgg,
    fpn,
    grabcut,
    hrnet,
    hrnet_pose,
    lraspp,
    mask2former,
    mask_rcnn,
    panoptic_deeplab,
    panoptic_fpn,
    patch_classifier,
    pspnet,
    rcnn_pinheiro,
    retinanet,
    segformer,
    segnet,
    unet,
    unet_valid,
    unet_watershed,
    upernet,
)
from segpipe.models.parts.backbones.timm_features import PREFIX as OF_TIMM
from segpipe.models.parts.ensemble import Ensemble
from segpipe.models.pretrained import Receiver, check_pretrained, identify_pretrained, load_pretrained
from segpipe.models.spec import DenseOutput, Held, ModelSpec, Published, check_counts, dropouts
from segpipe.models.start import fitting, start_from
from segpipe.types import Task

__all__ = [
    "ENSEMBLE",
    "MODELS",
    "DenseOutput",
    "ModelSpec",
    "Published",
    "aux_heads",
    "check",
    "check_start",
    "complete",
    "create",
    "has_dropout",
    "held",
    "names",
    "require_weights",
    "requirements",
    "spec",
    "start_from",
    "weights_id",
]

MODELS: dict[str, ModelSpec] = {
    found.name: found
    for found in (
        patch_classifier.SPEC,
        farabet.SPEC,
        rcnn_pinheiro.SPEC,
        *fcn_vgg.SPECS,
        *fcn.SPECS,
        deconvnet.SPEC,
        *segnet.SPECS,
        bayesian_segnet.SPEC,
        unet.SPEC,
        unet_valid.SPEC,
        enet.SPEC,
        *fc_densenet.SPECS,
        deeplab_v1.SPEC,
        deeplab_v2.SPEC,
        deeplab_v3.SPEC,
        deeplab_v3_cascade.SPEC,
        *deeplab_v3plus.SPECS,
        pspnet.SPEC,
        fpn.SPEC,
        *hrnet.SPECS,
        lraspp.SPEC,
        upernet.SPEC,
        *segformer.SPECS,
        *classical.SPECS,
        faster_rcnn.SPEC,
        mask_rcnn.SPEC,
        retinanet.SPEC,
        unet_watershed.SPEC,
        panoptic_deeplab.SPEC,
        panoptic_fpn.SPEC,
        mask2former.SPEC,
        grabcut.SPEC,
        *hrnet_pose.SPECS,
    )
}

_OUTLINE_CLASSES = 2


def _build_ensemble(*, num_classes: int, in_channels: int, members: list[dict[str, Any]]) -> nn.Module:
    for member in members:
        if spec(member["arch"]).output is not DenseOutput:
            raise InputError(
                f"ensemble: {member['arch']} has no logits for every pixel to take the mean of; choose members that do"
            )
    built = [create(member["arch"], num_classes, in_channels=in_channels, **member["options"]) for member in members]
    return Ensemble(built)


# Not in the table: what an ensemble is, its members say. `members` are {"arch": ..., "options": ...}.
ENSEMBLE = ModelSpec(
    name="ensemble",
    task=Task.SEMANTIC,
    output=DenseOutput,
    paper="none: the mean of the logits of trained models",
    build=_build_ensemble,
    options={"members": []},
    tiny={"members": [{"arch": "unet", "options": dict(unet.SPEC.tiny)}]},
    size_divisor=1,
)


def names(task: Task | str | None = None) -> list[str]:
    """Names of the architectures, all or those that answer one task. Raises InputError on an unknown task."""
    if task is not None and task not in list(Task):
        raise InputError(f"task: unknown {task!r}; expected one of: {', '.join(Task)}")
    return [name for name, found in MODELS.items() if task is None or task in (found.task, *found.also)]


def spec(name: str) -> ModelSpec:
    """What `MODELS` says of an architecture, or `ENSEMBLE` of one. Raises InputError, with the closest name and the
    list, when unknown."""
    if name == ENSEMBLE.name:
        return ENSEMBLE
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(str(name), MODELS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    raise InputError(f"architecture: unknown {name!r}{hint} Expected one of: {', '.join(MODELS)}")


def create(
    name: str, num_classes: int, *, in_channels: int = 3, pretrained: str | None = None, **options: Any
) -> nn.Module:
    """Makes a model that maps images_NCHW (float, normalised, any H, W >= 1) to the output of its kind (`spec.py`).

    That is `DenseOutput` of a semantic model; those of objects also take targets, and those of keypoints boxes.
    `num_classes` and `in_channels` are at least 1. `options` are those of `spec(name).options`. `pretrained` is
    "DEFAULT", "IMAGENET1K_V1" or another of torchvision's weights names, or a local .safetensors, .pth or .pt file with
    the keys of the backbone or of the whole model; None starts from random weights. The model has a `.backbone`.

    Raises InputError on an unknown architecture, option or weights name and on weights that do not fit;
    UnreachableError when weights cannot be downloaded; CorruptError when a download has the wrong hash.
    """
    found = spec(name)
    check_counts(num_classes=num_classes, in_channels=in_channels)
    model: nn.Module = found.build(num_classes=num_classes, in_channels=in_channels, **complete(name, options))
    if pretrained is not None:
        load_pretrained(_receiver(name, options, model, num_classes, in_channels), pretrained)
    return model


def check(name: str, options: Mapping[str, Any], *, pretrained: str | None = None) -> None:
    """Raises InputError where `create` would, at little cost: nothing is initialised and nothing is downloaded.

    A weights file is read and compared with the model; a weights name is only looked up.
    """
    model = _outline(name, options)
    if pretrained is not None:
        check_pretrained(_receiver(name, options, model), pretrained)


def check_start(name: str, options: Mapping[str, Any], parent: str, parent_options: Mapping[str, Any]) -> None:
    """Raises InputError where a model cannot start from the weights of `parent`, at little cost, as `check`."""
    _require_descent(name, "start_from")
    _require_descent(parent, "start_from")
    fitting(_outline(name, options).state_dict(), _outline(parent, parent_options).state_dict(), start=parent)


def aux_heads(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the auxiliary heads that a model would have, found by a forward pass without numbers: none of one that
    is not dense or does not learn by descent.

    Raises InputError as `create`.
    """
    if spec(name).output is not DenseOutput or spec(name).learns_by != "descent":
        return ()
    with torch.no_grad():
        output: DenseOutput = _outline(name, options).eval()(torch.zeros(1, 3, 64, 64, device="meta"))
    return tuple(output.aux_scores)


def has_dropout(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a model would drop values, so that passes with dropout on differ. Raises InputError as `create`."""
    return bool(dropouts(_outline(name, options)))


def complete(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the defaults of those left out: what means the same model is equal afterwards.

    A whole number is one where a float is expected, too. Raises InputError on an unknown architecture, an unknown
    option or a value of another type than its default.
    """
    found, given = spec(name), dict(options)
    for key, value in options.items():
        if key not in found.options:
            known = ", ".join(f"{option}={default!r}" for option, default in found.options.items())
            told = f"known, with their defaults: {known}" if known else "it has none"
            raise InputError(f"{found.name}: unknown option {key!r}; {told}")
        expected = type(found.options[key])
        if expected is float and type(value) is int and abs(value) < 2**53:
            given[key] = float(value)
        elif type(value) is not expected:
            raise InputError(f"{found.name}: option {key}: expected {expected.__name__}, found {value!r}")
    return {**found.options, **given}


def require_weights(name: str, options: Mapping[str, Any], pretrained: str | None) -> None:
    """Raises InputError where a training that starts with `options` makes sense with weights from outside alone."""
    if pretrained is None and complete(name, options).get("norm") == "frozen":
        raise InputError(
            f"{name}: option norm: frozen keeps the statistics of pretrained weights, and there are none; set "
            "pretrained, or leave norm out"
        )


def held(name: str, options: Mapping[str, Any]) -> Held:
    """What a forward pass of a model holds; the members of an ensemble look one after the other, beside their sum.

    Raises InputError on an unknown architecture.
    """
    if name != ENSEMBLE.name:
        return spec(name).held
    found = [held(member["arch"], member["options"]) for member in options["members"]]
    return Held(pixel=max(each.pixel for each in found), score=1 + max(each.score for each in found))


def requirements(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Distributions that a model imports beside those of every model: its method's, timm for a backbone of timm's, and
    those of the members of an ensemble; each once. Raises InputError on an unknown architecture."""
    needed = list(spec(name).requires)
    if any(isinstance(value, str) and value.startswith(OF_TIMM) for value in options.values()):
        needed.append("timm")
    if name == ENSEMBLE.name:
        for member in options["members"]:
            needed += requirements(member["arch"], member["options"])
    return tuple(dict.fromkeys(needed))


def weights_id(name: str, options: Mapping[str, Any], pretrained: str) -> str:
    """Which weights `pretrained` means for this model: torchvision's full name, or "sha256:..." of a file's bytes.

    Raises InputError on a file that cannot be read or a name that is not known.
    """
    return identify_pretrained(_receiver(name, options, _outline(name, options)), pretrained)


def _require_descent(name: str, key: str) -> None:
    """Raises InputError on an architecture that has no weights, though `key` speaks of some."""
    if spec(name).learns_by != "descent":
        raise InputError(f"{key}: {name} has no weights, it learns by {spec(name).learns_by}; leave it out")


def _outline(
    name: str, options: Mapping[str, Any], *, num_classes: int = _OUTLINE_CLASSES, in_channels: int = 3
) -> nn.Module:
    """The model without its numbers: modules, names and shapes alone."""
    with torch.device("meta"):
        model: nn.Module = spec(name).build(num_classes=num_classes, in_channels=in_channels, **complete(name, options))
    return model


def _receiver(
    name: str,
    options: Mapping[str, Any],
    model: nn.Module,
    num_classes: int = _OUTLINE_CLASSES,
    in_channels: int = 3,
) -> Receiver:
    """The model with what must be known of it to give it weights from outside.

    Raises InputError on one that has none.
    """
    found = spec(name)
    _require_descent(name, "pretrained")
    more = _outline(name, options, num_classes=num_classes + 1, in_channels=in_channels).state_dict()
    if found.released is not None:
        builders = found.released(complete(name, options))
    else:
        builders = (name,) if name in torchvision.models.list_models() else ()
    class_keys = frozenset(key for key, tensor in model.state_dict().items() if tensor.shape != more[key].shape)
    return Receiver(spec=found, model=model, builders=builders, class_keys=class_keys.union(found.heads))
