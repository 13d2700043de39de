"""A semantic model asked several times with dropout on: its mean, how unsure it is, and that an image alone decides."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from segpipe import models
from segpipe.config import InferenceConfig
from segpipe.data.batch import Batch, normalise
from segpipe.errors import InputError
from segpipe.refine import dense_crf
from segpipe.refine.dropout_sampling import sampled_pass
from segpipe.tasks import views
from segpipe.tasks.semantic import SemanticOps
from segpipe.tasks.views import look, probabilities
from segpipe.types import CrfSettings, Inference, Window
from tests.fixtures.nearest_colour import K, bundle, painted
from tests.fixtures.small import CLASSES, IGNORE, ONE_VIEW, small_run

SAMPLED = replace(ONE_VIEW, samples=3)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return models.create("bayesian_segnet", K, backbone="vgg16_bn_slim").eval()


def noise(number: int, height: int = 20, width: int = 26) -> Batch:
    draw = torch.Generator().manual_seed(5)
    return painted(torch.randint(0, K, (number, height, width), generator=draw))


def part(batch: Batch, *places: int) -> Batch:
    """Some images of a batch, in another order, under names of their own."""
    return replace(
        batch,
        images_N3HW=batch.images_N3HW[list(places)],
        labels_NHW=None,
        sample_ids=tuple(f"else/{place}" for place in places),
        original_sizes=tuple(batch.original_sizes[place] for place in places),
    )


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The logits of every pass that is made, in order: those of an image as large as its scores."""
    passes: list[Tensor] = []

    def record(model: nn.Module, images_NCHW: Tensor, *, seeds: list[int]) -> Tensor:
        scores = sampled_pass(model, images_NCHW, seeds=seeds)
        passes.append(scores.clone())
        return scores

    monkeypatch.setattr(views, "sampled_pass", record)
    return passes


@torch.inference_mode()
@pytest.mark.parametrize("mirror", [False, True])
def test_the_mean_decides_and_the_variance_says_how_surely(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    """Against the definition, of the logits of all passes."""
    passes, batch = recorded(monkeypatch), noise(1)
    ids_NHW, uncertainty_NHW, *_ = look(network, batch, bundle(inference=replace(SAMPLED, mirror=mirror)))
    assert len(passes) == 3 * (1 + mirror)
    turned = [*passes[:3], *(logits.flip(-1) for logits in passes[3:])]
    said_TKHW = torch.cat(turned).double().softmax(1)
    best_two = said_TKHW.mean(0).topk(2, dim=0).values
    clear_HW = best_two[0] - best_two[1] > 1e-5
    assert torch.equal(ids_NHW[0][clear_HW].long(), said_TKHW.mean(0).argmax(0)[clear_HW])
    assert uncertainty_NHW is not None
    assert uncertainty_NHW.dtype == torch.float32
    expected_HW = said_TKHW.var(0, correction=0).mean(0).float()
    torch.testing.assert_close(uncertainty_NHW[0], expected_HW, rtol=1e-4, atol=1e-8)
    assert 0 < uncertainty_NHW.max() <= 0.25
    assert len({float(logits.sum()) for logits in passes}) == len(passes), "each pass drops other values"


@torch.inference_mode()
@pytest.mark.parametrize(
    "inference",
    [
        SAMPLED,
        replace(SAMPLED, scales=(0.5, 1.0), mirror=True),
        replace(SAMPLED, window=Window(size=(16, 16), overlap=0.5)),
    ],
    ids=["one view", "views", "windows"],
)
def test_an_image_is_told_the_same_whatever_is_beside_it(network: nn.Module, inference: Inference) -> None:
    """So no dealing of batches to workers changes an answer, and a served one is that of the evaluation."""
    batch, description = noise(3), bundle(inference=inference)
    ids_NHW, uncertainty_NHW, *_ = look(network, batch, description)
    assert uncertainty_NHW is not None
    torch.manual_seed(99)
    for places in ([2, 0], [1]):
        found_NHW, unsure_NHW, *_ = look(network, part(batch, *places), description)
        assert torch.equal(found_NHW, ids_NHW[places])
        assert unsure_NHW is not None
        assert torch.equal(unsure_NHW, uncertainty_NHW[places])


@torch.inference_mode()
def test_windows_are_drawn_for_each_on_its_own(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that repeats itself shows every window the same: only what is dropped differs."""
    batch = painted(torch.arange(K).repeat(8)[None, None].expand(1, 16, 8 * K))
    passes = recorded(monkeypatch)
    look(network, batch, bundle(inference=replace(SAMPLED, window=Window(size=(16, 2 * K), overlap=0.0))))
    assert len(passes) == 3 * 4
    assert len({float(logits.sum()) for logits in passes}) == len(passes)


@torch.inference_mode()
def test_bands_of_rows_say_what_the_whole_says(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise(2, 40, 26)
    windowed = bundle(0.8, inference=replace(SAMPLED, mirror=True, window=Window(size=(16, 16), overlap=0.5)))
    ids_NHW, uncertainty_NHW, *_ = look(network, batch, windowed)
    monkeypatch.setattr(views, "NUMBERS_AT_ONCE", 2 * K * 26 * 7)  # seven rows at once
    found_NHW, unsure_NHW, *_ = look(network, batch, windowed)
    assert uncertainty_NHW is not None
    assert unsure_NHW is not None
    torch.testing.assert_close(unsure_NHW, uncertainty_NHW, rtol=1e-4, atol=1e-7)
    assert (found_NHW != ids_NHW).float().mean() < 0.01, "rows are interpolated in other parts"


@torch.inference_mode()
def test_a_crf_refines_the_mean_of_the_samples(network: nn.Module) -> None:
    batch, crf = noise(1), CrfSettings(iterations=2, bilateral=(10.0, 40.0, 4.0))
    given_NKHW = probabilities(network, batch, bundle(inference=SAMPLED))
    torch.testing.assert_close(given_NKHW.sum(1), torch.ones(1, 20, 26))
    ids_NHW, uncertainty_NHW, *_ = look(network, batch, bundle(inference=replace(SAMPLED, crf=crf)))
    image_HW3 = batch.images_N3HW[0].permute(1, 2, 0)
    refined_KHW = dense_crf(image_HW3, given_NKHW[0], iterations=2, bilateral=(10.0, 40.0, 4.0))
    assert torch.equal(ids_NHW[0].long(), torch.as_tensor(refined_KHW).argmax(0))
    unsure_NHW = look(network, batch, bundle(inference=SAMPLED))[1]
    assert unsure_NHW is not None
    assert uncertainty_NHW is not None
    assert torch.equal(uncertainty_NHW, unsure_NHW), "it is of what the model says"


def test_one_logit_is_of_two_classes() -> None:
    torch.manual_seed(0)
    model = models.create("bayesian_segnet", 1, backbone="vgg16_bn_slim").eval()
    two = replace(bundle(classes=CLASSES[:2], inference=SAMPLED), sigmoid=True)
    (found,) = SemanticOps(two.classes, IGNORE).predict(model, part(noise(1), 0), two)
    assert set(found.ids_HW.ravel().tolist()) <= {0, 1}
    assert found.uncertainty_HW is not None
    assert found.uncertainty_HW.shape == found.ids_HW.shape == (20, 26)
    assert found.uncertainty_HW.max() > 0


def test_predictions_carry_it_only_where_samples_are_asked_for(network: nn.Module) -> None:
    ops, batch = SemanticOps(CLASSES, IGNORE), noise(2)
    assert [each.uncertainty_HW for each in ops.predict(network, batch, bundle())] == [None, None]
    with torch.inference_mode():
        found = ops.predict(network, batch, bundle(inference=SAMPLED))
    assert [each.uncertainty_HW is None for each in found] == [False, False]
    expected = torch.inference_mode()(network)(normalise(batch.images_N3HW)).logits_NKHW.argmax(1)
    plain = ops.predict(network, batch, bundle())
    assert all((each.ids_HW == ids.numpy()).all() for each, ids in zip(plain, expected, strict=True))


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("unet", {}, "unet: train: inference.samples is 4: it has no dropout, so that all passes would say the same;"),
        ("bayesian_segnet", {"dropout": 0.0}, "would say the same, as its option dropout is 0; leave it out"),
        ("kmeans", {}, "kmeans: train: inference.samples is 4: it has no dropout"),
        ("mask2former", {}, "inference.samples is 4: the mean is of class probabilities, and what queries say"),
    ],
)
def test_it_is_refused_where_it_cannot_be(arch: str, options: dict[str, float], message: str) -> None:
    run = small_run(inference=InferenceConfig(samples=4)).model_copy(update={"arch": arch, "options": options})
    with pytest.raises(InputError, match=message):
        SemanticOps.check_run(run, num_keypoints=None, is_counted=False, where="x")


@pytest.mark.parametrize("arch", ["bayesian_segnet", "fc_densenet56", "deeplab_v3", "segformer_b0"])
def test_it_is_taken_where_a_model_drops_values(arch: str) -> None:
    run = small_run(inference=InferenceConfig(samples=4)).model_copy(update={"arch": arch, "options": {}})
    SemanticOps.check_run(run, num_keypoints=None, is_counted=False, where="x")
