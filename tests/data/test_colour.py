"""Colour changes on the device, against torchvision's; what enters the model in training."""

import random

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from segpipe.data.batch import Batch, normalise, training_inputs
from segpipe.data.colour import change_colours, draw_colour

CPU = torch.device("cpu")


def images(low: int = 0, high: int = 256) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(low, high, (3, 5, 7, 3), generator=draw, dtype=torch.uint8).permute(0, 3, 1, 2)


def batch(images_N3HW: torch.Tensor, colours_N3: torch.Tensor | None) -> Batch:
    ids = tuple(f"s/{number}" for number in range(len(images_N3HW)))
    return Batch(
        images_N3HW=images_N3HW,
        labels_NHW=None,
        sample_ids=ids,
        original_sizes=((5, 7),) * len(ids),
        colours_N3=colours_N3,
    )


def test_brightness_saturation_and_contrast_are_torchvisions() -> None:
    # Of middle brightness, so that torchvision, which cuts at 0 and 255 after every step, cuts nothing on the way.
    pixels_N3HW, colours = images(90, 140), [(1.2, 0.9, 1.3), (0.8, 1.2, 0.5), (1.1, 0.7, 1.2)]
    changed_N3HW = change_colours(pixels_N3HW, torch.tensor(colours))
    for pixels_3HW, found_3HW, (brightness, contrast, saturation) in zip(
        pixels_N3HW, changed_N3HW, colours, strict=True
    ):
        expected_3HW = reference.adjust_brightness(pixels_3HW / 255, brightness)
        expected_3HW = reference.adjust_saturation(expected_3HW, saturation)
        expected_3HW = reference.adjust_contrast(expected_3HW, contrast)
        # torchvision's weights of grey have four digits, and so have sums that differ from one.
        torch.testing.assert_close(found_3HW, expected_3HW * 255, atol=0.1, rtol=0)


def test_factors_of_one_change_nothing_and_no_factor_leaves_the_range() -> None:
    torch.testing.assert_close(change_colours(images(), torch.ones(3, 3)), images().float(), atol=1e-3, rtol=0)
    wild_N3HW = change_colours(images(), torch.tensor([[1.9, 1.9, 1.9], [0.1, 1.9, 1.9], [1.9, 0.1, 0.1]]))
    assert 0 <= float(wild_N3HW.min()) <= float(wild_N3HW.max()) <= 255


def test_an_image_does_not_meet_the_colours_of_its_neighbours() -> None:
    colours_N3 = torch.tensor([(1.2, 0.9, 1.3), (0.8, 1.2, 0.5), (1.1, 0.7, 1.2)])
    together_N3HW = change_colours(images(), colours_N3)
    alone_13HW = change_colours(images()[1:2], colours_N3[1:2])
    torch.testing.assert_close(together_N3HW[1:2], alone_13HW)


@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
def test_draws_fill_their_range(strength: float) -> None:
    draw = random.Random(5)
    factors = [factor for _ in range(300) for factor in draw_colour(strength, draw)]
    assert 1 - strength <= min(factors) < 1 - 0.9 * strength
    assert 1 + 0.9 * strength < max(factors) <= 1 + strength


def test_training_inputs_are_normalised_after_the_colours() -> None:
    colours_N3 = torch.tensor([(1.2, 0.9, 1.3), (0.8, 1.2, 0.5), (1.1, 0.7, 1.2)])
    expected_N3HW = normalise(change_colours(images(), colours_N3))
    found_N3HW = training_inputs(batch(images(), colours_N3), CPU)
    assert torch.equal(found_N3HW, expected_N3HW)
    assert found_N3HW.is_contiguous(memory_format=torch.channels_last), "the loop need not turn it around"
    assert torch.equal(training_inputs(batch(images(), None), CPU), normalise(images()))


def test_normalising_gives_the_same_numbers_in_both_layouts() -> None:
    pixel_by_pixel, channel_by_channel = normalise(images()), normalise(images().contiguous())
    assert pixel_by_pixel.is_contiguous(memory_format=torch.channels_last)
    assert channel_by_channel.is_contiguous()
    assert torch.equal(pixel_by_pixel, channel_by_channel)
    mean_3, std_3 = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    expected_N3HW = reference.normalize(images() / 255, mean_3.tolist(), std_3.tolist())
    torch.testing.assert_close(pixel_by_pixel, expected_N3HW)
