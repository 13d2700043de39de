"""Each semantic network learns eight images by heart: `make learn`.

A network that needs more steps than its recipe says has lost something: a branch without gradient, a bad start, a
dropout that leaves too little.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from segpipe import models
from segpipe.models.spec import DenseOutput
from segpipe.types import Task
from tests.fixtures import by_heart, learnt
from tests.fixtures.by_heart import CLASSES, ENOUGH, IMAGES, LOOK_EVERY, RECIPES, SIDE, Pupil, Recipe, windows

NETWORKS = [
    name
    for name in models.names(Task.SEMANTIC)
    if models.spec(name).output is DenseOutput and models.spec(name).learns_by == "descent"
]


def test_every_recipe_is_of_a_network_that_learns() -> None:
    assert set(RECIPES) <= set(NETWORKS)


def test_the_eight_windows_show_every_class_and_large_things_alone() -> None:
    labels_NHW = windows().labels_NHW
    assert labels_NHW is not None
    assert labels_NHW.shape == (IMAGES, SIDE, SIDE)
    assert set(labels_NHW.unique().tolist()) == set(range(len(CLASSES)))
    for labels_HW in labels_NHW.numpy():
        counts = np.unique(labels_HW, return_counts=True)[1]
        assert len(counts) >= by_heart.LEAST_CLASSES
        assert counts.min() >= by_heart.LEAST_SHARE * SIDE**2


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_images_are_learnt_by_heart(name: str, record_property) -> None:
    pupil, started = Pupil(name, RECIPES.get(name, Recipe())), time.process_time()
    losses, known = list[float](), 0.0
    for loss in pupil.steps():
        losses.append(loss)
        if len(losses) % LOOK_EVERY == 0 and (known := max(known, pupil.knows())) > ENOUGH:
            break
    parameters = sum(parameter.numel() for parameter in pupil.model.parameters())
    seconds = time.process_time() - started
    record_property(learnt.PROPERTY, [name, parameters, len(losses), known, seconds])
    assert known > ENOUGH, f"{name}: {known:.3f} after {len(losses)} steps, loss {losses[0]:.2f} to {losses[-1]:.3f}"
