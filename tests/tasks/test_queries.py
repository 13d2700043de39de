"""Reading the output of mask-classification models: targets of a batch, panoptic maps, detections, semantic scores."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from segpipe import models
from segpipe.data.batch import Batch, normalise
from segpipe.data.objects import Objects, boxes_of
from segpipe.errors import InputError, NonFiniteError
from segpipe.losses import query_losses
from segpipe.masks import decode_rle
from segpipe.metrics import panoptic_quality
from segpipe.models.spec import QueryOutput
from segpipe.tasks import queries
from segpipe.types import ClassInfo
from tests.fixtures.small import CLASSES, IGNORE, small_samples

GROUND, BOX, DISC = range(3)
NOTHING = 3


def objects_of(class_ids: list[int], masks: Tensor, crowds: tuple[int, ...] = ()) -> Objects:
    count = len(class_ids)
    return Objects(
        class_ids_N=torch.tensor(class_ids, dtype=torch.int64),
        segment_ids_N=torch.arange(1, count + 1),
        is_crowd_N=torch.tensor([number in crowds for number in range(count)], dtype=torch.bool),
        masks_NHW=masks,
        boxes_N4=boxes_of(masks),
        keypoints_NP3=None,
    )


def batch_of(labels_NHW: Tensor | None, objects: list[Objects] | None, size: tuple[int, int] = (8, 12)) -> Batch:
    count = len(objects) if objects is not None else len(labels_NHW)
    return Batch(
        images_N3HW=torch.zeros(count, 3, *size, dtype=torch.uint8),
        labels_NHW=labels_NHW,
        sample_ids=tuple(f"sample-{number}" for number in range(count)),
        original_sizes=(size,) * count,
        objects=None if objects is None else tuple(objects),
    )


def seen(height: int, width: int, count: int = 1) -> Batch:
    """A batch of images of that size, of which nothing else is known."""
    return batch_of(None, [objects_of([], torch.zeros(0, height, width, dtype=torch.bool))] * count, (height, width))


def output_of(
    found: list[tuple[int, float, tuple[slice, slice], float]], cells: tuple[int, int], size: tuple[int, int]
) -> QueryOutput:
    """One image, one query each: class, its logit above all others, cells of its mask, size of the mask's logits."""
    class_logits, mask_logits = torch.zeros(1, len(found), 4), torch.zeros(1, len(found), *cells)
    for query, (class_id, above, where, strength) in enumerate(found):
        class_logits[0, query, class_id] = above
        mask_logits[0, query] = -strength
        mask_logits[0, query][where] = strength
    return QueryOutput(class_logits_NQK=class_logits, mask_logits_NQhw=mask_logits, size=size)


ALL = slice(None)
TOP, BOTTOM = (slice(0, 2), ALL), (slice(2, 4), ALL)


def test_targets_are_things_without_crowds_and_each_stuff_class_of_the_labels() -> None:
    masks = torch.zeros(3, 8, 12, dtype=torch.bool)
    masks[0, :4, :4], masks[1, 2:6, 2:6], masks[2, 6:] = True, True, True
    labels = torch.full((1, 8, 12), IGNORE, dtype=torch.uint8)
    labels[0, :, 6:] = GROUND
    labels[0, 7] = DISC
    batch = batch_of(labels, [objects_of([BOX, DISC, DISC], masks, crowds=(2,))])
    class_ids, found = queries.query_targets(batch, 0, CLASSES)
    assert class_ids.tolist() == [BOX, DISC, GROUND]
    assert torch.equal(found[:2], masks[:2])
    assert torch.equal(found[2], labels[0] == GROUND)
    unlabelled = batch_of(None, [objects_of([], masks[:0])])
    class_ids, found = queries.query_targets(unlabelled, 0, CLASSES)
    assert (tuple(class_ids.shape), tuple(found.shape)) == ((0,), (0, 8, 12))
    with pytest.raises(InputError, match=r"samples sample-0.*: came without objects"):
        queries.query_targets(batch_of(labels, None), 0, CLASSES)
    things, found = queries.query_targets(batch, 0, CLASSES, wanted="things")
    assert things.tolist() == [BOX, DISC]
    assert torch.equal(found, masks[:2])
    shown, found = queries.query_targets(batch_of(labels, None), 0, CLASSES, wanted="classes")
    assert shown.tolist() == [GROUND, DISC]
    assert torch.equal(found, torch.stack([labels[0] == GROUND, labels[0] == DISC]))
    with pytest.raises(InputError, match="came without a label map"):
        queries.query_targets(unlabelled, 0, CLASSES, wanted="classes")


def test_terms_are_summed_over_the_layers() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [
        (torch.randn(1, 4, 4, generator=generator), torch.randn(1, 4, 2, 3, generator=generator)) for _ in range(3)
    ]
    outputs = [QueryOutput(class_logits_NQK=c, mask_logits_NQhw=m, size=(8, 12)) for c, m in layers]
    output = QueryOutput(
        class_logits_NQK=layers[2][0], mask_logits_NQhw=layers[2][1], size=(8, 12), aux=tuple(outputs[:2])
    )
    masks = torch.zeros(1, 8, 12, dtype=torch.bool)
    masks[0, :4] = True
    batch = batch_of(torch.zeros(1, 8, 12, dtype=torch.uint8), [objects_of([BOX], masks)])
    torch.manual_seed(1)
    found = queries.losses(output, batch, classes=CLASSES, ignore_index=IGNORE)
    torch.manual_seed(1)
    truth = [torch.tensor([BOX, GROUND])], [torch.stack((masks[0], torch.ones(8, 12, dtype=torch.bool))).float()]
    each = [query_losses(c, m, *truth, stride=4) for c, m in layers]
    assert list(found) == ["class", "mask", "dice"]
    for name, term in found.items():
        torch.testing.assert_close(term, sum(terms[name] for terms in each))


def test_sure_queries_share_the_pixels_and_stuff_of_one_class_is_one_segment() -> None:
    found = [
        (BOX, 9.0, (ALL, slice(0, 2)), 9.0),
        (BOX, 9.0, (ALL, slice(2, 3)), 9.0),
        (GROUND, 9.0, (ALL, slice(3, 5)), 9.0),
        (GROUND, 9.0, (ALL, slice(5, 6)), 9.0),
        (NOTHING, 9.0, TOP, 20.0),
        (DISC, 2.0, BOTTOM, 20.0),  # softmax 0.71: not sure enough
    ]
    output = output_of(found, (4, 6), (16, 24))
    (map_,) = queries.maps(output, seen(16, 24), classes=CLASSES)
    assert map_.ids_HW.dtype == np.int32
    assert map_.ids_HW.tolist() == [[1] * 8 + [2] * 4 + [3] * 12] * 16
    assert [(s.segment_id, s.class_id, s.area) for s in map_.segments] == [
        (1, BOX, 128.0),
        (2, BOX, 64.0),
        (3, GROUND, 192.0),
    ]
    (with_disc,) = queries.maps(output, seen(16, 24), classes=CLASSES, score_threshold=0.7)
    assert [s.class_id for s in with_disc.segments] == [BOX, BOX, GROUND]  # it loses every pixel to surer ones


def test_a_query_that_keeps_less_than_its_share_says_nothing() -> None:
    """The second box's mask is the whole image, of which a surer query takes the upper half."""
    found = [(BOX, 9.0, TOP, 9.0), (DISC, 3.0, (ALL, ALL), 9.0)]
    output = output_of(found, (4, 6), (16, 24))
    (map_,) = queries.maps(output, seen(16, 24), classes=CLASSES)
    assert [s.class_id for s in map_.segments] == [BOX]
    assert (map_.ids_HW[8:] == 0).all()
    (both,) = queries.maps(output, seen(16, 24), classes=CLASSES, overlap_threshold=0.4)
    assert [s.class_id for s in both.segments] == [BOX, DISC]
    assert (both.ids_HW[8:] == 2).all()


def test_a_pixel_that_is_won_outside_of_the_mask_stays_empty() -> None:
    (map_,) = queries.maps(output_of([(BOX, 9.0, TOP, 9.0)], (4, 6), (16, 24)), seen(16, 24), classes=CLASSES)
    assert map_.ids_HW.tolist() == [[1] * 24] * 8 + [[0] * 24] * 8
    nothing = output_of([(NOTHING, 9.0, TOP, 9.0)], (4, 6), (16, 24))
    (empty,) = queries.maps(nothing, seen(16, 24), classes=CLASSES)
    assert (empty.ids_HW.any(), empty.segments) == (False, ())


def test_what_the_model_saw_is_cut_from_the_masks_and_brought_to_the_size_asked_for() -> None:
    """10 x 14 pixels lie in 3 x 4 cells; the third row of cells ends after 2 of its 4 pixels."""
    found = [(BOX, 9.0, (slice(0, 1), ALL), 9.0), (GROUND, 9.0, (slice(1, 3), ALL), 9.0)]
    (map_,) = queries.maps(output_of(found, (3, 4), (10, 14)), seen(20, 28), classes=CLASSES)
    assert (map_.ids_HW[:8] == 1).all()  # 4 of 10 rows
    assert (map_.ids_HW[8:] == 2).all()


def test_detections_are_pairs_of_query_and_thing_by_class_times_mask() -> None:
    found = [
        (BOX, 2.0, (ALL, slice(0, 3)), 20.0),
        (DISC, 4.0, BOTTOM, 1.0),
        (GROUND, 9.0, TOP, 20.0),
        (NOTHING, 9.0, (slice(0, 0), ALL), 20.0),  # a mask without a pixel
    ]
    output = output_of(found, (4, 6), (16, 24))
    (all_found,) = queries.detections(output, seen(16, 24), classes=CLASSES)
    assert len(all_found) == 3 * 2  # three masks, two thing classes each
    (best,) = queries.detections(output, seen(16, 24), classes=CLASSES, limit=2)
    chances = output.class_logits_NQK[0].softmax(1).numpy()
    full = torch.nn.functional.interpolate(output.mask_logits_NQhw, size=(16, 24), mode="bilinear")[0]
    quality = [float(each.sigmoid()[each >= 0].mean()) for each in full[:2]]
    assert best.class_ids_N.tolist() == [BOX, DISC]
    assert best.scores_N.tolist() == pytest.approx(
        [chances[0, BOX] * quality[0], chances[1, DISC] * quality[1]], rel=1e-5
    )
    assert best.boxes_N4.tolist() == [[0, 0, 12, 16], [0, 8, 24, 16]]
    assert best.masks is not None
    assert decode_rle(best.masks[0], 16, 24)[:, :12].sum() == 16 * 12
    assert decode_rle(best.masks[1], 16, 24)[8:].all()
    assert (np.diff(all_found.scores_N) <= 0).all()
    stuff = [ClassInfo(name=c.name, colour=c.colour) for c in CLASSES]
    (none,) = queries.detections(output, seen(16, 24), classes=stuff)
    assert (len(none), none.masks, none.boxes_N4.shape) == (0, (), (0, 4))


@pytest.mark.parametrize("at_once", [1, 2 * 20 * 28])
def test_answers_are_the_same_however_many_masks_are_looked_at_together(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    output = QueryOutput(
        class_logits_NQK=4 * torch.randn(2, 7, 4, generator=generator),
        mask_logits_NQhw=torch.randn(2, 7, 3, 4, generator=generator),
        size=(10, 14),
    )
    batch = seen(20, 28, count=2)

    def answers() -> tuple[list[object], list[Tensor]]:
        panoptic = queries.maps(output, batch, classes=CLASSES, score_threshold=0.3, overlap_threshold=0.1)
        told: list[object] = [(each.ids_HW.tolist(), each.segments) for each in panoptic]
        objects = queries.detections(output, batch, classes=CLASSES)
        told += [(each.masks, each.boxes_N4.tolist(), each.class_ids_N.tolist()) for each in objects]
        return told, [queries.semantic_scores(output, batch), *(torch.from_numpy(each.scores_N) for each in objects)]

    whole, scores = answers()
    monkeypatch.setattr(queries, "PIXELS_AT_ONCE", at_once)
    apart, other = answers()
    assert apart == whole
    for one, same in zip(scores, other, strict=True):  # a vector's last digit depends on what lies beside it
        torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-7)


def test_a_model_that_has_diverged_is_named_with_the_sample() -> None:
    output = output_of([(BOX, 9.0, TOP, 9.0)], (4, 6), (16, 24))
    output.mask_logits_NQhw[0, 0, 3, 5] = float("nan")
    for read in (
        lambda: queries.maps(output, seen(16, 24), classes=CLASSES),
        lambda: queries.semantic_scores(output, seen(16, 24)),
    ):
        with pytest.raises(NonFiniteError, match="sample sample-0: the model's classes or masks are not finite"):
            read()


def test_semantic_scores_are_the_sum_over_queries_of_class_times_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    output = QueryOutput(
        class_logits_NQK=torch.randn(2, 3, 4, generator=generator),
        mask_logits_NQhw=torch.randn(2, 3, 2, 3, generator=generator),
        size=(8, 12),
    )
    scores = queries.semantic_scores(output, seen(8, 12, count=2))
    full = torch.nn.functional.interpolate(output.mask_logits_NQhw, size=(8, 12), mode="bilinear").sigmoid()
    chances = output.class_logits_NQK.softmax(2)
    for k in range(3):
        expected = sum(chances[:, q, k, None, None] * full[:, q] for q in range(3))
        torch.testing.assert_close(scores[:, k], expected)


def learnt_by_heart(wanted: queries.Wanted) -> tuple[QueryOutput, Batch, Tensor]:
    """What a tiny model says of the two images that it was trained on, their batch and their labels."""
    samples = list(small_samples("train", 2))
    labels = torch.stack(
        [torch.frombuffer(bytearray(s.label_map or b""), dtype=torch.uint8).view(s.height, s.width) for s in samples]
    )
    images = torch.stack(
        [torch.from_numpy(np.array(Image.open(io.BytesIO(s.image)))).permute(2, 0, 1) for s in samples]
    )
    objects = [objects_of([BOX, DISC], torch.stack((each == BOX, each == DISC))) for each in labels]
    batch = batch_of(labels, objects, size=(32, 40))
    torch.manual_seed(0)
    model = models.create(
        "mask2former",
        len(CLASSES),
        backbone="resnet18",
        decoder="fpn",
        num_queries=8,
        layers=2,
        hidden=32,
        heads=4,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
    inputs = normalise(images)
    for step in range(60):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 10) * (1 - step / 60)
        terms = queries.losses(model(inputs), batch, classes=CLASSES, ignore_index=IGNORE, wanted=wanted)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return model.eval()(inputs), batch, labels


def test_a_tiny_model_learns_the_segments_of_two_images_by_heart() -> None:
    output, batch, labels = learnt_by_heart("segments")
    found = queries.maps(output, batch, classes=CLASSES)
    truth = torch.where(labels == IGNORE, 0, labels + 1)
    scores = panoptic_quality(
        [
            {"image_id": n, "map": truth[n], "segments_info": [{"id": k + 1, "category_id": k} for k in range(3)]}
            for n in range(2)
        ],
        [
            {
                "image_id": n,
                "map": found[n].ids_HW,
                "segments_info": [{"id": s.segment_id, "category_id": s.class_id} for s in found[n].segments],
            }
            for n in range(2)
        ],
        [{"id": k, "isthing": int(c.is_thing)} for k, c in enumerate(CLASSES)],
    )
    assert scores["all"]["pq"] > 0.8, scores["all"]


def test_and_the_things_of_them() -> None:
    output, batch, labels = learnt_by_heart("things")
    for found, labels_HW in zip(queries.detections(output, batch, classes=CLASSES), labels.numpy(), strict=True):
        assert found.masks is not None
        assert sorted(found.class_ids_N[:2].tolist()) == [BOX, DISC]
        assert found.scores_N[1] > 2 * found.scores_N[2], "one of each is surely there, and no more"
        for class_id, counts in zip(found.class_ids_N[:2].tolist(), found.masks, strict=False):
            inside_HW, truth_HW = decode_rle(counts, 32, 40) > 0, labels_HW == class_id
            assert (inside_HW & truth_HW).sum() > 0.7 * (inside_HW | truth_HW).sum()


def test_and_their_classes() -> None:
    output, batch, labels = learnt_by_heart("classes")
    found = queries.semantic_scores(output, batch).argmax(1)
    assert float((found == labels)[labels != IGNORE].float().mean()) > 0.9
