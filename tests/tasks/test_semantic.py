"""Semantic segmentation behind the task door: loss, prediction at original resolution, counting, the report."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from segpipe.data.batch import Batch, collate
from segpipe.data.decode import DecodedSample
from segpipe.errors import InputError
from segpipe.losses import cross_entropy
from segpipe.models import DenseOutput
from segpipe.predictions import LabelMap
from segpipe.tasks.semantic import SemanticMeter, SemanticOps
from segpipe.types import Split
from tests.fixtures.nearest_colour import K, NearestColour, bundle, losses, output_and_batch, painted
from tests.fixtures.small import CLASSES, IGNORE, small_run

STATISTICS = Split(samples=4, shards=(), class_pixels=(600, 100, 300), image_pixels=(1000, 500, 750), ignored_pixels=50)


def test_a_batch_without_labels_predicts_but_neither_trains_nor_counts() -> None:
    ops = SemanticOps(CLASSES, IGNORE)
    sample = DecodedSample(sample_id="s/0", image_3HW=torch.zeros(3, 4, 5, dtype=torch.uint8), labels_HW=None)
    batch = collate([sample])
    predictions = ops.predict(NearestColour(), batch, bundle())
    assert predictions[0].ids_HW.shape == (4, 5)
    for refused in (
        lambda: losses(ops, DenseOutput(scores_NKhw=torch.zeros(1, K, 4, 5)), batch),
        lambda: ops.measure(ops.meter(), predictions, batch),
    ):
        with pytest.raises(InputError, match="samples s/0: came without a label map"):
            refused()


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


def test_heads_of_any_size_are_compared_at_that_of_the_image() -> None:
    scores, aux = torch.randn(2, K, 2, 3), torch.randn(2, K, 3, 2)
    _, batch = output_and_batch()
    output = DenseOutput(scores_NKhw=scores, size=(5, 6), aux_scores={"low": aux})
    terms = losses(SemanticOps(CLASSES, IGNORE, config=small_run(aux_weight=0.25).train), output, batch)
    torch.testing.assert_close(terms["main"], cross_entropy(output.logits_NKHW, batch.labels_NHW))
    torch.testing.assert_close(terms["low"], 0.25 * cross_entropy(output.aux["low"], batch.labels_NHW))


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
    loss = losses(SemanticOps(CLASSES, IGNORE), DenseOutput(scores_NKhw=logits_NKHW), batch)["main"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits_NKHW.grad is not None
    assert not logits_NKHW.grad.any()


def counted(
    seed: int = 0, images: int = 4, *, closely: bool = False
) -> tuple[SemanticOps, SemanticMeter, np.ndarray, np.ndarray]:
    """Operations, a meter that counted random predictions, and what it counted: predictions and labels (N, H, W)."""
    random = np.random.default_rng(seed)
    labels_NHW = random.choice([0, 1, 2, IGNORE], size=(images, 5, 6), p=[0.4, 0.3, 0.2, 0.1])
    predictions_NHW = np.where(random.random((images, 5, 6)) < 0.6, np.minimum(labels_NHW, 2), 1).astype(np.uint8)
    ops = SemanticOps(CLASSES, IGNORE)
    meter = ops.meter(closely=closely)
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
    meter.pixels.confusion += np.array([[4, 1, 0], [1, 2, 0], [0, 0, 0]])
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


def test_what_a_card_alone_shows_is_counted_where_it_is_asked_for() -> None:
    order = ["s/0", "s/1", "s/2", "s/3"]
    plain, closely = (ops.report_fields(meter, order, order) for ops, meter, *_ in (counted(), counted(closely=True)))
    assert plain.pop("details") is None
    assert len(closely.pop("details").borders) == K
    assert plain == closely


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
