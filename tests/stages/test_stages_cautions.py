"""Warnings about a dataset that is published all the same."""

from segpipe.stages.cautions import cautions
from segpipe.types import ClassInfo, Fingerprint, SplitFingerprint

CLASSES = (ClassInfo(name="ground", colour=(10, 200, 30)), ClassInfo(name="car", colour=(200, 10, 30)))


def test_a_class_that_occurs_nowhere_is_warned_of_once() -> None:
    split = SplitFingerprint(
        images=2,
        pixels=1,
        sizes={"1x1": 2},
        rgb_sum=(0, 0, 0),
        rgb_square_sum=(0, 0, 0),
        images_of_class=(2, 0),
        objects_of_class=(0, 0),
        objects_by_size=(0, 0, 0),
        crowds=0,
    )
    seen = Fingerprint(dataset_version="v", splits={"train": split, "val": split}, warnings=())
    (warning,) = cautions(None, CLASSES, [], [], seen, ())
    assert warning.startswith("1 of 2 classes occurs nowhere (car): nothing can be learnt of them.")
