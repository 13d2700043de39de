"""The loss of a recipe, read: every term is its function, with the term's numbers, times its weight."""

from typing import Any

import pytest
import torch

from segpipe import losses
from segpipe.config.loss import LossConfig
from segpipe.errors import InputError
from segpipe.tasks.pixel_losses import LOSSES, cross_entropy_in, pixel_losses
from segpipe.tasks.refusals import ignored_by_loss
from segpipe.tasks.semantic import SemanticOps
from tests.fixtures.pixel_losses import example
from tests.fixtures.small import CLASSES, IGNORE, small_run

LOGITS, LABELS = example(3)
TERMS: dict[str, tuple[Any, torch.Tensor]] = {
    "cross_entropy": (2, 2 * losses.cross_entropy(LOGITS, LABELS)),
    "bootstrapped_cross_entropy": (
        {"weight": 0.5, "threshold": 0.3, "top_k": 20},
        0.5 * losses.bootstrapped_cross_entropy(LOGITS, LABELS, threshold=0.3, top_k=20, per_image=True),
    ),
    "focal": ({"gamma": 1}, losses.focal_loss(LOGITS, LABELS, gamma=1)),
    "dice": ({"smooth": 3, "per_image": True}, losses.dice_loss(LOGITS, LABELS, smooth=3, per_image=True)),
    "jaccard": (0.1, 0.1 * losses.jaccard_loss(LOGITS, LABELS)),
    "tversky": ({"alpha": 0.1, "beta": 0.6}, losses.tversky_loss(LOGITS, LABELS, alpha=0.1, beta=0.6)),
    "lovasz": ({"per_image": True, "weight": 3}, 3 * losses.lovasz_loss(LOGITS, LABELS, per_image=True)),
    "boundary": (0.01, 0.01 * losses.boundary_loss(LOGITS, LABELS)),
}


def test_every_term_has_a_function_and_is_tried_here() -> None:
    assert set(LOSSES) == set(LossConfig.model_fields) == set(TERMS)


def test_terms_are_their_functions_times_their_weights() -> None:
    config = LossConfig.model_validate({name: term for name, (term, _) in TERMS.items()})
    found = pixel_losses(LOGITS, LABELS, config, weight_K=None, ignore_index=255)
    assert found.keys() == TERMS.keys()
    for name, (_, expected) in TERMS.items():
        torch.testing.assert_close(found[name], expected, msg=name)


@pytest.mark.parametrize("term", [{"top_k": 7}, {"top_k": 7, "threshold": 0.4}])
def test_the_hardest_pixels_are_the_same_for_any_number_of_workers(term: dict[str, Any]) -> None:
    """Each worker has the gradient of its images; a pixel has one where it is among the hard ones."""
    config = LossConfig.model_validate({"bootstrapped_cross_entropy": term})
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 3, 5, 6, generator=generator), torch.randint(0, 3, (4, 5, 6), generator=generator)
    logits[0] *= 5  # an image that has the hardest pixels of the batch

    def hard(workers: int) -> torch.Tensor:
        found = logits.clone().requires_grad_()
        for part, truth in zip(found.chunk(workers), labels.chunk(workers), strict=True):
            pixel_losses(part, truth, config, weight_K=None, ignore_index=255)["bootstrapped_cross_entropy"].backward()
        assert found.grad is not None
        return found.grad.abs().sum(1) > 0

    assert torch.equal(hard(1), hard(2))
    assert torch.equal(hard(1), hard(4))
    per_image = hard(1).flatten(1).sum(1)
    assert torch.equal(per_image, torch.full((4,), 7)) if len(term) == 1 else bool((per_image >= 7).all())


@pytest.mark.parametrize("names", [*([name] for name in TERMS), list(TERMS)], ids="+".join)
def test_scores_of_another_size_mean_what_they_are_once_resized(names: list[str]) -> None:
    size, scores = (11, 9), LOGITS.repeat(1, 3, 1, 1)
    labels = torch.arange(2 * 11 * 9).reshape(2, *size) % 9
    config = LossConfig.model_validate({name: TERMS[name][0] for name in names})
    found = pixel_losses(scores, labels, config, size=size, weight_K=None, ignore_index=5)
    whole = torch.nn.functional.interpolate(scores, size=size, mode="bilinear")
    expected = pixel_losses(whole, labels, config, weight_K=None, ignore_index=5)
    assert found.keys() == set(names)
    torch.testing.assert_close(found, expected)


def test_the_cross_entropy_is_found_among_the_terms_of_a_step() -> None:
    for terms, said, expected in (
        ({"cross_entropy": 2}, {"main": 1.5, "aux": 9.0}, 1.5),
        ({"cross_entropy": 1, "dice": 1}, {"main/dice": 9.0, "main/cross_entropy": 1.5, "aux/cross_entropy": 9.0}, 1.5),
        ({"dice": 1}, {"main": 9.0}, None),
        ({"cross_entropy": 1}, {"masks": 9.0}, None),
    ):
        assert cross_entropy_in(said, LossConfig.model_validate(terms)) == expected


def test_class_weights_reach_the_terms_that_know_of_them() -> None:
    weight_K = torch.tensor([0.2, 1.0, 3.0])
    config = LossConfig.model_validate({"cross_entropy": 1, "focal": 1, "dice": 1})
    found = pixel_losses(LOGITS, LABELS, config, weight_K=weight_K, ignore_index=255)
    torch.testing.assert_close(found["cross_entropy"], losses.cross_entropy(LOGITS, LABELS, weight=weight_K))
    torch.testing.assert_close(found["focal"], losses.focal_loss(LOGITS, LABELS, weight=weight_K))
    torch.testing.assert_close(found["dice"], losses.dice_loss(LOGITS, LABELS))


def test_losses_that_are_not_chosen_name_what_they_would_pass_over() -> None:
    assert ignored_by_loss(small_run().train) == []
    told = ignored_by_loss(small_run(loss={"dice": 1, "focal": 1}, sigmoid=True).train)
    assert [fault.split(":")[0] for fault in told] == ["loss is focal, dice", "sigmoid is true"]


@pytest.mark.parametrize("key", ["loss", "sigmoid"])
def test_a_model_of_queries_refuses_both(key: str) -> None:
    settings: dict[str, Any] = {"loss": {"loss": {"dice": 1}}, "sigmoid": {"sigmoid": True}}[key]
    run = small_run("mask2former", **settings)
    with pytest.raises(InputError, match=f"^mask2former: train: {key} is .*"):
        SemanticOps.check_run(run, num_keypoints=None, is_counted=True, where="here")


def test_two_classes_may_have_one_logit_or_a_weight_between_them() -> None:
    for settings in ({"sigmoid": True}, {"loss": {"focal": {"alpha": 0.3}}}):
        SemanticOps(CLASSES[:2], IGNORE, config=small_run(**settings).train)
        with pytest.raises(InputError, match=r"that is for two classes, and the dataset has 3 \(ground, box, disc\)"):
            SemanticOps(CLASSES, IGNORE, config=small_run(**settings).train)
