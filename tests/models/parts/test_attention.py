"""Attention under a mask, deformable attention and sine positions against loops over every query, key and point."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from segpipe.errors import InputError
from segpipe.models.parts.attention import Attention, DeformableAttention, check_heads, look, sine_positions


def slow_attention(attention: Attention, queries: Tensor, keys: Tensor, values: Tensor, attend: Tensor) -> Tensor:
    """Equation 1 of the Transformer, a query, a head and a key at a time; keys that are not attended do not exist."""
    q, k, v = attention.query(queries), attention.key(keys), attention.value(values)
    size = q.shape[2] // attention.heads
    mixed = torch.zeros_like(q)
    for n in range(q.shape[0]):
        for i in range(q.shape[1]):
            for head in range(attention.heads):
                part = slice(head * size, (head + 1) * size)
                seen = [s for s in range(k.shape[1]) if attend[n, i, s]]
                scores = [math.exp(float(q[n, i, part] @ k[n, s, part]) / math.sqrt(size)) for s in seen]
                for s, score in zip(seen, scores, strict=True):
                    mixed[n, i, part] += score / sum(scores) * v[n, s, part]
    return attention.output(mixed)


def slow_bilinear(map_chw: Tensor, x: float, y: float) -> Tensor:
    """The map at (x, y), in cells whose centres are whole numbers; zero outside."""
    total = torch.zeros(map_chw.shape[0])
    left, top = math.floor(x), math.floor(y)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < map_chw.shape[1] and 0 <= column < map_chw.shape[2]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * map_chw[:, row, column]
    return total


def test_masked_attention_is_the_sum_over_the_keys_that_are_attended() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2)
    queries, keys, values = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    attend = torch.rand(2, 3, 5) < 0.5
    attend[..., 0] |= ~attend.any(2)
    with torch.no_grad():
        found = attention(queries, keys, values, attend)
        torch.testing.assert_close(found, slow_attention(attention, queries, keys, values, attend))
        everywhere = attention(queries, keys, values)
        torch.testing.assert_close(everywhere, attention(queries, keys, values, torch.ones_like(attend)))
        assert not torch.allclose(found, everywhere)
        values[:, 1] = 1e4  # what is not attended may hold anything
        attend[..., 1] = False
        attend[..., 0] = True
        again = attention(queries, keys, values, attend)
    assert float(again.abs().max()) < 100


def test_positions_are_sines_of_the_share_of_the_image() -> None:
    found = sine_positions(3, 4, 12, extent=(3, 2))
    for row in range(3):
        for column in range(4):
            expected = []
            for share in ((row + 1) / 3, (column + 1) / 2):
                for pair in range(3):
                    angle = 2 * math.pi * share / 10_000 ** (2 * pair / 6)
                    expected += [math.sin(angle), math.cos(angle)]
            assert found[row * 4 + column].tolist() == pytest.approx(expected, abs=1e-5)


def test_looking_around_is_a_weighted_sum_of_bilinear_readings() -> None:
    torch.manual_seed(1)
    sizes, heads, points, size = [(2, 3), (4, 5)], 2, 3, 4
    values = torch.randn(2, 2 * 3 + 4 * 5, heads, size)
    places = torch.rand(2, 6, heads, len(sizes), points, 2) * 1.4 - 0.2  # some of them beyond the map
    weights = torch.rand(2, 6, heads, len(sizes), points)
    expected = torch.zeros(2, 6, heads, size)
    for n in range(2):
        for query in range(6):
            for head in range(heads):
                start = 0
                for level, (height, width) in enumerate(sizes):
                    map_chw = values[n, start : start + height * width, head].T.reshape(size, height, width)
                    start += height * width
                    for point in range(points):
                        x, y = places[n, query, head, level, point].tolist()
                        seen = slow_bilinear(map_chw, x * width - 0.5, y * height - 0.5)
                        expected[n, query, head] += weights[n, query, head, level, point] * seen
    torch.testing.assert_close(look(values, sizes, places, weights), expected.flatten(2))


def test_deformable_attention_starts_as_the_mean_of_rings_and_sees_padding_as_nothing() -> None:
    torch.manual_seed(2)
    attention = DeformableAttention(16, 4, levels=2, points=2)
    offsets = attention.offsets.bias.view(4, 2, 2, 2)
    assert offsets[:, 0, 0].tolist() == [
        pytest.approx(direction, abs=1e-6) for direction in ([1, 0], [0, 1], [-1, 0], [0, -1])
    ]
    torch.testing.assert_close(offsets[:, :, 1], offsets[:, :, 0] * 2)
    sizes, inside = [(2, 2), (4, 4)], torch.ones(20, dtype=torch.bool)
    inside[[1, 3, *range(6, 20, 4), *range(7, 20, 4)]] = False  # the right half of both
    values = torch.randn(1, 20, 16)
    places = torch.full((20, 2), 0.4)
    with torch.no_grad():
        found = attention(values, places, values, sizes, inside)
        spoilt = torch.where(inside[:, None], values, 1e6)
        torch.testing.assert_close(attention(values, places, spoilt, sizes, inside), found)
        assert not torch.allclose(attention(values, places, values, sizes, torch.ones_like(inside)), found)


@pytest.mark.parametrize(("channels", "heads"), [(0, 1), (64, 0), (64, 3), (36, 6), (-8, 1)])
def test_channels_that_cannot_be_shared_out_are_refused(channels: int, heads: int) -> None:
    with pytest.raises(InputError, match=rf"m: hidden={channels} with heads={heads}; expected a positive multiple"):
        check_heads("m", channels, heads)
