"""Monte Carlo dropout: moments against a slow obvious version, one answer a seed, a model left as it was found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from segpipe.refine.dropout_sampling import sampled_probabilities

IMAGES = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def bayesian() -> nn.Module:
    torch.manual_seed(0)
    return models.create("bayesian_segnet", 4, backbone="vgg16_bn_slim")


class Coin(nn.Module):
    """Says one class or the other, evenly but for what dropout takes away: probabilities are known in advance."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        kept = self.dropout(torch.ones_like(images_NCHW[:, :1]))  # 0 or 2
        return DenseOutput(scores_NKhw=torch.cat((kept * 50, torch.full_like(kept, 50.0)), dim=1))


def test_mean_and_variance_are_those_of_the_samples() -> None:
    model, passes = bayesian().eval(), 7
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(11)
        samples = torch.stack([model(IMAGES).logits_NKHW.softmax(1) for _ in range(passes)])
    found = sampled_probabilities(model, IMAGES, passes=passes, seed=11)
    torch.testing.assert_close(found.mean_NKHW, samples.mean(0))
    torch.testing.assert_close(found.variance_NKHW, samples.var(0, correction=0), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.mean_NKHW.sum(1), torch.ones(2, 20, 24))
    assert torch.equal(found.uncertainty_NHW, found.variance_NKHW.mean(1))
    assert found.variance_NKHW.max() > 0


def test_a_coin_has_a_half_and_a_quarter() -> None:
    found = sampled_probabilities(Coin(), IMAGES, passes=400, seed=0)
    assert float(found.mean_NKHW.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.variance_NKHW.mean()) == pytest.approx(0.25, abs=0.01)
    assert float(found.variance_NKHW.max()) <= 0.25 + 1e-6


def test_the_seed_alone_decides_and_torchs_state_is_left_alone() -> None:
    model = bayesian()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled_probabilities(model, IMAGES, passes=3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = sampled_probabilities(model, IMAGES, passes=3, seed=5)
    other = sampled_probabilities(model, IMAGES, passes=3, seed=6)
    assert torch.equal(first.mean_NKHW, again.mean_NKHW)
    assert torch.equal(first.variance_NKHW, again.variance_NKHW)
    assert not torch.equal(first.mean_NKHW, other.mean_NKHW)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    """Modes of all modules, a mixed one too, and the running statistics; also where a pass fails."""
    model = bayesian().train(training)
    model.classifier.train(not training)
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    sampled_probabilities(model, IMAGES, passes=2, seed=0)
    with pytest.raises(RuntimeError):
        sampled_probabilities(model, torch.zeros(1, 7, 8, 8), passes=2, seed=0)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_whose_stride_changes_with_its_mode_trains_on_at_its_own() -> None:
    torch.manual_seed(0)
    model = models.create("deeplab_v3", 3, backbone="resnet18", channels=16, evaluation_stride=8).train()
    strides = [module.stride for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    sampled_probabilities(model, IMAGES[:1], passes=1, seed=0)
    assert [module.stride for module in model.modules() if isinstance(module, torch.nn.Conv2d)] == strides
    assert model.training


def test_one_logit_is_of_two_classes() -> None:
    torch.manual_seed(0)
    model = models.create("segnet_basic", 1, width=4)
    model.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), model.classifier)
    found = sampled_probabilities(model, IMAGES, passes=4, seed=0)
    assert found.mean_NKHW.shape[1] == 2
    torch.testing.assert_close(found.mean_NKHW.sum(1), torch.ones_like(found.mean_NKHW[:, 0]))
    assert float(found.uncertainty_NHW.max()) > 0


def test_more_passes_settle_down() -> None:
    model = bayesian()
    means = [sampled_probabilities(model, IMAGES[:1], passes=30, seed=seed).mean_NKHW for seed in (1, 2)]
    single = [sampled_probabilities(model, IMAGES[:1], passes=1, seed=seed) for seed in (1, 2)]
    assert (means[0] - means[1]).abs().mean() < 0.5 * (single[0].mean_NKHW - single[1].mean_NKHW).abs().mean()
    assert not single[0].variance_NKHW.any()


@pytest.mark.parametrize("passes", [0, -1, 1.5, True])
def test_passes_are_a_whole_number(passes: object) -> None:
    with pytest.raises(InputError, match=rf"passes: expected a whole number of at least 1, found {passes}"):
        sampled_probabilities(bayesian(), IMAGES, passes=passes, seed=0)


def test_a_model_without_dropout_is_refused() -> None:
    for model in (models.create("segnet_basic", 2, width=2), models.create("bayesian_segnet", 2, dropout=0.0)):
        with pytest.raises(InputError, match="SegNet: has no dropout, so that all passes would say the same"):
            sampled_probabilities(model, IMAGES, passes=2, seed=0)
