"""The evaluation loop: integer counts that no number of workers changes, and a report that a slow count agrees with."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe import checkpoint, evaluate, models, reports
from segpipe.crf_search import count_crfs
from segpipe.data.batch import normalise
from segpipe.data.decode import decode
from segpipe.errors import CorruptError, IncomparableError, InputError
from segpipe.evaluate import Counted, Share, assemble, evaluate_share, open_share, task_of
from segpipe.predictions import LabelMap
from segpipe.shards import open_dataset
from segpipe.tasks import views
from segpipe.types import Annotation, ClassInfo, CrfSettings, EvalReport, Inference, Task
from tests.fixtures.bundles import bundle_of
from tests.fixtures.small import CLASSES, IGNORE, ONE_VIEW, OPTIONS, publish_small, small_run, small_samples

TEST_IMAGES = 11


def save_model(
    folder: Path, *, input_scale: float = 1.0, classes: Sequence[ClassInfo] = CLASSES, inference: Inference = ONE_VIEW
) -> str:
    """A model that was not trained, but whose statistics fit the data, so that it says every class; gives its URI."""
    torch.manual_seed(1)
    model = models.create("unet", len(classes), **OPTIONS["unet"])
    images_N3HW = normalise(torch.stack([decode(sample).image_3HW for sample in small_samples("train", 8)]))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(images_N3HW)
        deviation_K = model.eval()(images_N3HW).logits_NKHW.std((0, 2, 3))
        model.head.weight /= deviation_K[:, None, None, None]
        model.head.bias -= model(images_N3HW).logits_NKHW.mean((0, 2, 3))
    bundle = bundle_of(
        "unet",
        classes,
        options=OPTIONS["unet"],
        input_scale=input_scale,
        inference=inference,
        config_digest=small_run().digest,
        code_version="test",
    )
    checkpoint.save_model(str(folder), model.state_dict(), bundle)
    return checkpoint.model_uri(str(folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def share(folder: Path) -> Share:
    version = publish_small(f"{folder}/data", train=8, val=2, test=TEST_IMAGES)
    return Share(
        checkpoint=save_model(folder / "whole"),
        data=f"{folder}/data",
        version=version,
        split="test",
        batch_size=2,
        rank=0,
        world_size=1,
    )


def count(share: Share, world_size: int) -> list[Counted]:
    return [evaluate_share(replace(share, rank=rank, world_size=world_size)) for rank in range(world_size)]


def report_of(counted: Sequence[Counted], share: Share) -> EvalReport:
    return assemble(counted, share=share, experiment="shapes", label="unet")


def timed_as(report: EvalReport, other: EvalReport) -> EvalReport:
    return replace(report, seconds=other.seconds, latency=other.latency)


def test_an_image_takes_as_long_as_the_median_batch(share: Share) -> None:
    counted = count(share, 2)
    assert all(
        len(part.meter.pixels.per_sample) / 2 <= len(part.latencies) < len(part.meter.pixels.per_sample)
        for part in counted
    )
    assert all(0 < sum(part.latencies) < part.seconds for part in counted)
    report = report_of([replace(counted[0], latencies=(0.5, 9.0)), replace(counted[1], latencies=(0.25,))], share)
    assert (report.latency, report.timed_on) == (0.5, "one thread of a CPU")


@pytest.mark.parametrize("inference", [ONE_VIEW, Inference(scales=(1.0,), mirror=True, crf=CrfSettings(iterations=1))])
def test_what_a_report_counts_besides_is_no_latency(
    share: Share, monkeypatch: pytest.MonkeyPatch, inference: Inference
) -> None:
    """By a clock that goes on when a pass or the levels are made, and at nothing else."""
    now = 0.0

    def going_on(function: Callable[..., Tensor], seconds: float) -> Callable[..., Tensor]:
        def timed(*args: Any, **keywords: Any) -> Tensor:
            nonlocal now
            now += seconds
            return function(*args, **keywords)

        return timed

    model, bundle, ops, batches = open_share(share)
    monkeypatch.setattr(model, "forward", going_on(model.forward, 1.0))
    monkeypatch.setattr(views, "_levels", going_on(views._levels, 10.0))
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    latencies: list[float] = []
    evaluate.count(model, ops, replace(bundle, inference=inference), batches, closely=True, latencies=latencies)
    passes = 1 + inference.mirror
    assert now == len(batches) * (passes + 10)
    assert {passes / 2} <= set(latencies) <= {passes / 2, passes / 1}, "of an image, in batches of two or one"


@pytest.fixture(scope="module")
def alone(share: Share) -> EvalReport:
    torch.set_num_threads(1)
    return report_of(count(share, 1), share)


@pytest.mark.parametrize("world_size", [2, 3, 4, 9])
def test_any_number_of_workers_gives_the_same_report(share: Share, alone: EvalReport, world_size: int) -> None:
    counted = count(share, world_size)
    for order in (counted, counted[::-1]):
        assert timed_as(report_of(order, share), alone) == alone
    found = [sample_id for part in counted for sample_id in part.meter.pixels.per_sample]
    assert sorted(found) == open_dataset(share.data).sample_ids("test")


def test_so_it_does_for_a_model_that_averages_views(folder: Path, share: Share, alone: EvalReport) -> None:
    views = Inference(scales=(0.75, 1.0), mirror=True)
    share = replace(share, checkpoint=save_model(folder / "views", inference=views))
    averaged = report_of(count(share, 1), share)
    assert timed_as(report_of(count(share, 3), share), averaged) == averaged
    assert averaged.weights_sha256 != alone.weights_sha256, "the same weights, but another model"
    assert averaged.confusion != alone.confusion


def test_so_it_does_for_a_model_that_is_asked_several_times(folder: Path, share: Share) -> None:
    """With dropout on: what is dropped depends on the image, and not on the worker that it comes to, nor the batch."""
    options = {"backbone": "vgg16_bn_slim"}
    torch.manual_seed(1)
    weights = models.create("bayesian_segnet", len(CLASSES), **options).state_dict()
    inference = replace(ONE_VIEW, samples=3)
    bundle = bundle_of("bayesian_segnet", CLASSES, options=options, inference=inference)
    checkpoint.save_model(str(folder / "sampled"), weights, bundle)
    keep = ("test/0003", "test/0008")
    share = replace(share, checkpoint=checkpoint.model_uri(str(folder / "sampled")), keep=keep)
    alone = count(share, 1)
    report, told = report_of(alone, share), alone[0].predictions
    for number, (batch_size, workers) in enumerate(((2, 3), (3, 2), (1, 1))):
        torch.manual_seed(number)
        again = count(replace(share, batch_size=batch_size), workers)
        assert timed_as(report_of(again, share), report) == report
        kept = {name: each for part in again for name, each in part.predictions.items()}
        assert sorted(kept) == sorted(told) == sorted(keep)
        for name in keep:
            np.testing.assert_array_equal(kept[name].ids_HW, told[name].ids_HW)
            np.testing.assert_array_equal(kept[name].uncertainty_HW, told[name].uncertainty_HW)
            assert told[name].uncertainty_HW.max() > 0


def test_so_it_does_for_a_model_with_a_crf(folder: Path, share: Share, alone: EvalReport) -> None:
    crf = CrfSettings(iterations=2, bilateral=(10.0, 20.0, 4.0))
    refining = replace(share, checkpoint=save_model(folder / "crf", inference=replace(ONE_VIEW, crf=crf)))
    refined = report_of(count(refining, 1), refining)
    torch.set_num_threads(2)
    assert timed_as(report_of(count(refining, 3), refining), refined) == refined
    assert refined.weights_sha256 != alone.weights_sha256
    assert refined.confusion != alone.confusion
    # The search, on a model without one, counts the very same.
    progress: list[tuple[int, int]] = []
    _, meters = count_crfs(share, [crf, CrfSettings()], threads=2, on_progress=lambda *at: progress.append(at))
    counted = [tuple(map(tuple, meter.pixels.confusion.tolist())) for meter in meters]
    assert counted[:2] == [alone.confusion, refined.confusion]
    assert counted[2] not in counted[:2]
    assert progress[0][0] == 0
    assert progress[-1][0] == progress[-1][1] == len(progress) - 1
    assert torch.get_num_threads() == 2


def test_threads_of_the_caller_change_nothing_and_come_back(share: Share, alone: EvalReport) -> None:
    torch.set_num_threads(2)
    report = report_of(count(share, 1), share)
    assert torch.get_num_threads() == 2
    assert timed_as(report, alone) == alone


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_the_report_agrees_with_a_slow_count(folder: Path, share: Share, input_scale: float) -> None:
    """Image by image, pixel by pixel, in the order of the dataset, at original resolution."""
    share = replace(
        share, checkpoint=save_model(folder / f"scale-{input_scale}", input_scale=input_scale), batch_size=1
    )
    report = report_of(count(share, 2), share)
    model, _ = checkpoint.load_model(share.checkpoint)
    confusion = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    samples = list(open_dataset(share.data).samples("test"))
    for place, sample in enumerate(samples):
        decoded = decode(sample)
        images_N3HW = decoded.image_3HW[None].float()
        if input_scale != 1.0:
            size = (round(sample.height * input_scale), round(sample.width * input_scale))
            images_N3HW = torch.nn.functional.interpolate(images_N3HW, size=size, mode="bilinear", antialias=True)
        with torch.no_grad():
            logits_NKHW = model(normalise(images_N3HW)).logits_NKHW
        logits_NKHW = torch.nn.functional.interpolate(
            logits_NKHW, size=(sample.height, sample.width), mode="bilinear", align_corners=False
        )
        prediction_HW = logits_NKHW[0].numpy().argmax(axis=0)
        labels_HW = np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)
        counts = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
        for truth, found in zip(labels_HW.ravel().tolist(), prediction_HW.ravel().tolist(), strict=True):
            if truth != IGNORE:
                confusion[truth][found] += 1
                counts[truth][0] += truth == found
                counts[truth][1] += 1
                counts[found][2] += 1
        assert report.sample_ids[place] == sample.sample_id
        assert [list(c) for c in report.sample_counts[place]] == counts, sample.sample_id
    assert [list(row) for row in report.confusion] == confusion
    assert report.classes == tuple(info.name for info in CLASSES)
    assert all(sum(row) for row in zip(*confusion, strict=True)), "the model says every class"
    ious = []
    for k, info in enumerate(CLASSES):
        union = sum(confusion[k]) + sum(row[k] for row in confusion) - confusion[k][k]
        ious.append(confusion[k][k] / union)
        assert report.per_class[info.name]["iou"] == pytest.approx(ious[k], rel=1e-12)
        assert report.per_class[info.name]["pixels"] == sum(confusion[k])
    assert report.value == pytest.approx(sum(ious) / 3, rel=1e-12)
    right = sum(confusion[k][k] for k in range(3))
    assert report.metrics["pixel_accuracy"] == pytest.approx(right / sum(map(sum, confusion)), rel=1e-12)


def test_counts_of_the_samples_add_up_to_the_confusion_matrix(alone: EvalReport) -> None:
    totals = np.array(alone.sample_counts, dtype=np.int64).sum(axis=0)
    confusion_KK = np.array(alone.confusion)
    assert totals[:, 0].tolist() == confusion_KK.diagonal().tolist()
    assert totals[:, 1].tolist() == confusion_KK.sum(axis=1).tolist()
    assert totals[:, 2].tolist() == confusion_KK.sum(axis=0).tolist()


def test_the_report_says_what_was_measured(share: Share, alone: EvalReport) -> None:
    dataset = open_dataset(share.data)
    assert alone.sample_ids == tuple(dataset.sample_ids("test"))
    assert alone.groups == tuple(dataset.groups("test"))
    assert alone.num_samples == TEST_IMAGES
    assert (alone.dataset, alone.dataset_version, alone.split) == ("shapes", dataset.version, "test")
    assert alone.protocol == "miou/dataset/original-resolution/ignore=255/absent=excluded"
    assert (alone.arch, alone.label, alone.checkpoint) == ("unet", "unet", share.checkpoint)
    assert alone.weights_sha256 == checkpoint.load_bundle(share.checkpoint).weights_sha256
    assert alone.parameters == sum(p.numel() for p in models.create("unet", 3, **OPTIONS["unet"]).parameters())
    assert 0 <= alone.low <= alone.value <= alone.high <= 1
    assert alone.seconds > 0


def test_the_report_survives_json(alone: EvalReport) -> None:
    document = json.loads(json.dumps(reports.to_plain(alone), allow_nan=False))
    assert reports.from_plain(EvalReport, document, origin="report.json") == alone


def test_a_share_counted_twice_is_an_error(share: Share) -> None:
    first, second = count(share, 2)
    with pytest.raises(InputError, match=r"image 'test/\d+' is counted twice"):
        report_of([first, second, first], share)


def test_a_missing_share_is_an_error(share: Share) -> None:
    first, second = count(share, 2)
    for part in (first, second):
        with pytest.raises(InputError, match=rf"{TEST_IMAGES} images expected, \d+ counted"):
            report_of([part], share)


def test_a_share_of_another_split_is_an_error(share: Share) -> None:
    other = evaluate_share(replace(share, split="val"))
    with pytest.raises(InputError, match=rf"{TEST_IMAGES} images expected, {TEST_IMAGES + 2} counted"):
        report_of([*count(share, 1), other], share)


def test_predictions_of_the_wanted_samples_come_back(share: Share) -> None:
    wanted = ("test/0002", "test/0007", "test/0010")
    counted = count(replace(share, keep=wanted), 3)
    kept = {sample_id: prediction for part in counted for sample_id, prediction in part.predictions.items()}
    assert sorted(kept) == sorted(wanted)
    sizes = {sample.sample_id: (sample.height, sample.width) for sample in open_dataset(share.data).samples("test")}
    for sample_id, prediction in kept.items():
        assert isinstance(prediction, LabelMap)
        assert prediction.ids_HW.shape == sizes[sample_id]
        assert prediction.ids_HW.dtype == np.uint8
    assert len({sizes[sample_id] for sample_id in kept}) == 2


def test_what_a_card_alone_shows_is_counted_for_a_report_alone(share: Share) -> None:
    """A validation of a training throws it away, and it takes longer than all that decides the score."""
    model, bundle, ops, batches = open_share(share)
    meter, kept = evaluate.count(model, ops, bundle, batches, keep=("test/0002",))
    assert meter.closely is None
    assert kept["test/0002"].levels_KP is None
    (whole,) = count(replace(share, keep=("test/0002",)), 1)
    assert whole.meter.closely is not None
    assert whole.predictions["test/0002"].levels_KP is not None
    assert ops.scores(whole.meter) == ops.scores(meter)


@pytest.mark.parametrize(
    "classes",
    [
        CLASSES[:2],
        CLASSES[::-1],
        (*CLASSES, ClassInfo(name="ring", colour=(1, 2, 3))),
        (*CLASSES[:2], ClassInfo(name="ring", colour=CLASSES[2].colour)),
    ],
    ids=["fewer", "another order", "more", "another name"],
)
def test_a_model_of_other_classes_is_refused(tmp_path: Path, share: Share, classes: tuple[ClassInfo, ...]) -> None:
    uri = save_model(tmp_path, classes=classes)
    with pytest.raises(
        InputError, match=r"the model knows the classes \[.*\], dataset 'shapes' has \['ground'"
    ) as caught:
        evaluate_share(replace(share, checkpoint=uri))
    assert uri in str(caught.value)


def test_colours_of_classes_may_differ(share: Share) -> None:
    manifest, bundle = open_dataset(share.data).manifest, checkpoint.load_bundle(share.checkpoint)
    repainted = tuple(replace(info, colour=(1, 1, 1)) for info in bundle.classes)
    assert task_of(replace(bundle, classes=repainted), manifest, origin="x").primary == "miou"


def test_things_and_stuff_may_change_only_where_nobody_looks_at_them(share: Share) -> None:
    manifest, bundle = open_dataset(share.data).manifest, checkpoint.load_bundle(share.checkpoint)
    ground, box, disc = bundle.classes
    turned = replace(bundle, classes=(replace(ground, is_thing=True), box, replace(disc, is_thing=False)))
    for task in (Task.SEMANTIC, Task.KEYPOINTS):
        task_of(replace(turned, task=task), replace(manifest, annotations=tuple(Annotation)), origin="x")
    for task in (Task.INSTANCE, Task.DETECTION, Task.PANOPTIC):
        task_of(replace(bundle, task=task), replace(manifest, annotations=tuple(Annotation)), origin="x")
        with pytest.raises(
            IncomparableError,
            match=f"'ground' was a thing and is stuff, 'disc' was stuff and is a thing in .*'shapes'.* of task {task}",
        ):
            task_of(replace(turned, task=task), manifest, origin="x")


def test_a_dataset_without_the_task_s_annotation_is_refused(share: Share) -> None:
    manifest, bundle = open_dataset(share.data).manifest, checkpoint.load_bundle(share.checkpoint)
    with pytest.raises(InputError, match="task semantic needs label_map, which dataset 'shapes' does not fill"):
        task_of(bundle, replace(manifest, annotations=(Annotation.KEYPOINTS,)), origin="x")


def test_a_missing_split_and_damaged_weights_are_named(tmp_path: Path, share: Share) -> None:
    with pytest.raises(InputError, match="no split 'holdout'; it has: test, train, val"):
        evaluate_share(replace(share, split="holdout"))
    uri = save_model(tmp_path)
    weights = Path(uri, "weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CorruptError, match=r"weights.safetensors: SHA-256 is"):
        evaluate_share(replace(share, checkpoint=uri))
