"""What an image is said to take, before it is looked at, against the peak of a process that looks at it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segpipe.tasks.memory import numbers_of_image
from segpipe.types import CrfSettings, Inference, Window
from tests.fixtures.bundles import bundle_of
from tests.fixtures.nearest_colour import bundle
from tests.fixtures.small import CLASSES, ONE_VIEW

ROOT = Path(__file__).parents[2]

MEASURED = """
import json, sys
import numpy as np, torch
from segpipe import models
from segpipe.data.batch import Batch, GivenObjects
from segpipe.tasks import TASKS
from segpipe.tasks.memory import numbers_of_image
from segpipe.types import ClassInfo, CrfSettings, Inference, Window
from tests.fixtures.bundles import bundle_of

asked = json.loads(sys.argv[1])
arch, options, num_classes, num_boxes = asked["arch"], asked["options"], asked["classes"], asked["boxes"]
inference = Inference(
    scales=(1.0,),
    mirror=False,
    window=Window(size=(128, 128), overlap=0.25) if asked["crf"] or asked["samples"] else None,
    crf=CrfSettings(iterations=1) if asked["crf"] else None,
    samples=asked["samples"],
)
classes = tuple(ClassInfo(name=f"c{k}", colour=(k, k, k), is_thing=True) for k in range(num_classes))
bundle = bundle_of(arch, classes, options=options, inference=inference, task=models.spec(arch).task)
model, ops = models.create(arch, num_classes, **options).eval(), TASKS[bundle.task](classes, 255)

def most():
    if sys.platform != "linux":
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss, which on Linux begins at what the parent had.
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def look(height, width):
    # As a photograph: smooth, with noise.
    rows, columns = np.mgrid[:height, :width]
    smooth = np.stack([128 + 90 * np.sin(rows / 50 + k) * np.cos(columns / 70) for k in range(3)])
    noisy = smooth + np.random.default_rng(0).normal(0, 6, smooth.shape)
    boxes_M4 = torch.tensor([[0.0, 0, width, height]] * num_boxes).double()
    given = (GivenObjects(boxes_M4=boxes_M4, class_ids_M=None),)
    ops.predict(model, Batch(
        images_N3HW=torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))[None],
        labels_NHW=None,
        sample_ids=("s",),
        original_sizes=((height, width),),
        given=given if num_boxes else None,
    ), bundle)

torch.set_num_threads(1)
with torch.inference_mode():
    look(48, 48)  # libraries, and what they keep
    before = most()
    look(*asked["size"])
print(json.dumps([numbers_of_image(bundle, *asked["size"], num_boxes=num_boxes) * 4, most() - before]))
"""
USUAL: dict[str, Any] = {"options": {}, "classes": 12, "boxes": 0, "crf": False, "samples": 0, "size": (500, 800)}


@pytest.mark.parametrize(
    "case",
    [
        {"arch": "lraspp", "crf": True},
        {"arch": "segformer_b0", "samples": 2, "classes": 40},
        {"arch": "watershed"},
        {"arch": "graph_cut", "classes": 3, "options": {"cycles": 1}, "size": (300, 400)},
        {"arch": "grabcut", "classes": 1, "boxes": 500},
    ],
    ids=lambda case: "-".join(map(str, case.values())),
)
def test_what_an_image_is_said_to_take_is_what_it_takes_within_two_times(case: dict[str, Any]) -> None:
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, json.dumps({**USUAL, **case})]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said, seen = json.loads(done.stdout)
    assert seen > 1e8, "more than what a process takes for other things"
    assert 0.5 < said / seen < 2, f"said {said / 1e6:.0f} MB, seen {seen / 1e6:.0f}"


def test_views_windows_and_members_are_counted() -> None:
    size, pixels = (300, 500), 300 * 500
    one = numbers_of_image(bundle(), *size)
    assert one == pixels * (208 + 3)
    twice = numbers_of_image(bundle(2.0), *size)
    assert twice == pixels * (4 * (208 + 3) + 3), "logits of the enlarged image, and of the image"
    mirrored = numbers_of_image(bundle(inference=Inference(scales=(1.0,), mirror=True)), *size)
    assert mirrored == one + pixels * 2 * 3
    window = Window(size=(50, 100), overlap=0.5)
    windowed = Inference(scales=(1.0,), mirror=False, window=window)
    assert numbers_of_image(bundle(inference=windowed), *size) == 50 * 100 * (208 + 3) + 3 * 3 * 50 * 500
    sampled = Inference(scales=(1.0,), mirror=False, window=window, samples=40)
    strips = 3 * 3 * 50 * 500
    assert numbers_of_image(bundle(inference=sampled), *size) == 50 * 100 * (208 + 3) + strips + (2 + 3) * 3 * pixels
    assert numbers_of_image(bundle(inference=sampled), 50, 100) == 50 * 100 * (208 + 3 + 5 * 3), "it fits a window"
    refined = Inference(scales=(1.0,), mirror=False, window=window, crf=CrfSettings())
    assert numbers_of_image(bundle(inference=refined), *size) > pixels * 100, "windows do not bound a CRF"
    members = [{"arch": "graph_cut", "options": {}}, {"arch": "unet", "options": {}}]
    ensemble = bundle_of("ensemble", CLASSES, options={"members": members}, inference=ONE_VIEW)
    assert numbers_of_image(ensemble, *size) == pixels * (320 + (1 + 5) * 3)
