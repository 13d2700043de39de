"""The semantic branch: every level reaches stride 4 and has its say there, as figure 3 of arXiv:1901.02446."""

from __future__ import annotations

import pytest
import torch

from segpipe.errors import InputError
from segpipe.models.parts.semantic_branch import SemanticBranch, semantic_branch


def test_every_level_has_its_say_at_stride_4() -> None:
    branch = SemanticBranch(8, 8, 3).eval()
    levels = [torch.randn(1, 8, 32 // 2**number, 48 // 2**number) for number in range(4)]
    with torch.no_grad():
        logits = branch(levels)
        assert logits.shape == (1, 3, 32, 48)
        for number in range(4):
            others = [torch.zeros_like(level) if at == number else level for at, level in enumerate(levels)]
            assert not torch.allclose(branch(others), logits), f"P{number + 2} changes nothing"


@pytest.mark.parametrize("channels", [0, -8, 20])
def test_channels_must_make_whole_groups(channels: int) -> None:
    with pytest.raises(InputError, match=rf"channels: {channels} is not a positive multiple of 8"):
        semantic_branch(channels, 3)
