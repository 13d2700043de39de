"""Semantic segmentation behind the task door: loss, prediction at original resolution, counting, the report."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import models
from segpipe.config import CrfConfig, InferenceConfig
from segpipe.data.batch import Batch, collate, normalise, training_inputs
from segpipe.data.decode import DecodedSample
from segpipe.errors import InputError, NonFiniteError
from segpipe.losses import cross_entropy
from segpipe.models import DenseOutput
from segpipe.predictions import LabelMap
from segpipe.refine import dense_crf
from segpipe.tasks.semantic import SemanticOps
from segpipe.tasks.views import probabilities
from segpipe.types import ClassInfo, CrfSettings, Inference, ModelBundle, Split
from tests.fixtures.bundles import bundle_of
from tests.fixtures.small import CLASSES, IGNORE, ONE_VIEW, OPTIONS, small_run

K = len(CLASSES)
STATISTICS = Split(samples=4, shards=(), class_pixels=(600, 100, 300), image_pixels=(1000, 500, 750), ignored_pixels=50)


class NearestColour(nn.Module):
    """A model without a mistake: the logit of a class is the negative squared distance to its colour.

    It remembers the sizes that it was given. Its scale is a parameter, so that it has a device.
    """

    def __init__(self, classes: tuple[ClassInfo, ...] = CLASSES) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        palette_K3 = torch.tensor([info.colour for info in classes], dtype=torch.uint8)
        self.register_buffer("colours_K3", normalise(palette_K3[:, :, None, None])[:, :, 0, 0])
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images_NCHW: Tensor) -> DenseOutput:
        self.seen.append(tuple(images_NCHW.shape))
        differences = images_NCHW[:, None] - self.get_buffer("colours_K3")[None, :, :, None, None]
        return DenseOutput(logits_NKHW=-self.scale * differences.square().sum(2))


def bundle(
    input_scale: float = 1.0, classes: tuple[ClassInfo, ...] = CLASSES, inference: Inference = ONE_VIEW
) -> ModelBundle:
    return bundle_of("unet", classes, input_scale=input_scale, inference=inference, ignore_index=IGNORE)


def losses(ops: SemanticOps, output: DenseOutput, batch: Batch) -> dict[str, Tensor]:
    """The terms for a model that answers `output` to the batch's images."""
    images_N3HW = training_inputs(batch, torch.device("cpu"))

    def forward(images: Tensor) -> DenseOutput:
        assert images is images_N3HW
        return output

    return ops.losses(forward, images_N3HW, batch)


def predicted(model: nn.Module, batch: Batch, bundle: ModelBundle) -> Tensor:
    """The predictions of a batch, stacked."""
    found = SemanticOps(bundle.classes, bundle.ignore_index).predict(model, batch, bundle)
    return torch.stack([torch.from_numpy(prediction.ids_HW) for prediction in found])


def painted(labels_NHW: Tensor, classes: tuple[ClassInfo, ...] = CLASSES) -> Batch:
    """A batch whose images hold each class in its colour."""
    palette_K3 = torch.tensor([info.colour for info in classes], dtype=torch.uint8)
    return Batch(
        images_N3HW=palette_K3[labels_NHW.long()].permute(0, 3, 1, 2),
        labels_NHW=labels_NHW.long(),
        sample_ids=tuple(f"s/{n}" for n in range(len(labels_NHW))),
        original_sizes=tuple(tuple(label.shape) for label in labels_NHW),  # type: ignore[misc]
    )


def halves(height: int, width: int) -> Tensor:
    """Two images of three vertical bands."""
    bands = (torch.arange(width) * K // width).expand(height, width)
    return torch.stack([bands, bands.flip(1)])


def output_and_batch(seed: int = 0, **aux: Tensor) -> tuple[DenseOutput, Batch]:
    draw = torch.Generator().manual_seed(seed)
    labels_NHW = torch.randint(0, K, (2, 5, 6), generator=draw)
    labels_NHW[:, 1] = IGNORE
    logits_NKHW = torch.randn(2, K, 5, 6, generator=draw)
    batch = painted(labels_NHW.masked_fill(labels_NHW == IGNORE, 0))
    batch = Batch(
        images_N3HW=batch.images_N3HW,
        labels_NHW=labels_NHW,
        sample_ids=batch.sample_ids,
        original_sizes=batch.original_sizes,
    )
    return DenseOutput(logits_NKHW=logits_NKHW, aux=aux), batch


def test_a_batch_without_labels_predicts_but_neither_trains_nor_counts() -> None:
    ops = SemanticOps(CLASSES, IGNORE)
    sample = DecodedSample(sample_id="s/0", image_3HW=torch.zeros(3, 4, 5, dtype=torch.uint8), labels_HW=None)
    batch = collate([sample])
    predictions = ops.predict(NearestColour(), batch, bundle())
    assert predictions[0].ids_HW.shape == (4, 5)
    for refused in (
        lambda: losses(ops, DenseOutput(logits_NKHW=torch.zeros(1, K, 4, 5)), batch),
        lambda: ops.measure(ops.meter(), predictions, batch),
    ):
        with pytest.raises(InputError, match="samples s/0: came without a label map"):
            refused()


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
            return DenseOutput(logits_NKHW=logits_NKHW)

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


def test_a_model_without_a_sense_of_left_and_right_gains_one() -> None:
    """A model that is right on the left half of an image only is right everywhere with its mirror image beside it."""

    class LeftHalf(NearestColour):
        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_NKHW = super().forward(images_NCHW).logits_NKHW
            unsure = torch.arange(logits_NKHW.shape[-1]) >= logits_NKHW.shape[-1] // 2
            return DenseOutput(logits_NKHW=logits_NKHW.masked_fill(unsure, 0.0))

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


def test_the_loss_is_cross_entropy_over_what_is_not_ignored() -> None:
    output, batch = output_and_batch()
    terms = losses(SemanticOps(CLASSES, IGNORE, config=small_run().train, statistics=STATISTICS), output, batch)
    assert batch.labels_NHW is not None
    expected = functional.cross_entropy(output.logits_NKHW, batch.labels_NHW, ignore_index=IGNORE)
    assert set(terms) == {"main"}
    torch.testing.assert_close(terms["main"], expected)
    output.logits_NKHW[:, :, 1] = 100.0 * torch.randn(2, K, 6)
    again = losses(SemanticOps(CLASSES, IGNORE, config=small_run().train), output, batch)
    torch.testing.assert_close(again["main"], expected, msg="what a model says of ignored pixels must not matter")


def test_auxiliary_heads_are_weighted() -> None:
    first, second = torch.randn(2, K, 5, 6), torch.randn(2, K, 5, 6)
    output, batch = output_and_batch(low=first, mid=second)
    terms = losses(SemanticOps(CLASSES, IGNORE, config=small_run(aux_weight=0.25).train), output, batch)
    assert set(terms) == {"main", "low", "mid"}
    for name, logits_NKHW in (("low", first), ("mid", second)):
        torch.testing.assert_close(terms[name], 0.25 * cross_entropy(logits_NKHW, batch.labels_NHW))


def test_enet_weights_come_from_the_shares_of_the_labelled_pixels() -> None:
    expected = [1 / math.log(1.02 + share) for share in (0.6, 0.1, 0.3)]
    assert_weights("enet", expected)


def test_median_frequency_weights_come_from_both_counts() -> None:
    frequencies = [600 / 1000, 100 / 500, 300 / 750]
    assert_weights("median_frequency", [float(np.median(frequencies)) / f for f in frequencies])


@pytest.mark.parametrize(("power", "expected"), [(0.5, [2.0, 3.0, 5.0]), (0.0, [1.0, 1.0, 1.0])])
def test_a_power_makes_class_weights_milder(
    power: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segpipe.tasks.semantic.enet_weights", lambda _: torch.tensor([4.0, 9.0, 25.0]))
    assert_weights("enet", expected, class_weight_power=power)


def assert_weights(kind: str, expected: list[float], **settings: float) -> None:
    """The weighted loss is that of torch with these class weights, for the main and for an auxiliary head."""
    aux = torch.randn(2, K, 5, 6)
    output, batch = output_and_batch(aux=aux)
    config = small_run(class_weights=kind, aux_weight=1.0, **settings).train
    terms = losses(SemanticOps(CLASSES, IGNORE, config=config, statistics=STATISTICS), output, batch)
    weight_K = torch.tensor(expected)
    assert batch.labels_NHW is not None
    for name, logits_NKHW in (("main", output.logits_NKHW), ("aux", aux)):
        theirs = functional.cross_entropy(logits_NKHW, batch.labels_NHW, weight=weight_K, ignore_index=IGNORE)
        torch.testing.assert_close(terms[name], theirs)


def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient() -> None:
    output, batch = output_and_batch()
    logits_NKHW = output.logits_NKHW.requires_grad_()
    assert batch.labels_NHW is not None
    batch.labels_NHW.fill_(IGNORE)
    loss = losses(SemanticOps(CLASSES, IGNORE), DenseOutput(logits_NKHW=logits_NKHW), batch)["main"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits_NKHW.grad is not None
    assert not logits_NKHW.grad.any()


def counted(seed: int = 0, images: int = 4) -> tuple[SemanticOps, object, np.ndarray, np.ndarray]:
    """Operations, a meter that counted random predictions, and what it counted: predictions and labels (N, H, W)."""
    random = np.random.default_rng(seed)
    labels_NHW = random.choice([0, 1, 2, IGNORE], size=(images, 5, 6), p=[0.4, 0.3, 0.2, 0.1])
    predictions_NHW = np.where(random.random((images, 5, 6)) < 0.6, np.minimum(labels_NHW, 2), 1).astype(np.uint8)
    ops = SemanticOps(CLASSES, IGNORE)
    meter = ops.meter()
    for n in range(images):
        batch = Batch(
            images_N3HW=torch.zeros(1, 3, 5, 6, dtype=torch.uint8),
            labels_NHW=torch.from_numpy(labels_NHW[n : n + 1]),
            sample_ids=(f"s/{n}",),
            original_sizes=((5, 6),),
        )
        ops.measure(meter, [LabelMap(ids_HW=predictions_NHW[n])], batch)
    return ops, meter, predictions_NHW, labels_NHW


def test_scores_are_those_of_the_counted_pixels() -> None:
    ops, meter, predictions_NHW, labels_NHW = counted()
    scores = ops.scores(meter)
    kept = labels_NHW != IGNORE
    ious = []
    for k, info in enumerate(CLASSES):
        truth, found = labels_NHW[kept] == k, predictions_NHW[kept] == k
        ious.append((truth & found).sum() / (truth | found).sum())
        assert scores[f"iou/{info.name}"] == pytest.approx(ious[k])
    assert scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["pixel_accuracy"] == pytest.approx((labels_NHW[kept] == predictions_NHW[kept]).mean())
    assert all(math.isfinite(value) for value in scores.values())


def test_a_class_that_never_occurs_has_no_score() -> None:
    ops = SemanticOps(CLASSES, IGNORE)
    meter = ops.meter()
    meter.confusion += np.array([[4, 1, 0], [1, 2, 0], [0, 0, 0]])
    scores = ops.scores(meter)
    assert "iou/disc" not in scores
    assert scores["miou"] == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_the_report_holds_counts_in_the_order_of_the_dataset() -> None:
    ops, meter, predictions_NHW, labels_NHW = counted()
    order = ["s/2", "s/0", "s/3", "s/1"]
    fields = ops.report_fields(meter, order, ["a", "a", "b", "b"])
    for place, sample_id in enumerate(order):
        n = int(sample_id[-1])
        kept = labels_NHW[n] != IGNORE
        for k in range(K):
            truth, found = (labels_NHW[n] == k) & kept, (predictions_NHW[n] == k) & kept
            expected = (int((truth & found).sum()), int(truth.sum()), int(found.sum()))
            assert fields["sample_counts"][place][k] == expected
    totals = np.array(fields["sample_counts"]).sum(axis=0)
    confusion_KK = np.array(fields["confusion"])
    assert totals[:, 0].tolist() == confusion_KK.diagonal().tolist()
    assert totals[:, 1].tolist() == confusion_KK.sum(axis=1).tolist()
    assert totals[:, 2].tolist() == confusion_KK.sum(axis=0).tolist()
    assert fields["low"] <= fields["value"] <= fields["high"]
    assert fields["resampled"] == "images"
    assert fields["value"] == fields["metrics"]["miou"]
    assert fields["per_class"]["box"]["pixels"] == float((labels_NHW == 1).sum())


@pytest.mark.parametrize("order", [["s/0", "s/1", "s/2"], ["s/0", "s/1", "s/2", "s/3", "s/4"], ["s/0"] * 4])
def test_a_report_needs_each_sample_exactly_once(order: list[str]) -> None:
    ops, meter, *_ = counted()
    with pytest.raises(InputError, match="images expected, 4 counted"):
        ops.report_fields(meter, order, order)


def test_an_undefined_class_is_none_in_the_report() -> None:
    ops, meter = SemanticOps(CLASSES, IGNORE), SemanticOps(CLASSES, IGNORE).meter()
    ops.measure(meter, [LabelMap(ids_HW=np.zeros((2, 3), np.uint8))], painted(torch.zeros(1, 2, 3, dtype=torch.long)))
    fields = ops.report_fields(meter, ["s/0"], ["s/0"])
    assert fields["per_class"]["disc"] == {"iou": None, "dice": None, "pixels": 0.0}
    assert fields["value"] == 1.0


def test_where_nothing_is_labelled_there_is_no_report() -> None:
    ops, meter = SemanticOps(CLASSES, IGNORE), SemanticOps(CLASSES, IGNORE).meter()
    batch = painted(torch.zeros(1, 2, 3, dtype=torch.long))
    batch = replace(batch, labels_NHW=torch.full((1, 2, 3), IGNORE))
    ops.measure(meter, [LabelMap(ids_HW=np.zeros((2, 3), np.uint8))], batch)
    with pytest.raises(InputError, match=r"miou of these 1 images is undefined: none of their pixels is labelled"):
        ops.report_fields(meter, ["s/0"], ["s/0"])


def test_one_logit_is_class_one_above_a_half_in_every_way_of_looking() -> None:
    """Against the same network with two outputs, of which the first says 0."""

    class Both(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_N1HW = self.network(images_NCHW).logits_NKHW
            return DenseOutput(logits_NKHW=torch.cat([torch.zeros_like(logits_N1HW), logits_N1HW], dim=1))

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
