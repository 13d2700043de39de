"""Fully connected layers as convolutions: the same sums, and which tensors of a classifier are taken."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from segpipe.errors import InputError
from segpipe.models.parts.convolutionalised import adapt_classifier, convolution_kernel, fc_convolution


def test_a_fully_connected_layer_is_a_convolution_over_the_whole_map() -> None:
    layer, maps = nn.Linear(4 * 3 * 3, 5), torch.randn(2, 4, 3, 3)
    found = F.conv2d(maps, convolution_kernel(layer.weight, 4), layer.bias)
    torch.testing.assert_close(found.flatten(1), layer(maps.flatten(1)))


def test_a_classifier_by_name_alone_is_refused() -> None:
    """As torchvision's IMAGENET1K_FEATURES, whose classifier is nan throughout."""
    state = {"features.0.weight": torch.ones(4, 3, 3, 3), "classifier.0.weight": torch.full((2, 36), torch.nan)}
    with pytest.raises(InputError, match=r"classifier.0.weight, which fc6 is made of, holds what is no number"):
        adapt_classifier(state)


@pytest.mark.parametrize(("name", "kernel"), [("vgg11_bn", (512, 7, 7)), ("alexnet", (256, 6, 6))])
def test_features_and_two_of_three_layers_are_taken(name: str, kernel: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None).state_dict()
    values = {key: torch.zeros(()).expand(value.shape) for key, value in theirs.items()}
    adapted = adapt_classifier(values)
    shapes = {key: tuple(value.shape) for key, value in adapted.items() if ".fc" in key}
    assert shapes == {
        "backbone.fc6.weight": (4096, *kernel),
        "backbone.fc6.bias": (4096,),
        "backbone.fc7.weight": (4096, 4096, 1, 1),
        "backbone.fc7.bias": (4096,),
    }
    features = {key.replace("features.", "backbone.", 1) for key in theirs if key.startswith("features.")}
    assert set(adapted) == features | set(shapes)


def test_what_is_no_classifier_stays_as_it_is() -> None:
    own = {"backbone.fc6.weight": torch.ones(1), "score_fr.bias": torch.ones(2)}
    assert adapt_classifier(own) == own


def test_a_new_layer_begins_as_vggs() -> None:
    torch.manual_seed(0)
    layer = fc_convolution(8, 64, 7)
    assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not layer.bias.any()
    assert layer.padding == (0, 0)
