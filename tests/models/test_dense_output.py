"""The answer of a dense model: scores as its heads make them, logits when they are asked for."""

import torch
from torch.nn import functional

from segpipe.models import DenseOutput


def test_logits_are_the_scores_resized_to_the_images() -> None:
    scores, aux = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 2)
    output = DenseOutput(scores_NKhw=scores, size=(9, 20), aux_scores={"aux": aux})
    for found, given in ((output.logits_NKHW, scores), (output.aux["aux"], aux)):
        torch.testing.assert_close(found, functional.interpolate(given, size=(9, 20), mode="bilinear"))


def test_scores_at_the_images_size_are_logits() -> None:
    scores = torch.randn(2, 3, 4, 5)
    for output in (DenseOutput(scores_NKhw=scores), DenseOutput(scores_NKhw=scores, size=(4, 5))):
        assert output.logits_NKHW is scores
        assert output.aux == {}
