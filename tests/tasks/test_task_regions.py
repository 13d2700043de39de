"""Objects on both sides of a region model: masks pasted where they were learnt, targets without crowds."""

import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from segpipe.data.batch import Batch
from segpipe.data.objects import Objects, boxes_of
from segpipe.errors import InputError, NonFiniteError
from segpipe.masks import decode_rle
from segpipe.models.spec import Regions
from segpipe.tasks import regions as tasks_regions
from segpipe.tasks.regions import detections_of, region_targets
from segpipe.types import ClassInfo
from tests.fixtures.regions import pasted

CLASSES = (
    ClassInfo(name="ground", colour=(0, 0, 0)),
    ClassInfo(name="box", colour=(1, 1, 1), is_thing=True),
    ClassInfo(name="disc", colour=(2, 2, 2), is_thing=True),
)


def shapes(size: tuple[int, int], seed: int) -> list[np.ndarray]:
    """A box, a disc and a rough blot, small and large, somewhere in an image."""
    draw = np.random.default_rng(seed)
    rows, columns = np.ogrid[: size[0], : size[1]]
    found = []
    for radius in (3, 5, 9, 20):
        y, x = (draw.uniform(radius, side - radius) for side in size)
        found.append((abs(rows - y) < radius) & (abs(columns - x) < radius * 0.7))
        found.append((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        found.append(((rows - y) ** 2 + (columns - x) ** 2) < radius**2 * draw.uniform(0.5, 1, size).round(1))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_roi_align_took_from_a_mask_is_pasted_where_it_was(seed: int) -> None:
    """As a mask is learnt (torchvision's targets), so it comes back: pixel by pixel where it is not larger than 28."""
    size = (64, 80)
    masks_NHW = torch.from_numpy(np.stack(shapes(size, seed)))
    boxes_N4 = boxes_of(masks_NHW)
    targets = project_masks_on_boxes(masks_NHW.float(), boxes_N4, torch.arange(len(boxes_N4)), 28)
    ours, usual = [], []
    for mask_HW, box_4, target_ss in zip(masks_NHW.numpy(), boxes_N4, targets, strict=True):
        found = pasted(target_ss, box_4.tolist(), size=size, seen=size)
        theirs = paste_masks_in_image(target_ss[None, None], box_4[None], size)[0, 0].numpy() > 0.5
        ours.append((found & mask_HW).sum() / (found | mask_HW).sum())
        usual.append((theirs & mask_HW).sum() / (theirs | mask_HW).sum())
    assert min(ours) > 0.85
    assert np.mean(ours) > np.mean(usual) + 0.05, "torchvision's own pasting"


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_no_box_is_too_thin_or_too_near_the_border_to_paste(
    size: tuple[int, int], seen: tuple[int, int], corners: list[float]
) -> None:
    (left, right), (top, bottom) = sorted(corners[:2]), sorted(corners[2:])
    box = [left * seen[1], top * seen[0], right * seen[1], bottom * seen[0]]
    found = pasted(torch.ones(28, 28), box, size=size, seen=seen)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    for at, (inside, first, last) in enumerate(((rows, top, bottom), (columns, left, right))):
        if len(inside):
            slack = 0.5 * size[at] / seen[at] + 1
            assert first * size[at] - slack <= inside[0] <= inside[-1] <= last * size[at] + slack


def regions(num: int, *, size: tuple[int, int], masks: bool = True, seed: int = 0) -> Regions:
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.random((num, 2, 2)), axis=1) * (size[1], size[0])
    return Regions(
        boxes_M4=torch.tensor(corners.reshape(num, 4), dtype=torch.float32),
        class_ids_M=torch.tensor(draw.integers(0, len(CLASSES), num)),
        scores_M=torch.tensor(np.sort(draw.random(num))[::-1].copy(), dtype=torch.float32),
        mask_probabilities_Mss=torch.tensor(draw.random((num, 28, 28)), dtype=torch.float32) if masks else None,
    )


def test_three_hundred_masks_of_a_large_photograph_take_little_memory() -> None:
    found = regions(300, size=(2000, 2000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = detections_of(found, size=(2000, 2000), seen=(2000, 2000), classes=CLASSES, sample_id="large")
    assert told.masks is not None
    assert len(told.masks) == len(told) == int((found.class_ids_M > 0).sum())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024, "KiB; all at once take 1200 MiB"


def test_what_a_model_saw_resized_is_told_in_pixels_of_the_original() -> None:
    found = regions(6, size=(30, 40))
    told = detections_of(found, size=(60, 120), seen=(30, 40), classes=CLASSES, sample_id="s")
    kept = found.class_ids_M > 0
    assert told.class_ids_N.tolist() == found.class_ids_M[kept].tolist(), "the ground is no object"
    assert told.scores_N.tolist() == found.scores_M[kept].tolist()
    expected = found.boxes_M4[kept].double() * torch.tensor([3, 2, 3, 2])
    assert np.allclose(told.boxes_N4, expected.clamp(max=torch.tensor([120.0, 60, 120, 60], dtype=torch.float64)))
    assert told.size == (60, 120)
    assert told.masks is not None
    assert {decode_rle(mask, 60, 120).shape for mask in told.masks} == {(60, 120)}
    bare = detections_of(
        regions(6, size=(30, 40), masks=False), size=(60, 120), seen=(30, 40), classes=CLASSES, sample_id="s"
    )
    assert bare.masks is None
    assert np.array_equal(bare.boxes_N4, told.boxes_N4)
    none = detections_of(regions(0, size=(4, 4)), size=(4, 4), seen=(4, 4), classes=CLASSES, sample_id="s")
    assert (len(none), none.boxes_N4.shape, none.masks) == (0, (0, 4), ())


def test_a_mask_is_the_same_however_many_of_its_pixels_are_looked_up_together(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.rand(28, 28, generator=torch.Generator().manual_seed(4))
    whole = pasted(drawn, (3.2, 1.7, 77.9, 58.4), size=(120, 160), seen=(60, 80))
    for at_once in (1, 500, 5000):
        monkeypatch.setattr(tasks_regions, "PIXELS_AT_ONCE", at_once)
        again = pasted(drawn, (3.2, 1.7, 77.9, 58.4), size=(120, 160), seen=(60, 80))
        assert np.array_equal(again, whole)


@pytest.mark.parametrize("field", ["boxes_M4", "scores_M"])
def test_a_model_that_has_diverged_is_said_to_have(field: str) -> None:
    found = regions(3, size=(30, 40))
    getattr(found, field)[1] = float("nan")
    with pytest.raises(NonFiniteError, match=r"sample s7: .* not finite; it has diverged"):
        detections_of(found, size=(30, 40), seen=(30, 40), classes=CLASSES, sample_id="s7")


def test_a_model_learns_of_things_and_of_no_crowd() -> None:
    masks_NHW = torch.rand(4, 5, 6) > 0.5
    objects = Objects(
        class_ids_N=torch.tensor([1, 0, 2, 2]),
        segment_ids_N=torch.tensor([1, 2, 3, 4]),
        is_crowd_N=torch.tensor([False, False, True, False]),
        masks_NHW=masks_NHW,
        boxes_N4=boxes_of(masks_NHW),
        keypoints_NP3=None,
    )
    batch = Batch(
        images_N3HW=torch.zeros(1, 3, 5, 6),
        labels_NHW=None,
        sample_ids=("s",),
        original_sizes=((5, 6),),
        objects=(objects,),
    )
    (target,) = region_targets(batch, CLASSES, torch.device("cpu"))
    assert target.class_ids_M.tolist() == [1, 2]
    assert torch.equal(target.masks_MHW, masks_NHW[[0, 3]])
    assert torch.equal(target.boxes_M4, objects.boxes_N4[[0, 3]])
    (elsewhere,) = region_targets(batch, CLASSES, torch.device("meta"))
    assert (elsewhere.boxes_M4.device.type, elsewhere.masks_MHW.device.type) == ("meta", "cpu"), "large, not for all"
    bare = Batch(images_N3HW=torch.zeros(1, 3, 5, 6), labels_NHW=None, sample_ids=("s",), original_sizes=((5, 6),))
    with pytest.raises(InputError, match="samples s: came without objects"):
        region_targets(bare, CLASSES, torch.device("cpu"))
