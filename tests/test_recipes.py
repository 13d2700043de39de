"""The recipes that ship: each can be read, its models can be made and start as they say; no architecture is without."""

from pathlib import Path

import pytest

from segpipe import models
from segpipe.config import Recipe, RunConfig
from segpipe.stages.identity import options_of

RECIPES = sorted((Path(__file__).parents[1] / "flows" / "recipes").glob("*.yaml"))


def runs() -> dict[str, list[RunConfig]]:
    return {path.stem: Recipe.load(path).run_configs() for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_models_can_be_made_and_answer_its_task(path: Path) -> None:
    recipe = Recipe.load(path)
    made = set()
    for run in recipe.run_configs():
        assert run.arch in models.names(run.task)
        options = options_of(run)
        if (run.arch, str(options)) not in made:
            models.check(run.arch, options)
        if run.start_from is not None:
            models.check_start(run.arch, options, run.start_from.arch, options_of(run.start_from))
        made.add((run.arch, str(options)))


def test_every_architecture_is_in_a_recipe() -> None:
    trained = {run.arch for found in runs().values() for run in found}
    assert [name for name in models.names() if name not in trained] == []


def test_the_deeplabs_with_a_crf_train_nothing_more() -> None:
    family = {run.label: run for run in runs()["camvid_family"]}
    for name in ("deeplab_v1", "deeplab_v2"):
        plain, refined = family[name], family[f"{name}_crf"]
        assert plain.train.inference.crf is None
        assert refined.train.inference.crf is not None
        assert refined.trained_as == plain
