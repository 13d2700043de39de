"""The confusion matrix and its scores against loops, an example worked by hand, and the meter's bookkeeping."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.errors import InputError
from segpipe.metrics import ConfusionMeter, confusion_matrix, semantic_scores
from segpipe.metrics.confusion import count_torch

K = 3
IGNORE = 255


def slow_confusion(predictions: np.ndarray, labels: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    for prediction, label in zip(predictions.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if label != ignore_index:
            table[label, prediction] += 1
    return table


def slow_scores(table: list[list[int]]) -> dict[str, Any]:
    """Sets of pixels, one at a time."""
    classes = range(len(table))
    truth = [sum(table[k]) for k in classes]
    predicted = [sum(row[k] for row in table) for k in classes]
    total = sum(truth)
    union = [truth[k] + predicted[k] - table[k][k] for k in classes]
    iou = [table[k][k] / union[k] if union[k] else float("nan") for k in classes]
    seen, present = [k for k in classes if union[k]], [k for k in classes if truth[k]]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values) if values else float("nan")

    return {
        "iou": iou,
        "dice": [2 * table[k][k] / (truth[k] + predicted[k]) if union[k] else float("nan") for k in classes],
        "miou": mean([iou[k] for k in seen]),
        "miou_present": mean([iou[k] for k in present]),
        "pixel_accuracy": sum(table[k][k] for k in classes) / total if total else float("nan"),
        "mean_accuracy": mean([table[k][k] / truth[k] for k in present]),
        "frequency_weighted_iou": sum(truth[k] * iou[k] for k in present) / total if total else float("nan"),
    }


ids = st.sampled_from([0, 1, 2, 3, 4])
images = st.tuples(st.integers(0, 4), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=ids),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 4, IGNORE])),
    )
)


@settings(max_examples=60, deadline=None)
@given(images, st.sampled_from([np.uint8, np.int64, np.int32]), st.sampled_from([IGNORE, 0]))
def test_counts_equal_the_loop_in_every_family(
    pair: tuple[np.ndarray, np.ndarray], dtype: type[np.integer], ignore_index: int
) -> None:
    predictions, labels = pair[0].astype(dtype), pair[1].astype(dtype)
    if ignore_index != IGNORE:
        labels[labels == IGNORE] = ignore_index
    expected = slow_confusion(predictions, labels, 5, ignore_index)
    found = confusion_matrix(predictions, labels, 5, ignore_index)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)
    as_torch = confusion_matrix(torch.from_numpy(predictions), torch.from_numpy(labels), 5, ignore_index)
    assert as_torch.dtype == torch.int64
    assert np.array_equal(as_torch.numpy(), expected)
    by_torch = count_torch(torch.from_numpy(predictions), torch.from_numpy(labels), 5, ignore_index)
    assert np.array_equal(by_torch.numpy(), expected)


@pytest.mark.parametrize("num_classes", [1, 2, 255, 256, 300])
def test_counts_with_few_and_very_many_classes(num_classes: int) -> None:
    generator = np.random.default_rng(num_classes)
    predictions = generator.integers(0, num_classes, (50, 40)).astype(np.uint16)
    labels = generator.integers(0, num_classes, (50, 40)).astype(np.uint16)
    labels[:5] = 65535
    found = confusion_matrix(predictions, labels, num_classes, 65535)
    assert np.array_equal(found, slow_confusion(predictions, labels, num_classes, 65535))


def test_a_prediction_on_an_ignored_pixel_does_not_matter() -> None:
    labels = np.array([[0, IGNORE], [1, IGNORE]], dtype=np.uint8)
    predictions = np.array([[0, 200], [0, IGNORE]], dtype=np.uint8)
    expected = [[1, 0], [1, 0]]
    assert confusion_matrix(predictions, labels, 2).tolist() == expected
    assert count_torch(torch.from_numpy(predictions), torch.from_numpy(labels), 2, IGNORE).tolist() == expected


@pytest.mark.parametrize("family", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([[0, 1]], [[0, 3]], r"label 3 is outside 0\.\.2 and is not ignored"),
        ([[0, 1]], [[0, -1]], r"label -1 is outside 0\.\.2"),
        ([[0, 3]], [[0, 1]], r"prediction 3 is outside 0\.\.2"),
        ([[-1, 0]], [[0, 1]], r"prediction -1 is outside 0\.\.2"),
        ([[0, 1]], [[0], [1]], r"predictions \(1, 2\) and labels \(2, 1\) must be alike"),
        ([[0.0, 1.0]], [[0, 1]], r"expected integer class ids, found"),
    ],
)
def test_bad_ids_are_refused_with_their_value(
    family: str, predictions: list[list[float]], labels: list[list[int]], message: str
) -> None:
    make: Any = np.array if family == "numpy" else torch.tensor
    with pytest.raises(InputError, match=message):
        confusion_matrix(make(predictions), make(labels), 3)


def test_bad_ids_are_refused_by_the_torch_count_too() -> None:
    with pytest.raises(InputError, match="label 3 is outside"):
        count_torch(torch.tensor([0]), torch.tensor([3]), 3, IGNORE)
    with pytest.raises(InputError, match="prediction -2 is outside"):
        count_torch(torch.tensor([-2]), torch.tensor([0]), 3, IGNORE)
    with pytest.raises(InputError, match="expected integer class ids"):
        count_torch(torch.tensor([0.5]), torch.tensor([0]), 3, IGNORE)


def worked_example() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two images, three classes; class 2 is in neither truth nor prediction.

    First: truth 0 0 1 1 void, predicted 0 1 1 1 0. Second: truth 0 1, predicted 0 0.
    """
    labels = [np.array([[0, 0, 1, 1, IGNORE]], dtype=np.uint8), np.array([[0], [1]], dtype=np.uint8)]
    predictions = [np.array([[0, 1, 1, 1, 0]], dtype=np.uint8), np.array([[0], [0]], dtype=np.uint8)]
    return predictions, labels


def test_the_worked_example() -> None:
    meter = ConfusionMeter(K)
    meter.update(*worked_example(), ["a", "b"])
    assert meter.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert meter.per_sample["a"].tolist() == [[1, 2, 1], [2, 2, 3], [0, 0, 0]]
    assert meter.counts(["b", "a"]).tolist() == [
        [[1, 1, 2], [0, 1, 0], [0, 0, 0]],
        [[1, 2, 1], [2, 2, 3], [0, 0, 0]],
    ]
    scores = semantic_scores(meter.confusion)
    # Both classes: 2 right, truth 3, predicted 3, so IoU 2 / 4 and Dice 4 / 6. Class 2 has no IoU.
    assert scores["iou"].tolist() == pytest.approx([0.5, 0.5, float("nan")], nan_ok=True)
    assert scores["dice"].tolist() == pytest.approx([2 / 3, 2 / 3, float("nan")], nan_ok=True)
    assert scores["miou"] == scores["miou_present"] == scores["frequency_weighted_iou"] == 0.5
    assert scores["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["mean_accuracy"] == pytest.approx(2 / 3)


def test_a_class_that_is_only_predicted_counts_in_miou_alone() -> None:
    scores = semantic_scores([[3, 1], [0, 0]])
    assert scores["iou"].tolist() == [0.75, 0.0]
    assert (scores["miou"], scores["miou_present"], scores["mean_accuracy"]) == (0.375, 0.75, 0.75)
    assert scores["frequency_weighted_iou"] == 0.75


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k), min_size=k, max_size=k)
    )
)
def test_scores_equal_the_loop(table: list[list[int]]) -> None:
    expected = slow_scores(table)
    for form in (table, np.array(table), torch.tensor(table)):
        found = semantic_scores(form)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            got = found[name].tolist() if name in ("iou", "dice") else found[name]
            assert got == pytest.approx(value, nan_ok=True), name
            assert name in ("iou", "dice") or type(found[name]) is float


def test_an_empty_table_has_no_scores_and_no_warnings() -> None:
    scores = semantic_scores(np.zeros((2, 2), dtype=np.int64))
    assert all(np.isnan(value).all() for value in scores.values())


@pytest.mark.parametrize("table", [[[1, 2]], [1, 2], [[0.5]]])
def test_what_is_no_confusion_matrix_is_refused(table: list[Any]) -> None:
    with pytest.raises(InputError, match=r"expected a \(K, K\) matrix of counts"):
        semantic_scores(table)


def random_images(count: int) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for index in range(count):
        size = (2 + index, 7 - index % 3)
        labels = torch.randint(0, K + 1, size, generator=generator, dtype=torch.uint8)
        labels[labels == K] = IGNORE
        made.append((torch.randint(0, K, size, generator=generator), labels, f"sample{index}"))
    return made


def counted(samples: list[tuple[torch.Tensor, torch.Tensor, str]]) -> ConfusionMeter:
    meter = ConfusionMeter(K)
    if samples:
        predictions, labels, sample_ids = zip(*samples, strict=True)
        meter.update(predictions, labels, sample_ids)
    return meter


def content(meter: ConfusionMeter) -> tuple[object, ...]:
    """Equal for equal content, whatever the order of updates and merges."""
    samples = {sample_id: counts.tolist() for sample_id, counts in meter.per_sample.items()}
    return meter.num_classes, meter.ignore_index, meter.confusion.tolist(), samples


def test_merging_in_any_order_equals_counting_at_once() -> None:
    samples = random_images(6)
    whole = counted(samples)
    for order in itertools.permutations([samples[:1], samples[1:4], samples[4:], []]):
        merged = ConfusionMeter(K)
        for part in order:
            merged.merge(counted(part))
        assert content(merged) == content(whole)
        assert np.array_equal(merged.counts(), whole.counts())
    assert np.array_equal(whole.counts()[:, :, 1].sum(0), whole.confusion.sum(1))


def test_a_batch_tensor_counts_as_its_images() -> None:
    predictions, labels = torch.randint(0, K, (4, 5, 6)), torch.randint(0, K, (4, 5, 6))
    together = ConfusionMeter(K)
    together.update(predictions, labels, list("abcd"))
    apart = counted(list(zip(predictions, labels, "abcd", strict=True)))
    assert content(together) == content(apart)
    assert together.counts(list("abcd")).shape == (4, K, 3)
    assert together.counts().dtype == np.int64


def test_a_meter_travels_between_processes() -> None:
    meter = counted(random_images(3))
    back = pickle.loads(pickle.dumps(meter))
    assert content(back) == content(meter)
    assert back.confusion.dtype == np.int64


def test_a_sample_counts_once() -> None:
    samples = random_images(3)
    meter = counted(samples)
    before = content(meter)
    for repeat in (lambda: meter.merge(counted(samples[1:2])), lambda: meter.update(*zip(samples[1], strict=True))):
        with pytest.raises(InputError, match=r"image 'sample1' is counted twice.*exactly once"):
            repeat()
    with pytest.raises(InputError, match="'x' is counted twice"):
        meter.update([samples[0][0]] * 2, [samples[0][1]] * 2, ["x", "x"])
    assert content(meter) == before, "a refused update counts nothing"


def test_a_refused_image_is_named_and_nothing_is_counted() -> None:
    good = np.zeros((2, 2), dtype=np.uint8)
    meter = ConfusionMeter(K)
    with pytest.raises(InputError, match=r"sample b: confusion matrix: label 7 is outside"):
        meter.update([good, good], [good, good + 7], ["a", "b"])
    with pytest.raises(InputError, match="2 predictions, 1 label maps and 2 sample ids"):
        meter.update([good, good], [good], ["a", "b"])
    assert content(meter) == content(ConfusionMeter(K))


def test_meters_of_other_classes_do_not_merge() -> None:
    with pytest.raises(InputError, match="these differ in ignored id: 255 and 0"):
        ConfusionMeter(K).merge(ConfusionMeter(K, 0))


def test_counts_must_cover_the_split_exactly() -> None:
    meter = counted(random_images(2))
    with pytest.raises(InputError, match=r"3 images expected, 2 counted; they differ in 'sample2'"):
        meter.counts(["sample0", "sample1", "sample2"])
    with pytest.raises(InputError, match="differ in 'sample1'"):
        meter.counts(["sample0"])
