"""The baselines as models: nothing but a method and what was counted; their libraries cost nobody who does not ask."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segpipe import models
from segpipe.classical import colour_thresholds, graph_cut, kmeans, spectral, watershed
from segpipe.classical.appearance import count
from segpipe.data.batch import normalise
from segpipe.errors import InputError
from segpipe.models.spec import device_of

METHODS = {
    "colour_thresholds": colour_thresholds.segment,
    "kmeans": kmeans.segment,
    "spectral_superpixels": spectral.segment,
    "watershed": watershed.segment,
    "graph_cut": graph_cut.segment,
}
LIBRARIES = {
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "threadpoolctl": "threadpoolctl",
}


def streets(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of two classes, noisy halves, and their labels."""
    rng = np.random.default_rng(number)
    labels_NHW = np.zeros((2, 20, 30), np.int64)
    labels_NHW[0, 9:], labels_NHW[1, :, 12:] = 1, 1
    colours = np.array([[90, 140, 220], [110, 110, 100]])[labels_NHW] + rng.integers(-20, 21, (2, 20, 30, 3))
    return torch.from_numpy(colours.astype(np.uint8)).permute(0, 3, 1, 2), torch.from_numpy(labels_NHW)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_says_what_its_method_says_of_what_it_has_counted(name: str) -> None:
    images_N3HW, labels_NHW = streets(0)
    model = models.create(name, 2)
    model.observe(normalise(images_N3HW[:1]), labels_NHW[:1])  # type: ignore[operator]
    first = images_N3HW[0].permute(1, 2, 0).numpy()
    known = count(first, labels_NHW[0].numpy(), 2)
    asked_N3HW, _ = streets(1)
    found_NKHW = model(normalise(asked_N3HW)).logits_NKHW
    for asked_3HW, found_KHW in zip(asked_N3HW, found_NKHW, strict=True):
        expected_KHW = METHODS[name](asked_3HW.permute(1, 2, 0).numpy(), known, **models.spec(name).options)
        assert np.array_equal(found_KHW.numpy(), expected_KHW)
    assert found_NKHW.dtype == torch.float32


def test_what_was_derived_is_kept_until_the_counts_change() -> None:
    images_N3HW, labels_NHW = streets(0)
    model: Any = models.create("colour_thresholds", 2)
    model.observe(normalise(images_N3HW), labels_NHW)
    before = model._appearance()
    model(normalise(images_N3HW))
    assert model._appearance() is before
    model.observe(normalise(images_N3HW), labels_NHW)
    after = model._appearance()
    assert after is not before
    assert np.array_equal(after.colours_KB, 2 * before.colours_KB)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kmeans", {"clusters": 0}, "clusters: expected a whole number of at least 1, found 0"),
        ("kmeans", {"place_weight": -0.5}, "place_weight: expected a number of at least 0, found -0.5"),
        ("spectral_superpixels", {"superpixels": 0}, "superpixels: expected a whole number"),
        ("spectral_superpixels", {"colour_scale": 0.0}, "colour_scale: expected a number above 0, found 0.0"),
        ("watershed", {"smoothing": float("nan")}, "smoothing: expected a number above 0, found nan"),
        ("watershed", {"depth": -1.0}, "depth: expected a number of at least 0, found -1.0"),
        ("graph_cut", {"smoothness": float("inf")}, "smoothness: expected a number of at least 0, found inf"),
        ("graph_cut", {"cycles": 0}, "cycles: expected a whole number of at least 1, found 0"),
        ("grabcut", {"iterations": 0}, "iterations: expected a whole number of at least 1, found 0"),
        ("grabcut", {"context": 0.0}, "context: expected a number above 0, found 0.0"),
        ("colour_thresholds", {"bins": 8}, "colour_thresholds: unknown option 'bins'; it has none"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create(name, 3, **options)


def test_a_mask_for_each_box_and_none_for_none() -> None:
    images_N3HW, _ = streets(0)
    model = models.create("grabcut", 2, least_side=1)
    boxes = [torch.tensor([[2.0, 2, 12, 18], [5, 5, 25, 15]]), torch.zeros(0, 4)]
    first, second = model(normalise(images_N3HW), boxes).masks
    assert (first.shape, second.shape) == ((2, 20, 30), (0, 20, 30))
    assert (first.dtype, second.dtype) == (torch.bool, torch.bool)
    with pytest.raises(ValueError, match="zip"):
        model(normalise(images_N3HW), boxes[:1])


def test_a_model_without_numbers_lies_on_the_cpu() -> None:
    assert device_of(models.create("grabcut", 2)) == torch.device("cpu")
    assert device_of(models.create("kmeans", 2).to("meta")) == torch.device("meta")


@pytest.mark.parametrize("name", [*METHODS, "grabcut"])
def test_a_model_requires_the_libraries_that_it_imports_and_no_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_N3HW, _ = streets(0)
    model = models.create(name, 2, **models.spec(name).tiny)
    asked = (normalise(images_N3HW[:1]), *([[torch.tensor([[2.0, 2, 12, 18]])]] if name == "grabcut" else []))
    model(*asked)  # so that a library brings what it needs itself
    required = models.requirements(name, {})
    assert set(required) <= set(LIBRARIES)
    for distribution in set(LIBRARIES) - set(required):
        _forget(LIBRARIES[distribution], monkeypatch)
    model(*asked)
    for distribution in required:
        with monkeypatch.context() as patch:
            _forget(LIBRARIES[distribution], patch)
            with pytest.raises(ImportError, match=LIBRARIES[distribution]):
                model(*asked)


def _forget(library: str, patch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    for module in [*sys.modules, library]:
        if module.partition(".")[0] == library:
            patch.setitem(sys.modules, module, None)


def test_listing_and_checking_models_imports_none_of_the_libraries() -> None:
    script = (
        "import json, sys\n"
        "from segpipe import models\n"
        "for name in ('kmeans', 'grabcut', 'spectral_superpixels'): models.check(name, {})\n"
        f"print(json.dumps([name for name in {[*LIBRARIES.values()]} if name in sys.modules]))"
    )
    answer = subprocess.check_output([sys.executable, "-c", script], cwd=Path(__file__).parents[2], text=True)
    assert json.loads(answer) == []
