"""A network compiled by torch's own compiler says what it says uncompiled: `make learn`."""

from __future__ import annotations

import torch

from tests.models.test_architectures import Logits, every_dense_network, images, ready


@every_dense_network
def test_the_compiled_model_says_the_same(name: str) -> None:
    plain = Logits(ready(name))
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(plain, fullgraph=True, dynamic=False)(images(33, 65))
        for ours, expected in zip(compiled, plain(images(33, 65)), strict=True):
            assert expected.any()
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
