"""How sure a score and that of each class are: one bootstrap for all of them."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from segpipe.metrics import dataset_miou, dataset_pq, interval, mean_ratio
from segpipe.metrics.bootstrap import resampled_class_scores
from segpipe.tasks.headline import headline

IMAGES = tuple(f"s/{n}" for n in range(12))


def counts(width: int) -> np.ndarray:
    """Of twelve images and three classes, the last of which occurs nowhere."""
    random = np.random.default_rng(0)
    truth = random.integers(50, 100, (12, 3))
    parts = {2: [truth // 2, truth], 3: [truth // 2, truth, truth - 5], 4: [truth / 2, truth, truth // 9, truth // 7]}
    table = np.stack(parts[width], axis=-1)
    table[3, 0], table[:, 2] = 0, 0
    return table


def told(drawn: Any, groups: tuple[str, ...] = IMAGES) -> dict[str, Any]:
    return headline("score", "p", {"score": 0.5}, drawn, groups=groups, lacking="nothing")


@pytest.mark.parametrize("statistic", [dataset_miou, dataset_pq, mean_ratio])
def test_a_class_s_bounds_are_the_bootstrap_of_that_class(statistic: Any) -> None:
    table = counts({dataset_miou: 3, dataset_pq: 4, mean_ratio: 2}[statistic])
    fields = told(partial(resampled_class_scores, table, statistic))
    assert (fields["low"], fields["high"]) == interval(table, statistic=statistic)
    for k in range(2):
        assert fields["class_bounds"][k] == interval(table[:, k : k + 1], statistic=statistic)
    assert fields["class_bounds"][2] is None


def test_of_few_groups_images_are_drawn() -> None:
    fields = told(partial(resampled_class_scores, counts(3), dataset_miou), ("a", "b") * 6)
    assert (fields["resampled"], fields["low"]) == ("images", interval(counts(3))[0])


def test_groups_are_drawn_together_where_there_are_enough() -> None:
    table, groups = np.concatenate([counts(3)] * 2), tuple(f"g{n // 2}" for n in range(24))
    fields = told(partial(resampled_class_scores, table, dataset_miou), groups)
    assert fields["resampled"] == "groups"
    assert (fields["low"], fields["high"]) == interval(table, groups=groups)
    assert fields["class_bounds"][0] == interval(table[:, :1], groups=groups)
