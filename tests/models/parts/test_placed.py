"""What is done to a model on its way to a device: nothing that its answers or weights would show."""

import copy

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from segpipe import models
from segpipe.models.parts.placed import placed

# Of `tiny` a convolution would be too small to gain.
LARGE = {"segformer_b0": {"widths": [32, 64, 160, 256], "decoder_channels": 128}}


def kernels(model: nn.Module, images_NCHW: torch.Tensor) -> set[str]:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as found:
        model(images_NCHW)
    return {event.key for event in found.key_averages()}


def test_on_one_thread_large_convolutions_are_onednns() -> None:
    """The day that the first line fails torch has mended it, and `placed` is no more than `to`."""
    assert torch.get_num_threads() == 1
    images, convolution = torch.randn(2, 64, 9, 9), nn.Conv2d(64, 256, 1)
    assert "aten::_slow_conv2d_forward" in kernels(convolution, images)
    assert "aten::_slow_conv2d_forward" not in kernels(placed(convolution, "cpu"), images)


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp", "segformer_b0"])
def test_a_model_says_and_learns_the_same_and_keeps_its_weights(name: str) -> None:
    torch.manual_seed(0)
    plain = models.create(name, 3, **{**models.spec(name).tiny, **LARGE.get(name, {})}).eval()
    quick = copy.deepcopy(plain)
    assert placed(quick, torch.device("cpu")) is quick
    assert any(getattr(module, "dilation", None) == (2, 2) for module in quick.modules())
    images = torch.randn(2, 3, 33, 47)
    entering = [images, images.contiguous(memory_format=torch.channels_last)]
    answers = [model(each).logits_NKHW for model, each in zip((plain, quick), entering, strict=True)]
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-5)
    for answer in answers:
        answer.square().mean().backward()
    for (key, ours), (_, theirs) in zip(quick.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=key)
    assert quick.state_dict().keys() == plain.state_dict().keys()


def test_weights_lie_channels_last_unless_told_otherwise() -> None:
    for channels_last in (True, False):
        network = placed(models.create("unet", 3, **models.spec("unet").tiny), "cpu", channels_last=channels_last)
        turned = [
            module.weight.is_contiguous(memory_format=torch.channels_last)
            for module in network.modules()
            if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.in_channels > 1
        ]
        assert turned
        assert set(turned) == {channels_last}


def test_other_convolutions_and_devices_are_left_as_they_are() -> None:
    channels = 128
    layers = nn.Sequential(
        nn.Conv2d(channels, channels, 3),
        nn.Conv2d(channels, channels, 1, stride=2),
        nn.Conv2d(channels, channels, (1, 3)),
        nn.Conv2d(channels, channels - 1, 1),
    )
    placed(layers, "cpu")
    assert [layer.dilation for layer in layers] == [(1, 1)] * 4
    assert placed(nn.Conv2d(channels, channels, 1), "meta").dilation == (1, 1)
