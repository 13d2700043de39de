"""Models of pixels behind the tasks of objects: the map that is painted, the loss on it, the objects cut from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe.config import AugmentConfig
from segpipe.data.augment import augment
from segpipe.data.batch import collate, normalise
from segpipe.data.decode import decode
from segpipe.errors import InputError, NonFiniteError
from segpipe.masks import decode_rle, encode_rle
from segpipe.models.spec import DenseOutput
from segpipe.tasks.instance import InstanceOps
from segpipe.tasks.painting import UNKNOWN, objects_of_map, painted_labels
from segpipe.types import Segment
from tests.fixtures.cells import CELL_CLASSES, cells
from tests.fixtures.regions import bundle
from tests.fixtures.small import CLASSES, IGNORE
from tests.tasks.test_task_objects import SIZE, SQUARES, batch_of, mask_of, squares

DEVICE = torch.device("cpu")
PAINTED = np.zeros(SIZE, dtype=np.int64)
for number, value in ((1, 2), (2, 2), (3, UNKNOWN)):
    PAINTED[mask_of(*SQUARES[number]) > 0] = value


class Pixels(nn.Module):
    """Gives every pixel the scores that it was made with, at the size of its images."""

    def __init__(self, labels_HW: np.ndarray) -> None:
        super().__init__()
        scores_HWK = functional.one_hot(torch.from_numpy(labels_HW), len(CLASSES) + 1).float() * 9
        self.scores = nn.Parameter(scores_HWK.permute(2, 0, 1)[None])

    def forward(self, images_NCHW: Tensor, targets: object = None) -> DenseOutput:
        scores = functional.interpolate(self.scores, size=images_NCHW.shape[-2:], mode="nearest")
        return DenseOutput(scores_NKhw=scores.expand(len(images_NCHW), -1, -1, -1))


def test_objects_paint_the_map_that_is_learned() -> None:
    labels_NHW = painted_labels(batch_of(squares(), squares("s/1", segments=())), CLASSES, DEVICE, ignore_index=IGNORE)
    assert labels_NHW.dtype == torch.int64
    assert np.array_equal(labels_NHW[0].numpy(), PAINTED), "things by class, crowds unknown, stuff background"
    assert not labels_NHW[1].any()


@pytest.mark.parametrize("turned", [False, True])
def test_of_objects_that_overlap_the_smallest_is_seen_and_a_crowd_is_behind(turned: bool) -> None:
    large, small = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    large[2:18, 2:28], small[5:9, 5:9] = 1, 1
    segments = [
        Segment(segment_id=1, class_id=1, area=1, rle=encode_rle(large)["counts"]),
        Segment(segment_id=2, class_id=2, area=1, rle=encode_rle(small)["counts"]),
        Segment(segment_id=3, class_id=2, area=1, is_crowd=True, rle=encode_rle(np.ones(SIZE))["counts"]),
    ]
    sample = squares(segments=tuple(segments[::-1] if turned else segments))
    (labels_HW,) = painted_labels(batch_of(sample), CLASSES, DEVICE, ignore_index=IGNORE).numpy()
    assert np.array_equal(labels_HW, np.where(small, 3, np.where(large, 2, UNKNOWN)))


def test_what_nobody_says_is_no_background_and_objects_lie_in_front() -> None:
    """Ignored pixels of a label map, and the padding of a crop, of which a dataset without label maps tells, too."""
    ignored, outside = np.zeros(SIZE, dtype=np.uint8), torch.zeros(1, *SIZE, dtype=torch.bool)
    ignored[:5], outside[:, :, -3:] = IGNORE, True
    expected_HW = np.where(PAINTED > 0, PAINTED, np.where(ignored == IGNORE, UNKNOWN, PAINTED))
    labelled = batch_of(squares(label_map=ignored.tobytes()))
    (labels_HW,) = painted_labels(labelled, CLASSES, DEVICE, ignore_index=IGNORE).numpy()
    assert np.array_equal(labels_HW, expected_HW)
    (labels_HW,) = painted_labels(replace(labelled, outside_NHW=outside), CLASSES, DEVICE, ignore_index=IGNORE).numpy()
    assert np.array_equal(labels_HW, np.where(outside[0].numpy(), UNKNOWN, expected_HW))
    (labels_HW,) = painted_labels(labelled, CLASSES, DEVICE, ignore_index=77).numpy()
    assert np.array_equal(labels_HW, PAINTED), "255 is a class where another id is ignored"


def test_a_thing_is_no_background_where_its_object_was_dropped() -> None:
    """Every pixel of the cells is a thing's; a crop drops those of which it shows too little."""
    config = AugmentConfig(crop=(24, 30), scale=(1.0, 1.0), flip=0.0, colour=0.0, min_area=10)
    sample, shown, dropped = cells(48, 60), 0, 0
    for epoch in range(8):
        crop = augment(decode(sample), config, input_scale=1.0, seed=0, epoch=epoch, ignore_index=IGNORE, source=sample)
        assert crop.objects is not None
        assert crop.labels_HW is not None
        (labels_HW,) = painted_labels(collate([crop]), CELL_CLASSES, DEVICE, ignore_index=IGNORE)
        kept_HW = crop.objects.masks_NHW.any(0)
        assert torch.equal(labels_HW, torch.where(kept_HW, crop.labels_HW.long() + 1, UNKNOWN))
        shown, dropped = shown + int(kept_HW.sum()), dropped + int((~kept_HW).sum())
    assert shown > dropped > 0


def test_padding_teaches_nothing() -> None:
    """Of a crop half of which is padding the loss is that of the other half, whatever the model says of the rest."""
    ops = InstanceOps(CLASSES, IGNORE)
    config = AugmentConfig(crop=(40, 60), scale=(1.0, 1.0), flip=0.0, colour=0.0)
    sample = squares()
    crop = augment(decode(sample), config, input_scale=1.0, seed=0, epoch=0, ignore_index=IGNORE, source=sample)
    batch = collate([crop])
    assert batch.outside_NHW is not None
    assert int((~batch.outside_NHW).sum()) == SIZE[0] * SIZE[1]
    scores = torch.randn(1, len(CLASSES) + 1, 40, 60, generator=torch.Generator().manual_seed(1))
    other = torch.where(batch.outside_NHW[:, None], -scores, scores)
    one, two = (
        ops.losses(lambda images, targets, logits=logits: DenseOutput(scores_NKhw=logits), batch.images_N3HW, batch)
        for logits in (scores, other)
    )
    assert float(one["main"]) == float(two["main"]) > 0


def test_the_loss_is_cross_entropy_where_it_is_known_what_is_there() -> None:
    ops, batch = InstanceOps(CLASSES, IGNORE), batch_of(squares())
    images_N3HW = normalise(batch.images_N3HW)
    scores = torch.randn(1, len(CLASSES) + 1, *SIZE, generator=torch.Generator().manual_seed(1))
    terms = ops.losses(lambda images, targets: DenseOutput(scores_NKhw=scores), images_N3HW, batch)
    known_HW = PAINTED != UNKNOWN
    by_hand = -scores.log_softmax(1)[0].numpy()[PAINTED[known_HW], *known_HW.nonzero()]
    assert list(terms) == ["main"]
    assert float(terms["main"]) == pytest.approx(by_hand.mean(), rel=1e-5)
    with pytest.raises(InputError, match="samples s/0: came without objects"):
        ops.losses(Pixels(PAINTED.clip(0)), images_N3HW, replace(batch, objects=None))


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_a_perfect_map_is_cut_into_the_objects(input_scale: float) -> None:
    ops, batch = InstanceOps(CLASSES, IGNORE), batch_of(squares())
    model = Pixels(np.where(PAINTED == UNKNOWN, 1, PAINTED))  # class 0 where the crowd is, which is stuff
    with torch.inference_mode():
        (said,) = ops.predict(model, batch, bundle(CLASSES, input_scale=input_scale))
    assert said.class_ids_N.tolist() == [1, 1]
    off = 0 if input_scale == 1 else 1
    assert np.abs(np.sort(said.boxes_N4, axis=0) - [[3, 2, 9, 8], [20, 10, 26, 16]]).max() <= off
    assert said.masks is not None
    for mask, box in zip(said.masks, said.boxes_N4.astype(int).tolist(), strict=True):
        inside = decode_rle(mask, *SIZE)
        assert inside.sum() == inside[box[1] : box[3], box[0] : box[2]].sum() >= (36 if input_scale == 1 else 32)


def test_scores_of_half_precision_are_resized_in_float32() -> None:
    """As a training's validation has them; an evaluation, whose models give float32, then finds the same objects."""
    ops, batch = InstanceOps(CLASSES, IGNORE), batch_of(squares())
    coarse = torch.randn(1, len(CLASSES) + 1, 7, 9, generator=torch.Generator().manual_seed(2)).bfloat16()
    found = []
    for scores in (coarse, coarse.float()):
        model = Pixels(PAINTED.clip(0))
        model.forward = lambda images, targets, given=scores: DenseOutput(scores_NKhw=given, size=SIZE)  # type: ignore[method-assign,misc]
        found += ops.predict(model, batch, bundle(CLASSES))
    one, other = found
    assert len(one.scores_N) == len(other.scores_N) > 0
    assert np.array_equal(one.scores_N, other.scores_N)
    assert one.masks == other.masks


def test_a_map_that_is_not_finite_names_its_sample() -> None:
    with pytest.raises(NonFiniteError, match=r"sample s/9: the model's scores are not finite"):
        objects_of_map(torch.full((4, *SIZE), float("nan")), size=SIZE, classes=CLASSES, sample_id="s/9")
