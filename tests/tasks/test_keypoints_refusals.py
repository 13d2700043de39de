"""Keypoints behind the task door: what does not fit is said before any work, and what diverges when it is seen."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from segpipe.config import InferenceConfig
from segpipe.data.batch import training_inputs
from segpipe.errors import InputError, NonFiniteError
from segpipe.tasks.keypoints import KeypointsOps
from segpipe.tasks.keypoints.limits import check_places
from segpipe.types import Sample
from tests.fixtures.figures import CLASSES, IGNORE, PAIRS, figure_run
from tests.fixtures.poses import OPS, bundle, evaluated, network, samples, trained

__all__ = ["samples"]


def test_what_does_not_fit_is_said(samples: list[Sample]) -> None:
    batch = trained(samples[:1])
    images = training_inputs(batch, torch.device("cpu"))
    with pytest.raises(InputError, match=r"objects have 17 keypoints, and the model finds 5; set its option keypoints"):
        OPS.losses(network(keypoints=5, keypoint_pairs=[]), images, batch)
    with pytest.raises(InputError, match="came without objects, which this task needs"):
        OPS.losses(network(), images, dataclasses.replace(batch, objects=None))
    with pytest.raises(InputError, match="came without their stored rows"):
        OPS.measure(OPS.meter(), [], batch)
    with pytest.raises(InputError, match=r"train: inference asks for scales \[0.5, 1.0\]: "):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(inference={"scales": (0.5, 1.0)}).train)
    with pytest.raises(InputError, match=r"train: class_weights is enet: "):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(class_weights="enet").train)
    with pytest.raises(InputError, match=r"train: aux_weight is 0.1: these models have no auxiliary heads"):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(aux_weight=0.1).train)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"inference": InferenceConfig(mirror=True)}, "train.augment.flip and train.inference.mirror: "),
        ({"flip": 0.0, "inference": InferenceConfig(mirror=True)}, "train.inference.mirror: "),
        ({"flip": 0.0, "vertical_flip": 0.5}, "train.augment.vertical_flip: "),
    ],
)
def test_a_mirror_image_needs_to_know_left_from_right(keys: dict[str, Any], named: str) -> None:
    """Said before any work, and once: the model's option follows (`stages/identity.py`)."""
    inference = keys.get("inference", InferenceConfig())
    changes = {key: value for key, value in keys.items() if key != "inference"}
    unsaid = figure_run().train.augment.model_copy(update={"keypoint_pairs": None, **changes})
    with pytest.raises(InputError, match=f"^{named}in a mirror image .* say in train.augment.keypoint_pairs"):
        KeypointsOps(CLASSES, IGNORE, config=figure_run(augment=unsaid, inference=inference).train)
    for pairs in ((), PAIRS):
        said = unsaid.model_copy(update={"keypoint_pairs": pairs})
        KeypointsOps(CLASSES, IGNORE, config=figure_run(augment=said, inference=inference).train)


def test_a_model_has_a_heatmap_for_each_keypoint_of_the_data_and_no_more() -> None:
    run = figure_run()
    check_places(run, 17, where="data")
    for number in (5, 18):
        with pytest.raises(InputError, match=rf"option keypoints is 17, and objects of data have up to {number}; set"):
            check_places(run, number, where="data")
    with pytest.raises(InputError, match="data: no object has a keypoint, so there is nothing to learn"):
        check_places(run, 0, where="data")


def test_a_model_that_has_diverged_is_refused(samples: list[Sample]) -> None:
    model = network()
    nn.init.constant_(model.get_parameter("final_layer.bias"), float("nan"))
    with pytest.raises(NonFiniteError, match=rf"sample {samples[0].sample_id}: the model's heatmaps are not finite"):
        OPS.predict(model, evaluated(samples), bundle())
