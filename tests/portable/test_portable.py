"""segpipe/portable: what is traced is the network, at the sizes that are said to be free and at no others."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from segpipe import models, portable
from segpipe.errors import InputError
from segpipe.models.spec import DenseOutput
from segpipe.tasks import TaskOps
from tests.fixtures.bundles import bundle_of
from tests.fixtures.small import CLASSES


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images_N3HW: Tensor) -> DenseOutput:
        return DenseOutput(scores_NKhw=self.layer(images_N3HW))


class OfOneSize(Convolved):
    """A place embedding: it adds only to images of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(2, 40, 48))

    def forward(self, images_N3HW: Tensor) -> DenseOutput:
        return DenseOutput(scores_NKhw=self.layer(images_N3HW) + self.places)


class Whimsical(Convolved):
    def forward(self, images_N3HW: Tensor) -> DenseOutput:
        factor = 1.0 if float(images_N3HW.sum()) > 0 else -1.0
        return DenseOutput(scores_NKhw=factor * self.layer(images_N3HW))


def traced(network: nn.Module, **options: bool) -> portable.Traced:
    return portable.trace(network, (40, 48), epsilon=1e-4, **options)


def test_a_convolution_is_free_in_every_axis() -> None:
    found = traced(Convolved())
    assert (found.free, found.why_fixed) == (("batch", "height", "width"), "")


def test_a_network_of_one_size_is_free_in_the_batch_and_says_why() -> None:
    found = traced(OfOneSize())
    assert found.free == ("batch",)
    assert "batch and height and width free: " in found.why_fixed


def test_free_axes_may_be_forgone() -> None:
    found = traced(Convolved(), dynamic=False)
    assert found.free == ()


def test_what_depends_on_the_pixels_cannot_be_traced() -> None:
    with pytest.raises(InputError, match=r"torch.export cannot follow this network: .*nothing free: "):
        traced(Whimsical())


def test_a_difference_is_a_share_of_the_largest_number() -> None:
    expected = torch.tensor([0.0, -8.0, 4.0])
    assert portable.largest_difference(expected, expected + torch.tensor([0.0, 0.0, 2.0])) == 0.25
    assert portable.largest_difference(expected, expected[:2]) == float("inf")
    assert not portable.largest_difference(expected, expected / 0) <= 1.0


def test_latencies_say_what_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, images_N3HW: Tensor) -> Tensor:
            raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda network: Broken())
    network = portable.Logits(Convolved())
    found = portable.latencies(network, {"pt2": network}, torch.zeros(1, 3, 8, 8), runs=2)
    eager, compiled, pt2 = found
    assert (eager.way, compiled.way, pt2.way) == ("eager", "compiled", "pt2")
    assert eager.seconds is not None
    assert pt2.seconds is not None
    assert (compiled.seconds, compiled.note) == (None, "RuntimeError: no compiler")


def test_images_without_a_label_decide_nothing() -> None:
    ops = SimpleNamespace(primary="miou", meter=list, scores=lambda _: {"pixel_accuracy": 0.0})
    with pytest.raises(InputError, match=r"miou of the 0 images .* nothing in them is labelled: ask for more --images"):
        portable.answers(Convolved(), [], bundle_of("unet", CLASSES), cast("TaskOps", ops))


def test_missing_names_the_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(find_spec=lambda name: None if name == "onnxscript" else object())
    monkeypatch.setattr("segpipe.portable.files.importlib.util", found)
    assert portable.missing("onnx") == ["onnxscript"]
    assert portable.missing("pt2") == []


def test_sizes_that_torch_cannot_solve_for_are_told_and_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    found = portable.trace(models.create("enet", 3), (64, 96), epsilon=1e-4)
    assert found.free == ("batch",)
    assert found.why_fixed.startswith("batch and height and width free: ")
    assert capfd.readouterr().err == ""
