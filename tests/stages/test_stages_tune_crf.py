"""The search for a CRF: what it tries, what it keeps, and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import checkpoint, reports, storage
from segpipe.config import CrfGrid, EvaluateConfig
from segpipe.errors import InputError
from segpipe.stages import tune_crf as stage
from segpipe.stages.evaluate import evaluate
from segpipe.stages.tune_crf import CrfSearch, tune_crf
from segpipe.tasks.semantic import SemanticMeter, SemanticOps
from segpipe.types import CrfSettings
from tests.fixtures.small import CLASSES, IGNORE
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")

GRID = CrfGrid(iterations=2, gaussian=(1.0, 1.0), sxy=(5.0, 20.0), srgb=(20.0,), weight=(2.0, 2.0, 0.0))


def search(shapes: Shapes, to: Path, grid: CrfGrid = GRID, **changes: Any) -> CrfSearch:
    arguments = {"data": shapes.data, "version": shapes.version, "label": "unet", **changes}
    return tune_crf(shapes.result.model_uri, to=str(to), grid=grid, **arguments)


@pytest.fixture(scope="module")
def found(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrfSearch]:
    to: Path = tmp_path_factory.mktemp("searches")
    return to, search(shapes, to)


def test_every_combination_once_and_the_best_of_them(shapes: Shapes, found: tuple[Path, CrfSearch]) -> None:
    to, result = found
    tried = [each.settings.bilateral for each in result.tried]
    assert tried == [(5.0, 20.0, 2.0), (5.0, 20.0, 0.0), (20.0, 20.0, 2.0), (20.0, 20.0, 0.0)]
    assert {(each.settings.iterations, each.settings.gaussian) for each in result.tried} == {(2, (1.0, 1.0))}
    values = [each.value for each in result.tried]
    assert values[1] == values[3], "without weight, deviations mean nothing"
    if max(values) > result.without:
        assert result.best == result.tried[values.index(max(values))].settings
    else:
        assert result.best is None
    assert (result.split, result.primary, result.dataset_version) == ("val", "miou", shapes.version)
    assert (result.checkpoint, result.weights_sha256) == (shapes.result.model_uri, shapes.result.weights_sha256)
    config = EvaluateConfig(split="val", pictures=0, batch_size=1)
    report = evaluate(
        shapes.result.model_uri,
        data=shapes.data,
        version=shapes.version,
        to=str(to),
        config=config,
        experiment="shapes",
        label="unet",
        runtime="local",
    )
    assert (result.without, result.num_samples) == (report.value, report.num_samples)


def test_the_answer_is_kept_and_named_by_what_decides_it(
    shapes: Shapes, found: tuple[Path, CrfSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, result = found
    assert reports.from_plain(CrfSearch, storage.read_json(result.uri), origin="x") == result

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(stage, "count_crfs", refuse)
    assert search(shapes, to) == result
    for grid, split in ((GRID.model_copy(update={"iterations": 3}), "val"), (GRID, "test")):
        with pytest.raises(AssertionError, match="searched again"):
            search(shapes, to, grid, split=split)


@pytest.mark.parametrize(
    ("right", "best"), [((5, 6, 8, 8, 7), 1), ((5, 5, 4, 3, 2), None), ((9, 1, 1, 1, 1), None), ((5, 5, 5, 5, 6), 3)]
)
def test_the_best_is_the_first_of_the_highest_and_better_than_none(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: tuple[int, ...], best: int | None
) -> None:
    """Of ten pixels so many are right: without a field, and with each of the four."""

    def counted(*_: object, **__: object) -> tuple[SemanticOps, list[SemanticMeter]]:
        ops = SemanticOps(CLASSES, IGNORE)
        meters = [ops.meter() for _ in right]
        for meter, pixels in zip(meters, right, strict=True):
            meter.pixels.update(
                [np.repeat([[0, 1]], [pixels, 10 - pixels], axis=1)], [np.zeros((1, 10), dtype=int)], ["x"]
            )
        return ops, meters

    monkeypatch.setattr(stage, "count_crfs", counted)
    result = search(shapes, tmp_path)
    assert result.best == (None if best is None else result.tried[best].settings)
    assert result.without == pytest.approx(right[0] / 20)


def test_refuses_what_has_no_probabilities_or_images(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="has no split 'dev'"):
        search(shapes, tmp_path, split="dev")
    bundle = checkpoint.load_bundle(shapes.result.model_uri)
    for arch, task in (("mask2former", "semantic"), ("mask_rcnn", "instance")):
        changed = reports.from_plain(type(bundle), {**reports.to_plain(bundle), "arch": arch, "task": task}, origin="x")
        monkeypatch.setattr(checkpoint, "load_bundle", lambda uri, changed=changed: changed)
        with pytest.raises(InputError, match=f"{arch} of task {task} does not say how probable each class is"):
            search(shapes, tmp_path)


def test_the_grid_has_each_combination_once() -> None:
    assert len(CrfGrid().settings) == 12
    assert CrfGrid(sxy=(1.0,), srgb=(2.0,), weight=(3.0, 3.0)).settings == [CrfSettings(bilateral=(1.0, 2.0, 3.0))]
