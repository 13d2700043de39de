"""What a model needs beside what all do: by its architecture, its backbone, and its members."""

from typing import Any

import pytest

from segpipe import models
from segpipe.errors import InputError

TIMM = {"arch": "fpn", "options": {"backbone": "timm/resnet18"}}
PLAIN = {"arch": "unet", "options": {"backbone": "resnet18"}}
KMEANS = {"arch": "kmeans", "options": {}}


@pytest.mark.parametrize(
    ("member", "expected"),
    [(TIMM, {"timm"}), (PLAIN, set()), (KMEANS, {"scikit-image", "scikit-learn", "threadpoolctl"})],
)
def test_a_model_requires_its_own(member: dict[str, Any], expected: set[str]) -> None:
    assert set(models.requirements(member["arch"], member["options"])) == expected
    ensemble = {"members": [PLAIN, member, member]}
    required = models.requirements("ensemble", ensemble)
    assert sorted(required) == sorted(expected), "each once"


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(InputError, match="unknown 'unett'; did you mean 'unet'"):
        models.requirements("unett", {})
