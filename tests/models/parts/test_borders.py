"""Beyond the border: mirrors of any depth are NumPy's, and the middle is the same from both ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segpipe.models.parts.borders import Mirrored, middle, mirrored_places


def noise(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(5, 7), (1, 4), (1, 1), (2, 3)])
@pytest.mark.parametrize("margins", [((0, 0), (0, 0)), ((1, 1), (4, 4)), ((9, 9), (9, 9)), ((0, 3), (11, 2))])
def test_mirrors_are_numpys(size: tuple[int, int], margins: tuple[tuple[int, int], tuple[int, int]]) -> None:
    images = noise(1, 2, *size)
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), *margins), mode="reflect")
    assert torch.equal(Mirrored()(images, *margins), torch.from_numpy(expected))


@pytest.mark.parametrize(("size", "before", "behind"), [(1, 3, 2), (2, 5, 4), (3, 7, 9), (100, 92, 92), (10, 0, 0)])
def test_mirrors_are_numpys_however_short_a_side(size: int, before: int, behind: int) -> None:
    expected = np.pad(np.arange(size), (before, behind), mode="reflect")
    assert mirrored_places(size, -before, size + behind) == expected.tolist()


def test_places_may_lie_all_beyond_the_border() -> None:
    assert mirrored_places(4, -5, -1) == [1, 2, 3, 2]
    assert mirrored_places(4, 5, 8) == [1, 0, 1]
    assert mirrored_places(1, -2, 1) == [0, 0, 0]


def test_the_middle_leaves_as_much_on_either_side() -> None:
    maps = torch.arange(5 * 4).reshape(1, 1, 5, 4)
    assert middle(maps, 3, 2).tolist() == [[[[5, 6], [9, 10], [13, 14]]]]
    assert middle(maps, 2, 1).tolist() == [[[[5], [9]]]]
    assert torch.equal(middle(maps, 5, 4), maps)
