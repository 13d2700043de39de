"""The class of the highest score against a loop over pixels: ties, NaN, infinities, strips and memory layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.metrics import arg_max, first_maximum


def slow(scores: torch.Tensor) -> list[list[list[int]]]:
    """The first NaN, else the first of the highest scores, one pixel at a time."""
    ids = []
    for image in scores.permute(0, 2, 3, 1).tolist():
        rows = []
        for row in image:
            firsts = [next((k for k, s in enumerate(pixel) if math.isnan(s)), None) for pixel in row]
            highest = [pixel.index(max(pixel)) for pixel in row]
            rows.append([h if f is None else f for f, h in zip(firsts, highest, strict=True)])
        ids.append(rows)
    return ids


few = st.sampled_from([0.0, -0.0, 1.0, 1.0, -1.0, 2.5, math.inf, -math.inf])
sizes = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=80, deadline=None)
@given(
    sizes.flatmap(lambda size: hnp.arrays(np.float32, size, elements=few)),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.sampled_from([1, 7, 1 << 18]),
)
def test_the_first_of_equal_scores_wins(array: np.ndarray, with_nan: bool, dtype: torch.dtype, strip: int) -> None:
    scores = torch.from_numpy(array).to(dtype)
    if with_nan:
        scores[..., 0, 0] = math.nan
        scores[:, 0, 0, 0] = 1.0
    expected = slow(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arg_max, "STRIP_PIXELS", strip)
        for layout in (torch.contiguous_format, torch.channels_last):
            found = first_maximum(scores.contiguous(memory_format=layout))
            assert found.dtype == torch.uint8
            assert found.tolist() == expected
    assert torch.equal(found, scores.argmax(1).to(torch.uint8)), "and so does argmax"


@pytest.mark.parametrize(("num_classes", "dtype"), [(1, torch.uint8), (255, torch.uint8), (256, torch.int32)])
def test_as_many_classes_as_a_byte_holds(num_classes: int, dtype: torch.dtype) -> None:
    scores = torch.randn(2, num_classes, 40, 30, generator=torch.Generator().manual_seed(0))
    scores[:, -1, 0] = 9.0
    found = first_maximum(scores)
    assert found.dtype == dtype
    assert torch.equal(found.long(), scores.argmax(1))
    assert found[:, 0].unique().tolist() == [num_classes - 1]


def test_scores_stay_as_they_were_and_may_want_gradients() -> None:
    scores = torch.randn(1, 5, 8, 8, requires_grad=True)
    before = scores.detach().clone()
    found = first_maximum(scores)
    assert torch.equal(scores.detach(), before)
    with torch.inference_mode():
        assert torch.equal(first_maximum(before), found)
    assert first_maximum(torch.zeros(0, 3, 4, 4)).shape == (0, 4, 4)
    assert first_maximum(torch.zeros(2, 3, 0, 4)).shape == (2, 0, 4)
