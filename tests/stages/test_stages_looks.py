"""All that a recipe can ask of a look at once: windows, views, a CRF and the mean of several models, in one run.

Each of these has its own tests; here they meet, against their definitions written out once more.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import checkpoint, metrics, serving
from segpipe.config import Recipe
from segpipe.data.batch import normalise
from segpipe.data.decode import decode
from segpipe.evaluate import Share
from segpipe.refine import dense_crf
from segpipe.refine.tiles import gaussian_spans
from segpipe.shards import open_dataset
from segpipe.stages.identity import resolve
from segpipe.stages.train import train
from segpipe.types import Inference, ModelBundle, Sample
from tests.fixtures.bundles import parts_of, report_of
from tests.fixtures.small import CLASSES, IGNORE, publish_small

# What a model that counts cannot do: a window is no whole image, and neither is its mirror image the one it counted.
WHOLE = {"mirror": False, "window": None}
DOCUMENT: dict[str, Any] = {
    "name": "looks",
    "dataset": {"name": "shapes", "format": "scenes"},
    # They learn in a second to tell these classes apart.
    "architectures": [
        {"arch": "segnet_basic", "label": "narrow", "options": {"width": 8}},
        {"arch": "segnet_basic", "label": "wide", "options": {"width": 16}},
        {"ensemble": ["narrow", "wide"], "label": "networks"},
        {"arch": "segnet_basic", "label": "whole", "options": {"width": 8}, "train": {"inference": WHOLE}},
        {"arch": "kmeans", "train": {"inference": WHOLE}},
        {"ensemble": ["whole", "kmeans"], "label": "mixed"},
    ],
    "train": {
        "epochs": 6,
        "evaluate_every": 6,
        "batch_size": 4,
        "learning_rate": 0.005,
        "augment": {"crop": [32, 32]},
        "inference": {
            "scales": [0.9, 1.25],
            "mirror": True,
            "window": {"size": [24, 32], "overlap": 0.25},
            "crf": {"iterations": 2, "gaussian": [2.0, 1.0], "bilateral": [10.0, 30.0, 1.0]},
        },
    },
}
MEMBERS = {"networks": ("narrow", "wide"), "mixed": ("whole", "kmeans")}


@dataclass(frozen=True)
class Night:
    data: str
    version: str
    models: dict[str, str]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder: Path = tmp_path_factory.mktemp("looks")
    version = publish_small(f"{folder}/data", train=8, val=2, test=4)
    recipe = Recipe.parse(DOCUMENT, origin="looks.yaml")
    found = {}
    for run in recipe.run_configs():
        result = train(
            resolve(run),
            data=f"{folder}/data",
            version=version,
            to=f"{folder}/runs",
            resources=recipe.resources,
            runtime="local",
        )
        found[run.label] = result.model_uri
    return Night(f"{folder}/data", version, found)


def said(members: list[nn.Module], images_N3hw: Tensor, inference: Inference) -> Tensor:
    """(N, K, h, w): the mean of the members' logits, window by window where there are some."""
    h, w = images_N3hw.shape[-2:]
    window = inference.window
    rows, columns = (
        gaussian_spans(length, window.size[axis] if window else length, window.overlap if window else 0.0)
        for axis, length in enumerate((h, w))
    )
    blended_NKhw = torch.zeros(len(images_N3hw), len(CLASSES), h, w)
    for row in rows:
        for column in columns:
            seen_N3hw = images_N3hw[..., row.start : row.stop, column.start : column.stop]
            mean_NKhw = torch.stack([member(seen_N3hw).logits_NKHW.float() for member in members]).mean(0)
            weight_hw = row.weight[:, None] * column.weight
            blended_NKhw[..., row.start : row.stop, column.start : column.stop] += mean_NKhw * weight_hw
    return blended_NKhw


@torch.inference_mode()
def defined(members: list[nn.Module], sample: Sample, bundle: ModelBundle) -> Tensor:
    """(K, H, W) probabilities of an image: views, each resized and mirrored back, their mean, and the CRF on it."""
    image_3HW, inference = decode(sample).image_3HW, bundle.inference
    total_KHW = torch.zeros(len(CLASSES), sample.height, sample.width)
    views = [(scale, mirrored) for scale in inference.scales for mirrored in {False, inference.mirror}]
    for scale, mirrored in views:
        size = (round(sample.height * scale), round(sample.width * scale))
        small_13hw = functional.interpolate(image_3HW[None].float(), size=size, mode="bilinear", antialias=True)
        # What a window shows is mirrored, and not where it lies.
        turned = [_Mirrored(member) for member in members] if mirrored else members
        logits_1Khw = said(turned, normalise(small_13hw), inference)
        logits_1KHW = functional.interpolate(
            logits_1Khw, size=(sample.height, sample.width), mode="bilinear", align_corners=False
        )
        total_KHW += logits_1KHW[0].softmax(0)
    assert inference.crf is not None
    crf = inference.crf
    refined_KHW = dense_crf(
        image_3HW.permute(1, 2, 0),
        total_KHW / len(views),
        iterations=crf.iterations,
        gaussian=crf.gaussian,
        bilateral=crf.bilateral,
        method="exact",
    )
    return torch.as_tensor(refined_KHW)


class _Mirrored(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_NCHW: Tensor) -> Any:
        output = self.model(images_NCHW.flip(-1))
        return replace(output, scores_NKhw=output.scores_NKhw.flip(-1))


@pytest.mark.parametrize("label", MEMBERS)
def test_it_is_evaluated_as_defined_by_any_number_of_workers_and_served_alike(night: Night, label: str) -> None:
    dataset = open_dataset(night.data, version=night.version)
    ids = dataset.sample_ids("test")
    share = Share(
        checkpoint=night.models[label],
        data=night.data,
        version=night.version,
        split="test",
        batch_size=2,
        rank=0,
        world_size=1,
        keep=tuple(ids),
    )
    alone = parts_of(share, 1)
    assert report_of(share, parts_of(share, 3)) == report_of(share, alone)

    members = [checkpoint.load_model(night.models[member])[0] for member in MEMBERS[label]]
    bundle = checkpoint.load_bundle(night.models[label])
    assert (bundle.arch, bundle.inference.window is None) == ("ensemble", label == "mixed")
    predictor = serving._load_pyfunc(night.models[label])
    confusion_KK, clear_share, classes = np.zeros((3, 3), np.int64), [], set[int]()
    for sample in dataset.samples("test"):
        found_HW = alone[0].predictions[sample.sample_id].ids_HW
        probabilities_KHW = defined(members, sample, bundle)
        best_two = probabilities_KHW.topk(2, dim=0).values
        clear_HW = (best_two[0] - best_two[1] > 1e-3).numpy()
        np.testing.assert_array_equal(found_HW[clear_HW], probabilities_KHW.argmax(0).numpy()[clear_HW])
        clear_share.append(clear_HW.mean())
        classes |= set(found_HW.ravel().tolist())
        labels_HW = np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)
        confusion_KK += np.asarray(metrics.confusion_matrix(found_HW, labels_HW, 3, ignore_index=IGNORE))
        image_HW3 = decode(sample).image_3HW.permute(1, 2, 0).numpy()
        (served_HW,) = predictor.predict(image_HW3[None])
        assert np.mean(served_HW != found_HW) < 0.005, "a batch of one rounds in another way"
    assert min(clear_share) > 0.9
    assert len(classes) > 1
    assert report_of(share, alone).confusion == tuple(map(tuple, confusion_KK.tolist()))


def test_a_baseline_stands_beside_networks_that_look_in_more_ways(night: Night) -> None:
    looks = {label: checkpoint.load_bundle(uri).inference for label, uri in night.models.items()}
    assert looks["narrow"].window is not None
    assert looks["narrow"].mirror
    assert looks["kmeans"] == replace(looks["narrow"], mirror=False, window=None)
    assert looks["mixed"] == looks["kmeans"]
    assert looks["networks"] == looks["narrow"] == looks["wide"]
