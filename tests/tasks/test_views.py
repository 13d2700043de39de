"""Semantic predictions of images of any size, window by window: against one pass and the definition, and its memory."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from segpipe import models
from segpipe.data.batch import Batch, normalise
from segpipe.models import DenseOutput
from segpipe.models.spec import QueryOutput
from segpipe.tasks import views
from segpipe.tasks.views import label_maps, look, passes, probabilities, refined
from segpipe.types import CrfSettings, Inference, Window
from tests.fixtures.nearest_colour import K, NearestColour, bundle, halves, painted
from tests.fixtures.small import CLASSES, OPTIONS

ROOT = Path(__file__).parents[2]
WINDOW = Window(size=(32, 48), overlap=0.5)


def noise(*size: int) -> Batch:
    draw = torch.Generator().manual_seed(sum(size))
    return painted(torch.randint(0, K, size, generator=draw))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return models.create("unet", K, **OPTIONS["unet"]).eval()


@torch.inference_mode()
@pytest.mark.parametrize("size", [(32, 48), (31, 20), (1, 1)])
@pytest.mark.parametrize(("scales", "mirror"), [((1.0,), False), ((0.5, 1.0), True)])
def test_an_image_that_fits_a_window_is_seen_in_one_pass(
    network: nn.Module, size: tuple[int, int], scales: tuple[float, ...], mirror: bool
) -> None:
    batch = noise(2, *size)
    whole, *_ = look(network, batch, bundle(inference=Inference(scales=scales, mirror=mirror)))
    passes: list[int] = []
    hook = network.register_forward_hook(lambda *_: passes.append(1))
    found, *_ = look(network, batch, bundle(inference=Inference(scales=scales, mirror=mirror, window=WINDOW)))
    hook.remove()
    assert torch.equal(found, whole)
    assert len(passes) == len(scales) * (1 + mirror)


@torch.inference_mode()
@pytest.mark.parametrize("window", [None, WINDOW])
def test_every_view_enters_pixel_by_pixel_as_networks_are_placed(network: nn.Module, window: Window | None) -> None:
    entering: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    look(network, noise(2, 40, 56), bundle(inference=Inference(scales=(0.8, 1.0), mirror=True, window=window)))
    hook.remove()
    assert len(entering) >= 4
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in entering)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(33, 48), (32, 49), (100, 151), (7, 200)])
@pytest.mark.parametrize("input_scale", [1.0, 0.8, 2.0])
def test_a_model_that_looks_at_one_pixel_says_the_same_of_any_size(size: tuple[int, int], input_scale: float) -> None:
    model, batch = NearestColour(), painted(halves(*size))
    whole, *_ = look(model, batch, bundle(input_scale))
    model.seen.clear()
    found, *_ = look(model, batch, bundle(input_scale, inference=Inference(scales=(1.0,), mirror=False, window=WINDOW)))
    assert (found != whole).float().mean() < 0.002, "where two classes are level, rounding decides"
    inner = [max(1, round(side * input_scale)) for side in size]
    assert {seen[2:] for seen in model.seen} == {tuple(map(min, inner, WINDOW.size))}


@torch.inference_mode()
@pytest.mark.parametrize(("scales", "mirror"), [((1.0,), False), ((0.3, 1.0, 1.5), True)])
def test_windows_are_blended_as_logits_and_views_as_probabilities(
    network: nn.Module, scales: tuple[float, ...], mirror: bool
) -> None:
    """Against the definition, of whole maps in float64: importance x logit over importance, resized, softmax, sum."""
    size, window = (75, 110), Window(size=(32, 48), overlap=0.25)
    batch = noise(2, *size)
    found, *_ = look(network, batch, bundle(0.8, inference=Inference(scales=scales, mirror=mirror, window=window)))
    total = torch.zeros(2, K, *size, dtype=torch.float64)
    for scale in scales:
        h, w = (round(side * 0.8 * scale) for side in size)
        images = normalise(
            functional.interpolate(batch.images_N3HW.float(), size=(h, w), mode="bilinear", antialias=True)
        )
        for axes in ((), (3,)) if mirror else ((),):
            logits = blended(network, images, window, axes)
            logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            total += logits.softmax(1)
    best_two = total.topk(2, dim=1).values
    clear = best_two[:, 0] - best_two[:, 1] > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear].long(), total.argmax(1)[clear])


def blended(network: nn.Module, images: Tensor, window: Window, axes: tuple[int, ...]) -> Tensor:
    (h, w), (tall, wide) = images.shape[-2:], window.size
    above = torch.zeros(len(images), K, h, w, dtype=torch.float64)
    below = torch.zeros(h, w, dtype=torch.float64)

    def starts(length: int, most: int) -> list[int]:
        if length <= most:
            return [0]
        steps = -(-(length - most) // (most * (1 - window.overlap)))
        return [round(k * (length - most) / steps) for k in range(int(steps) + 1)]

    for top in starts(h, tall):
        for left in starts(w, wide):
            part = images[..., top : top + tall, left : left + wide]
            logits = network(part.flip(axes)).logits_NKHW.flip(axes).double()
            away = [
                torch.zeros(n, dtype=torch.float64)
                if n == length
                else (torch.arange(n, dtype=torch.float64) + 0.5 - n / 2) * 8 / n
                for n, length in zip(part.shape[-2:], (h, w), strict=True)
            ]
            importance = torch.exp(-(away[0].square()[:, None] + away[1].square()) / 2)
            above[..., top : top + tall, left : left + wide] += importance * logits
            below[top : top + tall, left : left + wide] += importance
    return above / below


@torch.inference_mode()
def test_one_logit_and_queries_are_seen_window_by_window_too() -> None:
    size = (70, 130)
    inference = Inference(scales=(1.0, 1.2), mirror=True, window=WINDOW)

    class First(NearestColour):
        def forward(self, images_NCHW: Tensor) -> DenseOutput:
            logits_NKHW = super().forward(images_NCHW).logits_NKHW
            return DenseOutput(scores_NKhw=logits_NKHW[:, 1:] - logits_NKHW[:, :1])

    class Queries(NearestColour):
        """A query a class: sure of it, and of its pixels."""

        def forward(self, images_NCHW: Tensor) -> Any:
            logits_NKHW = super().forward(images_NCHW).logits_NKHW
            masks_NKhw = functional.avg_pool2d(logits_NKHW.softmax(1), 4, ceil_mode=True)
            sure_KK = 40 * torch.eye(K, K + 1)
            return QueryOutput(
                class_logits_NQK=sure_KK.expand(len(masks_NKhw), K, K + 1),
                mask_logits_NQhw=40 * (masks_NKhw - 0.5),
                size=(images_NCHW.shape[2], images_NCHW.shape[3]),
            )

    two = CLASSES[:2]
    labels = (halves(*size) > 0).long()
    batch = painted(labels, two)
    description = bundle(classes=two, inference=inference)
    object.__setattr__(description, "sigmoid", True)
    found, *_ = look(First(two), batch, description)
    assert (found != labels).float().mean() < 0.03, "but at the border, once resized"
    labels = halves(*size)
    description = bundle(inference=inference)
    object.__setattr__(description, "arch", "mask2former")
    found, *_ = look(Queries(), painted(labels), description)
    assert (found != labels).float().mean() < 0.03


MEASURED = """
import resource, sys, torch
from dataclasses import replace
from tests.fixtures.nearest_colour import bundle
from segpipe.data.batch import Batch
from segpipe.models import DenseOutput
from segpipe.tasks.views import look
from segpipe.types import ClassInfo, Inference, Window

class Cheap(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_K11 = torch.nn.Parameter(torch.linspace(-1, 1, 8)[:, None, None])

    def forward(self, images_NCHW):
        return DenseOutput(scores_NKhw=images_NCHW[:, :1] * self.weight_K11)

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

H, W = 6000, 8000
images = torch.zeros(1, 3, H, W, dtype=torch.uint8)
images[..., : W // 2] = 255
batch = Batch(images_N3HW=images, labels_NHW=None, sample_ids=("s",), original_sizes=((H, W),))
inference = Inference(scales=(1.0,), mirror=False, window=Window(size=(256, 256), overlap=0.25))
classes = tuple(ClassInfo(name=str(k), colour=(k, k, k)) for k in range(8))
before = most()
with torch.inference_mode():
    ids, *_ = look(Cheap(), batch, bundle(classes=classes, inference=inference))
assert ids.shape == (1, H, W) and ids[0, :, : W // 2].eq(7).all() and ids[0, :, W // 2 :].eq(0).all()
print(most() - before)
"""


def test_an_image_of_48_megapixels_takes_a_fraction_of_its_scores() -> None:
    """The peak of a process of its own. Scores of all pixels of 8 classes are 1.5 GB, and one pass has them twice and
    more; three strips 256 rows high are 0.2 GB, a band whose classes are chosen 0.07, the answer, twice, 0.1."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.6e9


@torch.inference_mode()
@pytest.mark.parametrize("size", [(32, 48), (33, 20), (70, 50), (1, 1)])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize(("scales", "mirror", "input_scale"), [((1.0,), False, 1.0), ((0.5, 1.5), True, 0.75)])
def test_the_passes_that_are_told_are_those_that_are_made(
    network: nn.Module,
    size: tuple[int, int],
    window: Window | None,
    scales: tuple[float, ...],
    mirror: bool,
    input_scale: float,
) -> None:
    asked = bundle(inference=Inference(scales=scales, mirror=mirror, window=window), input_scale=input_scale)
    made = Counter[tuple[int, int]]()
    hook = network.register_forward_pre_hook(lambda _, inputs: made.update([tuple(inputs[0].shape[-2:])]))
    look(network, noise(1, *size), asked)
    hook.remove()
    assert passes(asked, size) == made


@torch.inference_mode()
def test_a_view_on_the_edge_of_two_sizes_has_one(network: nn.Module) -> None:
    """375 pixels by 0.6 and then by 1.5 would be 338, by both at once they are 337: all who ask hear the latter."""
    inference = Inference(scales=(1.5,), mirror=False, window=Window(size=(337, 337), overlap=0.5))
    asked = bundle(inference=inference, input_scale=0.6)
    assert passes(asked, (1, 375)) == {(1, 337): 1}
    entering: list[tuple[int, ...]] = []
    hook = network.register_forward_pre_hook(lambda _, inputs: entering.append(tuple(inputs[0].shape[-2:])))
    look(network, noise(1, 1, 375), asked)
    hook.remove()
    assert entering == [(1, 337)]


@torch.inference_mode()
@pytest.mark.parametrize(
    "inference",
    [
        Inference(scales=(1.0,), mirror=False),
        Inference(scales=(0.5, 1.0), mirror=True),
        Inference(scales=(1.0,), mirror=False, window=WINDOW),
        Inference(scales=(1.0,), mirror=True, crf=CrfSettings(iterations=2)),
    ],
)
def test_how_unsure_a_model_is_where_that_is_asked(network: nn.Module, inference: Inference) -> None:
    batch, asked = noise(2, 40, 56), bundle(inference=inference)
    plain, counted = look(network, batch, asked), look(network, batch, asked, beside=("levels",))
    ids, unsure, levels, confidence, _ = looked = look(network, batch, asked, beside=("confidence",))
    assert plain.uncertainty_NHW is plain.levels_NKP is plain.confidence_NHW is None, "nothing that nobody asked for"
    assert counted.uncertainty_NHW is counted.confidence_NHW is None
    assert counted.levels_NKP is not None
    assert levels is unsure is None
    assert torch.equal(ids, plain.ids_NHW), "asking changes no label"
    assert torch.equal(counted.ids_NHW, plain.ids_NHW)
    given = probabilities(network, batch, asked)
    sure = refined(batch, given, inference.crf) if inference.crf else given
    assert confidence is not None
    torch.testing.assert_close(confidence, sure.amax(1), atol=1e-5, rtol=0)
    for found, sure_HW in zip(label_maps(looked), confidence.numpy(), strict=True):
        assert (found.confidence_HW == sure_HW).all()
        assert found.uncertainty_HW is None, "the variance of samples, of which there are none"


@torch.inference_mode()
@pytest.mark.parametrize("mirror", [False, True])
def test_what_queries_say_together_is_no_logit(monkeypatch: pytest.MonkeyPatch, mirror: bool) -> None:
    """It sums to nothing in particular: the class's share of it tells how sure it is, and nothing said is not sure."""
    said_NKHW = torch.tensor([[0.9, 0.0], [0.1, 0.0], [0.2, 0.0]]).reshape(1, 3, 1, 2)
    monkeypatch.setattr(views, "_bands", lambda *_, **__: iter([(said_NKHW, None)]))
    asked = replace(bundle(inference=Inference(scales=(1.0,), mirror=mirror)), arch="mask2former")
    (found,) = label_maps(look(nn.Identity(), noise(1, 1, 2), asked, beside=("confidence",)))
    assert found.confidence_HW is not None
    assert found.confidence_HW[0].tolist() == pytest.approx([0.75, 0.0])
