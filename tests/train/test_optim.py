"""Schedules as pure functions, parameter groups, weight averaging, and an optimiser that is restored bit by bit."""

import math

import pytest
import torch
from torch import nn

from segpipe import models
from segpipe.config import TrainConfig
from segpipe.train.optim import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    schedule_factor,
    set_learning_rate,
    update_average,
)
from tests.fixtures.small import OPTIONS, small_run


def config_of(**train: object) -> TrainConfig:
    return small_run(**train).train


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range, *, total: int = 8) -> None:
    config = config_of()
    for number in numbers:
        set_learning_rate(optimizer, schedule_factor(number, total, config))
        images_NCHW = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(number))
        model(images_NCHW).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize(
    ("settings", "step", "factor"),
    [
        ({"schedule": "poly"}, 0, 1.0),
        ({"schedule": "poly"}, 50, 0.5358867312681466),
        ({"schedule": "poly"}, 99, 0.015848931924611134),
        ({"schedule": "poly"}, 100, 0.0),
        ({"schedule": "cosine"}, 0, 1.0),
        ({"schedule": "cosine"}, 25, 0.8535533905932737),
        ({"schedule": "cosine"}, 50, 0.5),
        ({"schedule": "cosine"}, 100, 0.0),
        ({"schedule": "constant"}, 0, 1.0),
        ({"schedule": "constant"}, 99, 1.0),
        ({"schedule": "poly", "warmup_steps": 10}, 0, 0.1),
        ({"schedule": "poly", "warmup_steps": 10}, 9, 1.0),
        ({"schedule": "poly", "warmup_steps": 10}, 10, 1.0),
        ({"schedule": "poly", "warmup_steps": 10}, 55, 0.5358867312681466),
        ({"schedule": "cosine", "warmup_steps": 20}, 60, 0.5),
        ({"schedule": "constant", "warmup_steps": 4}, 1, 0.5),
    ],
)
def test_schedules_at_worked_points(settings: dict[str, object], step: int, factor: float) -> None:
    assert schedule_factor(step, 100, config_of(**settings)) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("warmup_steps", [0, 7, 100])
def test_schedules_rise_then_never_rise_again_and_stay_in_range(schedule: str, warmup_steps: int) -> None:
    config = config_of(schedule=schedule, warmup_steps=warmup_steps)
    factors = [schedule_factor(step, 60, config) for step in range(80)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    rising, falling = factors[: warmup_steps + 1], factors[warmup_steps:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert factors == [schedule_factor(step, 60, config) for step in range(80)], "a function, without a memory"


def test_the_four_groups_hold_each_parameter_once_with_its_rate_and_decay() -> None:
    model = models.create("unet", 3, **OPTIONS["unet"])
    config = config_of(learning_rate=0.02, backbone_learning_rate_factor=0.1, weight_decay=0.3)
    found = {
        id(parameter): (group["base_lr"], group["weight_decay"])
        for group in build_optimizer(model, config).param_groups
        for parameter in group["params"]
    }
    names = dict(model.named_parameters())
    assert len(found) == len(names)
    for name, parameter in names.items():
        rate = 0.02 * (0.1 if name.startswith("backbone.") else 1.0)
        decay = 0.3 if parameter.ndim > 1 else 0.0
        assert found[id(parameter)] == (pytest.approx(rate), decay), name
    assert {decay for _, decay in found.values()} == {0.0, 0.3}


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    parameters = [p for group in build_optimizer(model, config_of()).param_groups for p in group["params"]]
    assert len(parameters) == len(list(model.parameters())) - 1


def test_the_optimisers_are_torchs_own_with_the_recipes_numbers() -> None:
    sgd = build_optimizer(small_model(), config_of(optimizer="sgd", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}
    assert isinstance(build_optimizer(small_model(), config_of(optimizer="adamw")), torch.optim.AdamW)


def test_the_factor_scales_every_group_and_the_heads_rate_is_told() -> None:
    model = models.create("unet", 3, **OPTIONS["unet"])
    optimizer = build_optimizer(model, config_of(learning_rate=0.02, backbone_learning_rate_factor=0.1))
    assert set_learning_rate(optimizer, 0.5) == pytest.approx(0.01)
    assert set_learning_rate(optimizer, 0.25) == pytest.approx(0.005), "of the base rate, not of the last one"
    assert sorted({round(group["lr"], 9) for group in optimizer.param_groups}) == [0.0005, 0.005]


def test_the_average_follows_its_formula() -> None:
    average, model = small_model(0), small_model(1)
    expected = [p.detach().double().clone() for p in average.parameters()]
    decay = 0.5
    for step in range(12):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        model(torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step)))
        update_average(average, model, decay, step)
        d = min(decay, (1 + step) / (10 + step))
        expected = [d * mean + (1 - d) * p.double() for mean, p in zip(expected, model.parameters(), strict=True)]
    for ours, theirs in zip(average.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach().double(), theirs, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(average.buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs), "batch statistics are copied, not averaged"


def test_the_average_of_equal_weights_is_that_weight() -> None:
    average, model = small_model(0), small_model(0)
    for step in range(5):
        update_average(average, model, 0.999, step)
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_restored_optimiser_continues_identically(optimizer: str) -> None:
    config = config_of(optimizer=optimizer)
    straight, stopped = small_model(), small_model()
    descend(straight, build_optimizer(straight, config), range(8))
    first = build_optimizer(stopped, config)
    descend(stopped, first, range(5))
    tensors = {key: tensor.clone() for key, tensor in optimizer_tensors(first).items()}
    second = build_optimizer(stopped, config)
    restore_optimizer(second, tensors)
    descend(stopped, second, range(5, 8))
    for ours, theirs in zip(straight.state_dict().values(), stopped.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_restoring_it_would_not() -> None:
    """The test above can see a difference."""
    straight, stopped = small_model(), small_model()
    descend(straight, build_optimizer(straight, config_of()), range(8))
    descend(stopped, build_optimizer(stopped, config_of()), range(5))
    descend(stopped, build_optimizer(stopped, config_of()), range(5, 8))
    assert not torch.equal(straight[0].weight, stopped[0].weight)


def test_other_tensors_beside_the_optimisers_are_ignored_and_rates_come_from_the_config() -> None:
    optimizer = build_optimizer(small_model(), config_of(learning_rate=0.5))
    restore_optimizer(optimizer, {"model/0.weight": torch.zeros(4)})
    assert optimizer.state_dict()["state"] == {}
    assert {group["base_lr"] for group in optimizer.param_groups} == {0.5}
    assert math.isclose(set_learning_rate(optimizer, 1.0), 0.5)
