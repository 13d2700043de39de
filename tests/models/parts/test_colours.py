"""Images are given back as they were before they were normalised."""

import pytest
import torch

from segpipe.data.batch import normalise
from segpipe.errors import InputError
from segpipe.models.parts.colours import check_rgb, rgb_of


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_value_of_every_channel_comes_back(memory_format: torch.memory_format) -> None:
    values_HW = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    images_N3HW = torch.stack([values_HW, values_HW.flip(0), values_HW.T])[None].expand(2, -1, -1, -1)
    images_N3HW = images_N3HW.contiguous(memory_format=memory_format)
    assert torch.equal(torch.from_numpy(rgb_of(normalise(images_N3HW))), images_N3HW.permute(0, 2, 3, 1))


def test_what_no_image_shows_is_cut_at_black_and_white() -> None:
    assert rgb_of(torch.tensor([-9.0, 9.0]).repeat(3, 1).reshape(1, 3, 1, 2)).tolist() == [[[[0] * 3, [255] * 3]]]


def test_other_channels_are_refused() -> None:
    check_rgb(3)
    with pytest.raises(InputError, match="in_channels: 1: this method knows colours"):
        check_rgb(1)
