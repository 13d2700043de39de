"""Monte Carlo dropout: moments against a slow obvious version, one answer a seed, a model left as it was found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from segpipe.refine.dropout_sampling import Moments, moments, sampled_pass

IMAGES = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))


def bayesian() -> nn.Module:
    torch.manual_seed(0)
    return models.create("bayesian_segnet", 4, backbone="vgg16_bn_slim")


def asked(model: nn.Module, seed: int, images_NCHW: Tensor = IMAGES) -> Tensor:
    return sampled_pass(model, images_NCHW, seeds=[seed] * len(images_NCHW)).softmax(1)


def sampled(model: nn.Module, passes: int, seed: int = 0) -> Moments:
    (found,) = moments([asked(model, 1000 * seed + number)] for number in range(passes))
    return found


class Coin(nn.Module):
    """Says one class or the other, evenly but for what dropout takes away: probabilities are known in advance."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        kept = self.dropout(torch.ones_like(images_NCHW[:, :1]))  # 0 or 2
        return DenseOutput(scores_NKhw=torch.cat((kept * 50, torch.full_like(kept, 50.0)), dim=1))


def test_a_pass_is_the_models_with_dropout_on_and_all_else_in_evaluation() -> None:
    model = bayesian().eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    expected = []
    for number, image_CHW in enumerate(IMAGES):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(11 + number)
            expected.append(model(image_CHW[None]).logits_NKHW)
    model.eval()
    found = sampled_pass(model, IMAGES, seeds=[11, 12])
    assert torch.equal(found, torch.cat(expected))
    assert not torch.equal(model(IMAGES).logits_NKHW, found)


def test_modes_change_once_however_many_images_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, changes = bayesian(), list[bool]()
    monkeypatch.setattr(model, "train", lambda mode=True: changes.append(mode) or model)  # `eval` calls it too
    for images_NCHW in (IMAGES[:1], IMAGES):
        changes.clear()
        asked(model, 3, images_NCHW)
        assert changes == [False, True], "into evaluation and back"


def test_each_image_has_a_seed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        sampled_pass(bayesian(), IMAGES, seeds=[1])


def test_mean_and_variance_are_those_of_the_passes() -> None:
    passes = torch.rand(7, 2, 3, 4, generator=torch.Generator().manual_seed(0)) * 1e-3 + 0.5
    kept = passes.clone()
    found = moments(each.split((2, 1), dim=1) for each in passes)
    mean, variance = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    torch.testing.assert_close(mean, passes.double().mean(0).float())
    torch.testing.assert_close(variance, passes.double().var(0, correction=0).float(), rtol=1e-3, atol=1e-12)
    assert torch.equal(passes, kept), "what was given is left alone"
    assert not moments([passes[:1]])[0].variance.any()


def test_a_coin_has_a_half_and_a_quarter() -> None:
    mean_NKHW, variance_NKHW = sampled(Coin(), 400)
    assert float(mean_NKHW.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(variance_NKHW.mean()) == pytest.approx(0.25, abs=0.01)
    assert float(variance_NKHW.max()) <= 0.25 + 1e-6


def test_the_seed_alone_decides_and_torchs_state_is_left_alone() -> None:
    model = bayesian()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = asked(model, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(asked(model, 5), first)
    assert not torch.equal(asked(model, 6), first)


def test_threads_that_ask_one_model_at_once_hear_what_each_would_alone() -> None:
    """As a server's do: modes and the random state are shared by all of them."""
    model = bayesian().eval()
    alone = [asked(model, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: asked(model, seed), range(8)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    """Modes of all modules, a mixed one too, and the running statistics; also where a pass fails."""
    model = bayesian().train(training)
    model.classifier.train(not training)
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    asked(model, 0)
    with pytest.raises(RuntimeError):
        asked(model, 0, torch.zeros(1, 7, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_network_whose_stride_changes_with_its_mode_trains_on_at_its_own() -> None:
    torch.manual_seed(0)
    model = models.create("deeplab_v3", 3, backbone="resnet18", channels=16, evaluation_stride=8).train()
    strides = [module.stride for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    asked(model, 0, IMAGES[:1])
    assert [module.stride for module in model.modules() if isinstance(module, torch.nn.Conv2d)] == strides
    assert model.training


def test_more_passes_settle_down() -> None:
    model = bayesian()
    means = [sampled(model, 30, seed).mean for seed in (1, 2)]
    single = [asked(model, seed) for seed in (1, 2)]
    assert (means[0] - means[1]).abs().mean() < 0.5 * (single[0] - single[1]).abs().mean()


def test_a_model_without_dropout_is_refused() -> None:
    for model in (models.create("segnet_basic", 2, width=2), models.create("bayesian_segnet", 2, dropout=0.0)):
        with pytest.raises(InputError, match="SegNet: has no dropout, so that all passes would say the same"):
            asked(model, 0)
