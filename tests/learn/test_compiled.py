"""A compiled network says what it says uncompiled: `make learn` all with torch's own compiler, `make test` a tenth of
them with their graph alone traced (which is where a network that cannot be compiled fails)."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_architectures import BY_COUNTING, DENSE, Logits, images, ready

NETWORKS = [name for name in DENSE if name not in BY_COUNTING]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("--learn")
    metafunc.parametrize("name", NETWORKS if whole else NETWORKS[::10])


def test_the_compiled_model_says_the_same(name: str, request: pytest.FixtureRequest) -> None:
    plain = Logits(ready(name))
    torch._dynamo.reset()
    backend = "inductor" if request.config.getoption("--learn") else "aot_eager"
    with torch.no_grad():
        compiled = torch.compile(plain, backend=backend, fullgraph=True, dynamic=False)(images(33, 65))
        for ours, expected in zip(compiled, plain(images(33, 65)), strict=True):
            assert expected.any()
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
