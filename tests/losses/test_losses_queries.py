"""Matching against every permutation, and the loss of mask classification against loops over masks and pixels."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segpipe.losses import match_queries, matching_cost
from segpipe.losses import queries as queries_file
from segpipe.losses.points import read_points

K, Q = 3, 5
query_losses = functools.partial(queries_file.query_losses, stride=4)


def slow_entropy(logits: list[float], truth: list[float]) -> float:
    chances = [1 / (1 + math.exp(-x)) for x in logits]
    return sum(-(t * math.log(p) + (1 - t) * math.log(1 - p)) for p, t in zip(chances, truth, strict=True)) / len(truth)


def slow_dice(logits: list[float], truth: list[float]) -> float:
    chances = [1 / (1 + math.exp(-x)) for x in logits]
    common = sum(p * t for p, t in zip(chances, truth, strict=True))
    return 1 - (2 * common + 1) / (sum(chances) + sum(truth) + 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 10_000))
def test_the_match_is_the_cheapest_of_all_permutations(num_queries: int, num_objects: int, seed: int) -> None:
    cost = torch.randn(num_queries, num_objects, generator=torch.Generator().manual_seed(seed))
    queries, objects = match_queries(cost)
    assert len(queries) == len(objects) == min(num_queries, num_objects)
    assert len(set(queries.tolist())) == len(set(objects.tolist())) == len(queries)
    short, long = sorted((num_queries, num_objects))
    table = cost if num_queries <= num_objects else cost.T
    cheapest = min(
        sum(float(table[row, column]) for row, column in enumerate(chosen))
        for chosen in itertools.permutations(range(long), short)
    )
    assert float(cost[queries, objects].sum()) == pytest.approx(cheapest, abs=1e-5)


def test_the_cost_of_a_pair_is_two_classes_five_entropies_five_dice() -> None:
    torch.manual_seed(0)
    class_logits, logits = torch.randn(Q, K + 1), torch.randn(Q, 30)
    class_ids, truth = torch.tensor([2, 0]), torch.rand(2, 30)
    found = matching_cost(class_logits, logits, class_ids, truth)
    chances = class_logits.softmax(1)
    for query in range(Q):
        for number in range(2):
            pair = logits[query].tolist(), truth[number].tolist()
            expected = -2 * float(chances[query, class_ids[number]]) + 5 * slow_entropy(*pair) + 5 * slow_dice(*pair)
            assert float(found[query, number]) == pytest.approx(expected, abs=1e-4)


def example(size: int = 16, batch: int = 2) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(7)
    class_logits = torch.randn(batch, Q, K + 1, generator=generator).requires_grad_()
    mask_logits = torch.randn(batch, Q, size // 4, size // 4, generator=generator).requires_grad_()
    counts = [2, 3, 0, 1][:batch]
    class_ids = [torch.randint(0, K, (count,), generator=generator) for count in counts]
    masks = [torch.rand(count, size, size, generator=generator) < 0.4 for count in counts]
    return class_logits, mask_logits, class_ids, masks


def every_pixel(monkeypatch: pytest.MonkeyPatch, size: int) -> Tensor:
    """Makes all points the centres of all pixels, for matching and for the loss."""
    centres = (torch.arange(size) + 0.5) / size
    grid = torch.stack((centres.expand(size, -1), centres[:, None].expand(-1, size)), dim=2).reshape(1, -1, 2)
    monkeypatch.setattr(
        queries_file, "uncertain_points", lambda logits, num_points, share: grid.expand(len(logits), -1, 2)
    )
    monkeypatch.setattr(torch, "rand", lambda *shape, device: grid)
    return grid


def test_with_all_pixels_for_points_it_is_the_loss_at_full_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    class_logits, mask_logits, class_ids, masks = example()
    every_pixel(monkeypatch, 16)
    found = query_losses(class_logits, mask_logits, class_ids, masks)
    full = torch.nn.functional.interpolate(mask_logits, scale_factor=4, mode="bilinear").detach()
    entropy = dice = above = below = 0.0
    for image in range(2):
        flat = [(full[image, q].flatten().tolist()) for q in range(Q)]
        truth = [mask.flatten().float().tolist() for mask in masks[image]]
        chances = class_logits[image].detach().softmax(1)
        pairs = min(
            itertools.permutations(range(Q), len(truth)),
            key=lambda chosen: sum(
                -2 * float(chances[q, class_ids[image][m]])
                + 5 * slow_entropy(flat[q], truth[m])
                + 5 * slow_dice(flat[q], truth[m])
                for m, q in enumerate(chosen)
            ),
        )
        entropy += sum(slow_entropy(flat[q], truth[m]) for m, q in enumerate(pairs))
        dice += sum(slow_dice(flat[q], truth[m]) for m, q in enumerate(pairs))
        for q in range(Q):
            wanted = int(class_ids[image][pairs.index(q)]) if q in pairs else K
            weight = 1.0 if q in pairs else 0.1
            above -= weight * math.log(float(chances[q, wanted]))
            below += weight
    assert found["class"].item() == pytest.approx(2 * above / below, rel=1e-4)
    assert found["mask"].item() == pytest.approx(5 * entropy / 5, rel=1e-4)  # five objects
    assert found["dice"].item() == pytest.approx(5 * dice / 5, rel=1e-4)


def test_masks_of_stride_4_are_compared_where_the_image_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 10 x 14 lies in masks of 3 x 4 cells, 12 x 16 pixels: the point (1, 1) is not their corner."""
    asked: list[tuple[tuple[int, ...], tuple[float, float]]] = []

    def noting(maps: Tensor, points: Tensor, *, share: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        asked.append((tuple(maps.shape[-2:]), share))
        return read_points(maps, points, share=share)

    monkeypatch.setattr(queries_file, "read_points", noting)
    query_losses(torch.randn(1, Q, K + 1), torch.randn(1, Q, 3, 4), [torch.tensor([1])], [torch.ones(1, 10, 14)])
    assert dict(asked) == {(3, 4): (10 / 12, 14 / 16), (10, 14): (1.0, 1.0)}


def test_perfect_queries_cost_next_to_nothing_and_permuting_them_changes_nothing() -> None:
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, :16], masks[1, 16:] = True, True
    class_ids = torch.tensor([0, 2])
    mask_logits = torch.full((1, Q, 8, 8), -40.0)
    mask_logits[0, 3, :4], mask_logits[0, 1, 4:] = 40.0, 40.0
    class_logits = torch.zeros(1, Q, K + 1)
    class_logits[0, torch.arange(Q), torch.tensor([K, 2, K, 0, K])] = 30.0
    torch.manual_seed(0)
    found = query_losses(class_logits, mask_logits, [class_ids], [masks])
    assert found["class"].item() == pytest.approx(0, abs=1e-6)
    assert found["dice"].item() < 0.2  # all uncertain points lie between the two masks
    order = torch.tensor([4, 2, 3, 0, 1])
    torch.manual_seed(0)
    other = query_losses(class_logits[:, order], mask_logits[:, order], [class_ids], [masks])
    assert {name: value.item() for name, value in other.items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}, rel=1e-4, abs=1e-6
    )
    worse = query_losses(-class_logits, torch.full_like(mask_logits, -40.0), [class_ids], [masks])
    assert all(worse[name] > found[name] + 1 for name in found)


def test_every_logit_learns_and_the_same_seed_gives_the_same_loss() -> None:
    class_logits, mask_logits, class_ids, masks = example(batch=4)
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(torch.stack(list(query_losses(class_logits, mask_logits, class_ids, masks).values())))
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    losses[0].sum().backward()
    assert bool((class_logits.grad != 0).all())
    taught = mask_logits.grad.flatten(2).abs().sum(2) > 0
    assert taught.sum(1).tolist() == [2, 3, 0, 1]  # one query an object


def test_images_without_objects_teach_that_there_is_nothing() -> None:
    class_logits, mask_logits, _, _ = example()
    nothing = [torch.zeros(0, dtype=torch.int64)] * 2
    found = query_losses(class_logits, mask_logits, nothing, [torch.zeros(0, 16, 16)] * 2)
    assert (found["mask"].item(), found["dice"].item()) == (0.0, 0.0)
    torch.stack(list(found.values())).sum().backward()
    assert bool((class_logits.grad[..., K] < 0).all())
    assert torch.equal(mask_logits.grad, torch.zeros_like(mask_logits))


def test_more_objects_than_queries_leave_some_unmatched() -> None:
    class_ids, masks = [torch.arange(7) % K], [torch.rand(7, 16, 16) < 0.5]
    found = query_losses(torch.randn(1, 2, K + 1), torch.randn(1, 2, 4, 4), class_ids, masks)
    assert all(math.isfinite(value.item()) for value in found.values())


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_logits_that_are_not_finite_end_in_the_loss_and_not_in_the_matching(number: float) -> None:
    class_logits, mask_logits, class_ids, masks = example()
    with torch.no_grad():
        class_logits[0, 1, 0], mask_logits[1] = number, number
    assert not torch.stack(list(query_losses(class_logits, mask_logits, class_ids, masks).values())).sum().isfinite()


def test_half_precision_logits_are_compared_in_float32() -> None:
    class_logits, mask_logits, class_ids, masks = example()
    torch.manual_seed(1)
    half = query_losses(class_logits.bfloat16(), mask_logits.bfloat16(), class_ids, masks)
    torch.manual_seed(1)
    full = query_losses(class_logits.bfloat16().float(), mask_logits.bfloat16().float(), class_ids, masks)
    assert all(value.dtype == torch.float32 for value in half.values())
    torch.testing.assert_close(half, full)
