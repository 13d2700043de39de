"""How a semantic model looks: at the image's own size, from several views, refined by a CRF, of one logit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import models
from segpipe.config import CrfConfig, InferenceConfig
from segpipe.data.batch import normalise
from segpipe.errors import InputError, NonFiniteError
from segpipe.models import DenseOutput
from segpipe.refine import dense_crf
from segpipe.tasks import views
from segpipe.tasks.semantic import SemanticOps
from segpipe.tasks.views import probabilities
from segpipe.types import ClassInfo, CrfSettings, Inference
from tests.fixtures.nearest_colour import K, NearestColour, bundle, halves, painted, predicted
from tests.fixtures.small import CLASSES, IGNORE, ONE_VIEW, OPTIONS, small_run


@pytest.mark.parametrize("size", [(12, 30), (13, 31), (1, 3)])
@pytest.mark.parametrize("input_scale", [1.0, 0.5, 0.8, 2.0])
def test_predictions_follow_the_image_at_its_own_size(size: tuple[int, int], input_scale: float) -> None:
    labels_NHW, model = halves(*size), NearestColour()
    predictions = predicted(model, painted(labels_NHW), bundle(input_scale))
    inner = tuple(max(1, round(side * input_scale)) for side in size)
    assert model.seen == [(2, 3, *inner)]
    assert predictions.dtype == torch.uint8
    assert tuple(predictions.shape) == (2, *size)
    wrong = (predictions != labels_NHW).sum(dim=2).amax().item()
    # Between two colours lies a third: at a border, one column on either side may be another class once resized.
    assert wrong <= (0 if input_scale == 1.0 else 4)
    if size[1] >= 30:
        middles = [size[1] * (2 * k + 1) // (2 * K) for k in range(K)]
        assert predictions[0][:, middles].unique(dim=0).tolist() == [[0, 1, 2]]
        assert predictions[1][:, middles].unique(dim=0).tolist() == [[2, 1, 0]]


def test_logits_are_resized_before_the_arg_max() -> None:
    """Resizing class ids instead would give blocks; the border must lie where the interpolated logits cross."""

    class TwoCells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parameter = nn.Parameter(torch.zeros(()))

        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_NKHW = torch.tensor([[[[3.0, 0.0]], [[0.0, 1.0]], [[-9.0, -9.0]]]])
            assert images_NCHW.shape[-2:] == (1, 2)
            return DenseOutput(scores_NKhw=logits_NKHW)

    batch = painted(torch.zeros(1, 2, 4, dtype=torch.long))
    prediction = predicted(TwoCells(), batch, bundle(0.5))[0]
    logits = functional.interpolate(
        TwoCells()(torch.zeros(1, 3, 1, 2)).logits_NKHW, size=(2, 4), mode="bilinear", align_corners=False
    )
    assert prediction.tolist() == logits[0].argmax(0).tolist() == [[0, 0, 0, 1]] * 2


def test_several_views_are_averaged_as_probabilities_each_the_right_way_round() -> None:
    """Against the definition: softmax of each view's logits, resized and mirrored back, summed in float64."""
    torch.manual_seed(0)
    network = models.create("unet", K, **OPTIONS["unet"]).eval()
    draw = torch.Generator().manual_seed(1)
    labels_NHW = torch.randint(0, K, (2, 33, 47), generator=draw)
    batch = painted(labels_NHW)
    inference = Inference(scales=(0.5, 1.0, 1.5), mirror=True)
    with torch.inference_mode():
        found = predicted(network, batch, bundle(0.8, inference=inference))
        total_NKHW = torch.zeros(2, K, 33, 47, dtype=torch.float64)
        for height, width in ((13, 19), (26, 38), (40, 56)):
            small = functional.interpolate(
                batch.images_N3HW.float(), size=(height, width), mode="bilinear", antialias=True
            )
            for axes in ((), (3,)):
                logits_NKhw = network(normalise(small.flip(axes))).logits_NKHW.flip(axes)
                logits_NKHW = functional.interpolate(logits_NKhw, size=(33, 47), mode="bilinear", align_corners=False)
                total_NKHW += logits_NKHW.double().softmax(1)
    best_two = total_NKHW.topk(2, dim=1).values
    clear = best_two[:, 0] - best_two[:, 1] > 1e-4
    assert clear.float().mean() > 0.95
    assert torch.equal(found[clear].long(), total_NKHW.argmax(1)[clear])


@pytest.mark.parametrize("inference", [ONE_VIEW, Inference(scales=(0.5, 1.0), mirror=True)])
@pytest.mark.parametrize("input_scale", [1.0, 0.7])
def test_classes_are_chosen_band_by_band_as_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, inference: Inference, input_scale: float
) -> None:
    class OfCells(NearestColour):
        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            cells = super().forward(functional.avg_pool2d(images_NCHW, 3, ceil_mode=True)).scores_NKhw
            return DenseOutput(scores_NKhw=cells, size=(images_NCHW.shape[-2], images_NCHW.shape[-1]))

    network = OfCells()
    batch = painted(halves(40, 57))
    sizes: list[tuple[int, ...]] = []
    choose = views.first_maximum
    monkeypatch.setattr(views, "first_maximum", lambda scores: (sizes.append(tuple(scores.shape)), choose(scores))[1])
    with torch.inference_mode():
        whole = predicted(network, batch, bundle(input_scale, inference=inference))
        assert sizes == [(2, K, 40, 57)]
        monkeypatch.setattr(views, "NUMBERS_AT_ONCE", 7 * 2 * K * 57)
        assert torch.equal(predicted(network, batch, bundle(input_scale, inference=inference)), whole)
    assert sizes[1:] == [(2, K, rows, 57) for rows in (7, 7, 7, 7, 7, 5)]
    assert len(whole.unique()) == K


def test_a_model_without_a_sense_of_left_and_right_gains_one() -> None:
    """A model that is right on the left half of an image only is right everywhere with its mirror image beside it."""

    class LeftHalf(NearestColour):
        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_NKHW = super().forward(images_NCHW).logits_NKHW
            unsure = torch.arange(logits_NKHW.shape[-1]) >= logits_NKHW.shape[-1] // 2
            return DenseOutput(scores_NKhw=logits_NKHW.masked_fill(unsure, 0.0))

    labels_NHW = halves(4, 30)
    batch = painted(labels_NHW)
    alone = predicted(LeftHalf(), batch, bundle())
    both = predicted(LeftHalf(), batch, bundle(inference=Inference(scales=(1.0,), mirror=True)))
    assert not torch.equal(alone.long(), labels_NHW)
    assert torch.equal(both.long(), labels_NHW)


def test_a_crf_refines_the_mean_of_the_views_at_the_images_own_size() -> None:
    """Against its parts: the probabilities of each view, averaged, and one image after the other through the field."""
    network = NearestColour()
    network.scale.data.fill_(0.03)  # unsure
    batch = painted(torch.randint(0, K, (2, 33, 47), generator=torch.Generator().manual_seed(1)))
    settings = CrfSettings(iterations=3, gaussian=(2.0, 9.0), bilateral=(20.0, 30.0, 5.0))
    for scales, input_scale in (((1.0,), 1.0), ((0.5, 1.0), 0.8)):
        inference = Inference(scales=scales, mirror=False)
        views = [bundle(input_scale * scale) for scale in scales]
        with torch.inference_mode():
            given_NKHW = torch.stack([probabilities(network, batch, view) for view in views]).mean(0)
            plain = predicted(network, batch, bundle(input_scale, inference=inference))
            found = predicted(network, batch, bundle(input_scale, inference=replace(inference, crf=settings)))
        for image_3HW, given_KHW, found_HW in zip(batch.images_N3HW, given_NKHW, found, strict=True):
            expected_KHW = dense_crf(
                image_3HW.permute(1, 2, 0), given_KHW, iterations=3, gaussian=(2.0, 9.0), bilateral=(20.0, 30.0, 5.0)
            )
            best_two = torch.as_tensor(expected_KHW).topk(2, dim=0).values
            clear = best_two[0] - best_two[1] > 1e-4
            assert torch.equal(found_HW[clear].long(), torch.as_tensor(expected_KHW).argmax(0)[clear])
        assert not torch.equal(found, plain)


def test_probabilities_of_a_model_that_has_diverged_are_told_as_such() -> None:
    model, batch = NearestColour(), painted(halves(8, 9))
    model.scale.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="class probabilities are not finite; it has diverged"):
        predicted(model, batch, bundle(inference=replace(ONE_VIEW, crf=CrfSettings())))


def test_a_crf_on_queries_is_refused() -> None:
    run = small_run(inference=InferenceConfig(crf=CrfConfig())).model_copy(update={"arch": "mask2former"})
    with pytest.raises(InputError, match=r"mask2former: train: inference.crf is set: .*not sum to 1; leave it out"):
        SemanticOps.check_run(run, num_keypoints=None, is_counted=False, where="x")


def test_predicting_changes_neither_model_nor_batch() -> None:
    model, batch = NearestColour(), painted(halves(8, 9))
    weights, images = {k: v.clone() for k, v in model.state_dict().items()}, batch.images_N3HW.clone()
    for input_scale, inference in ((1.0, ONE_VIEW), (0.5, Inference(scales=(1.0, 2.0), mirror=True))):
        SemanticOps(CLASSES, IGNORE).predict(model, batch, bundle(input_scale, inference=inference))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert torch.equal(batch.images_N3HW, images)
    assert model.training, "the mode is the caller's"


def test_more_than_255_classes_come_as_int32() -> None:
    classes = tuple(ClassInfo(name=f"c{k}", colour=(k % 256, k // 256 * 90, 40)) for k in range(300))
    labels_NHW = torch.tensor([[[0, 254, 255, 256, 299]]])
    batch = painted(labels_NHW, classes)
    prediction = predicted(NearestColour(classes), batch, bundle(1.0, classes))[0]
    assert prediction.dtype == torch.int32
    assert prediction.tolist() == [[0, 254, 255, 256, 299]]


def test_one_logit_is_class_one_above_a_half_in_every_way_of_looking() -> None:
    """Against the same network with two outputs, of which the first says 0."""

    class Both(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_N1HW = self.network(images_NCHW).logits_NKHW
            return DenseOutput(scores_NKhw=torch.cat([torch.zeros_like(logits_N1HW), logits_N1HW], dim=1))

    torch.manual_seed(0)
    network = models.create("unet", 1, **OPTIONS["unet"]).eval()
    batch = painted(halves(33, 47))
    with torch.inference_mode():
        middle = float(network(normalise(batch.images_N3HW)).logits_NKHW.median())
        network.head.bias -= middle
        logits_NHW = network(normalise(batch.images_N3HW)).logits_NKHW[:, 0]
        for inference in (ONE_VIEW, Inference(scales=(0.5, 1.0), mirror=True)):
            two = bundle(classes=CLASSES[:2], inference=inference)
            found = predicted(network, batch, replace(two, sigmoid=True))
            assert torch.equal(found, predicted(Both(network), batch, two))
            assert set(found.unique().tolist()) == {0, 1}
            if inference is ONE_VIEW:
                clear = logits_NHW.abs() > 1e-4
                assert torch.equal(found[clear] == 1, logits_NHW[clear].sigmoid() > 0.5)
