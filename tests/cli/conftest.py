"""A recipe that trains in seconds."""

from pathlib import Path

import pytest

RECIPE = """
name: tiny
dataset: {name: tiny, format: scenes, options: {train: 4, val: 2, test: 2, height: 32, width: 40}}
architectures: [{arch: fcn_resnet18}, {arch: unet, options: {backbone: resnet18}}]
train: {epochs: 1, batch_size: 2, augment: {crop: [32, 32]}}
evaluate: {pictures: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)
