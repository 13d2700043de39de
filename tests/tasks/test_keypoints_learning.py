"""Keypoints behind the task door: the loss, and what it learns of."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from segpipe.data.batch import training_inputs
from segpipe.heatmaps import gaussian_targets, inside, to_cells
from segpipe.models.spec import HeatmapOutput
from segpipe.types import Sample
from tests.fixtures.figures import figure_samples
from tests.fixtures.poses import OPS, network, samples, trained

__all__ = ["samples"]


def test_the_loss_is_the_squared_error_of_what_is_labelled(samples: list[Sample]) -> None:
    batch = trained(samples[:2])
    assert batch.objects is not None
    told: list[list[Tensor]] = []
    truths = torch.cat([o.keypoints_NP3 for o in batch.objects if o.keypoints_NP3 is not None])
    marked = (truths[..., 2] > 0).any(1)
    size, answer = (24, 16), torch.rand(int(marked.sum()), 17, 24, 16)

    def forward(images: Tensor, boxes: list[Tensor]) -> HeatmapOutput:
        told.append(boxes)
        return HeatmapOutput(heatmaps_NPhw=answer, regions_N4=torch.cat(boxes))

    loss = OPS.losses(forward, training_inputs(batch, torch.device("cpu")), batch)
    assert set(loss) == {"heatmaps"}
    ((first, second),) = told
    assert (len(first), len(second)) == tuple(len(s.keypoints) for s in samples[:2]), "the box has no keypoints"
    cells = to_cells(truths[marked][..., :2], torch.cat([first, second]), size)
    on_map = (cells > -0.5).all(-1) & (cells < torch.tensor([15.5, 23.5])).all(-1) & (truths[marked][..., 2] > 0)
    expected = functional.mse_loss(answer[on_map], gaussian_targets(cells, size)[on_map])
    torch.testing.assert_close(loss["heatmaps"], expected)


def test_a_batch_without_keypoints_has_no_loss_and_no_gradient_but_a_pass() -> None:
    sample = dataclasses.replace(next(figure_samples("train", 1)), keypoints=())
    batch, model = trained([sample, sample]), network().train()
    loss = OPS.losses(model, training_inputs(batch, torch.device("cpu")), batch)["heatmaps"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_of_a_crowd_some_are_learnt_of_and_their_own_truth_counts(samples: list[Sample]) -> None:
    batch, model = trained(samples), network(most_objects=2, jitter=0.0).train()
    images = training_inputs(batch, torch.device("cpu"))
    outputs: list[HeatmapOutput] = []

    def forward(*inputs: Any) -> HeatmapOutput:
        outputs.append(model(*inputs))
        return outputs[-1]

    chosen, losses = [], []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(OPS.losses(forward, images, batch)["heatmaps"].detach()))
        assert outputs[-1].chosen_N is not None
        chosen.append(outputs[-1].chosen_N.tolist())
    assert chosen[0] == chosen[1] != chosen[2]
    assert losses[0] == losses[1]
    assert all(len(each) == 2 and each == sorted(each) for each in chosen)
    truths = torch.cat([o.keypoints_NP3[~o.is_crowd_N] for o in batch.objects or () if o.keypoints_NP3 is not None])
    truths = truths[(truths[..., 2] > 0).any(1)][chosen[2]]
    found = outputs[-1]
    cells = to_cells(truths[..., :2], found.regions_N4, (24, 16))
    counted = (truths[..., 2] > 0) & inside(cells, (24, 16))
    expected = functional.mse_loss(found.heatmaps_NPhw[counted], gaussian_targets(cells, (24, 16))[counted])
    assert losses[2] == pytest.approx(float(expected.detach()))
