"""Images and ids are resized and turned in one go, which gives what doing one after the other gives, bit for bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segpipe.data.resize import resize_image, resize_labels

sides = st.integers(min_value=1, max_value=70)
sizes = st.tuples(sides, sides)


def pixels(height: int, width: int) -> torch.Tensor:
    """(3, H, W) noise that lies pixel by pixel, as images are decoded."""
    draw = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 256, (height, width, 3), generator=draw, dtype=torch.uint8).permute(2, 0, 1)


def turned(of: torch.Tensor, *, mirrored: bool, upside_down: bool) -> torch.Tensor:
    of = of.flip(-1) if mirrored else of
    return of.flip(-2) if upside_down else of


@given(source=sizes, size=sizes, mirrored=st.booleans(), upside_down=st.booleans())
def test_an_image_turned_on_the_way_is_the_resized_one_turned(
    source: tuple[int, int], size: tuple[int, int], mirrored: bool, upside_down: bool
) -> None:
    ours = resize_image(pixels(*source), size, mirrored=mirrored, upside_down=upside_down)
    assert torch.equal(ours, turned(resize_image(pixels(*source), size), mirrored=mirrored, upside_down=upside_down))
    assert ours.stride(0) == 1 or 1 in size, "pixel by pixel still"


@pytest.mark.parametrize("source", [(240, 320), (360, 480), (181, 479)])
def test_a_mirror_image_of_real_size_is_resized_the_same(source: tuple[int, int]) -> None:
    for mirrored, upside_down in ((True, False), (False, True), (True, True)):
        ours = resize_image(pixels(*source), (365, 487), mirrored=mirrored, upside_down=upside_down)
        plain = resize_image(pixels(*source), (365, 487))
        assert torch.equal(ours, turned(plain, mirrored=mirrored, upside_down=upside_down))


@given(source=sizes, size=sizes, mirrored=st.booleans(), upside_down=st.booleans(), objects=st.integers(0, 3))
def test_ids_and_masks_show_the_source_pixel_under_their_centre(
    source: tuple[int, int], size: tuple[int, int], mirrored: bool, upside_down: bool, objects: int
) -> None:
    ids_HW = torch.arange(source[0] * source[1], dtype=torch.int32).reshape(source)
    ours = resize_labels(ids_HW, size, mirrored=mirrored, upside_down=upside_down)
    (height, width), (high, wide) = source, size
    rows = [int((row + 0.5) * (height / high)) for row in range(high)]
    columns = [int((column + 0.5) * (width / wide)) for column in range(wide)]
    slow = torch.tensor([[row * width + column for column in columns] for row in rows], dtype=torch.int32)
    assert torch.equal(ours, turned(slow, mirrored=mirrored, upside_down=upside_down))
    masks_NHW = torch.stack([ids_HW % (k + 2) == 0 for k in range(objects)] or [ids_HW == -1])[:objects]
    found_Nhw = resize_labels(masks_NHW, size, mirrored=mirrored, upside_down=upside_down)
    assert found_Nhw.dtype == torch.bool
    assert found_Nhw.shape == (objects, *size)
    for mask_hw, mask_HW in zip(found_Nhw, masks_NHW, strict=True):
        assert torch.equal(mask_hw, resize_labels(mask_HW, size, mirrored=mirrored, upside_down=upside_down))
