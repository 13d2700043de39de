"""Where a model comes from: told link by link of a real night, and broken links as broken; models as names of data."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import InputError
from segpipe.shards import open_dataset
from segpipe.stages import lineage as stage
from segpipe.stages import proofs
from segpipe.stages.diff import diff
from segpipe.stages.identity import resolve
from segpipe.stages.lineage import lineage
from segpipe.stages.origins import origin_of
from segpipe.stages.retrain import RetrainResult, retrain
from segpipe.stages.smoke import Answered
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.small import small_run
from tests.stages.conftest import Shapes
from tests.stages.toy_night import SCENES, recipe, surroundings

pytestmark = pytest.mark.xdist_group("lineage")
ONE = SCENES | {"name": "toy", "architectures": SCENES["architectures"][:1]}
FIRST = recipe(document=ONE)
# Other streets under the same names: another version of the dataset, and so another training.
SECOND = recipe("dataset.options.seed=1", "promote.margin=0.99", document=ONE)


@pytest.fixture(scope="module")
def told(new_home: Callable[[], Path]) -> Iterator[tuple[Path, RetrainResult, RetrainResult]]:
    """A home with two nights: a first champion, and a challenger on another version of the dataset that lost."""
    home = new_home()
    with surroundings(home) as patch:
        # What the smoke prediction says has tests of its own.
        patch.setattr(proofs, "smoke", lambda *_: Answered(images=("x",), answers_sha256="y"))
        first = retrain(FIRST, runtime="local")
        second = retrain(SECOND, runtime="local")
        yield home, first, second


@pytest.fixture
def here(told: tuple[Path, RetrainResult, RetrainResult], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGPIPE_HOME", str(told[0]))
    return told[0]


@pytest.fixture
def restored(here: Path, tmp_path: Path) -> Iterator[Path]:
    """The home to damage: its documents name places in it, so that it is put back and not copied for that."""
    shutil.copytree(here, tmp_path / "kept")
    yield here
    shutil.rmtree(here)
    shutil.copytree(tmp_path / "kept", here)


def test_every_link_of_the_champion_is_told(here: Path, told: tuple[Path, RetrainResult, RetrainResult]) -> None:
    _, first, second = told
    assert (first.verdict.outcome, second.verdict.outcome) == ("promoted", "kept")
    found = lineage("models:/toy@champion", images=True)
    assert found.broken == ()
    assert (found.experiment, found.label, found.arch, found.version) == ("toy", "unet", "unet", 1)
    assert first.verdict.champion is not None
    assert (found.weights_sha256, found.checkpoint) == (
        first.verdict.champion.weights_sha256,
        first.verdict.champion.checkpoint,
    )
    dataset = open_dataset(first.dataset.uri, version=first.dataset.version)
    assert found.data is not None
    assert (found.data.name, found.data.version, found.data.uri) == ("streets", dataset.version, dataset.uri)
    assert {(each.path, each.sha256, each.rows) for each in found.data.shards} == {
        (shard.path, shard.sha256, shard.rows) for split in dataset.manifest.splits.values() for shard in split.shards
    }
    assert (found.data.images, len(found.data.image_hashes)) == (13, 13)
    assert [sha256 for split, _, sha256 in found.data.image_hashes if split == "test"] == dataset.image_hashes("test")
    (training,) = found.trainings
    assert (training.role, training.train_split, training.validation_split) == ("training", "train", "val")
    assert found.parents == ()
    assert {(each.dataset_version, each.split) for each in found.scores} == {
        (first.dataset.version, "test"),
        (second.dataset.version, "test"),
    }
    assert found.verdict is not None
    assert (found.verdict.number, found.verdict.kind, found.decisions) == (1, "promoted", (1,))
    assert found.recipe_digest == storage.read_json(f"{found.checkpoint}/model.json")["config_digest"]


def test_a_version_and_an_alias_mean_the_same_model(here: Path) -> None:
    challenger, second = lineage("models:/toy@challenger"), lineage("models:/toy/2")
    assert (challenger.weights_sha256, challenger.version) == (second.weights_sha256, 2)
    assert second.data is not None
    assert second.data.image_hashes == (), "they are told to who asks"
    assert second.verdict is not None
    assert second.verdict.kind == "kept"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy", r"expected models:/NAME@champion"),
        ("models:/toy@best", r"expected models:/NAME@champion"),
        ("models:/tyo@champion", r"no experiment 'tyo'; there are: toy"),
        ("models:/toy/9", r"models:/toy/9: MLflow has no such version of ours"),
    ],
)
def test_names_of_no_model_are_refused(here: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lineage(name)


def test_the_data_of_two_models_is_compared(here: Path, told: tuple[Path, RetrainResult, RetrainResult]) -> None:
    found = diff("models:/toy@champion", "models:/toy/2")
    assert (found.old_version, found.new_version) == (told[1].dataset.version, told[2].dataset.version)
    assert found.old_version != found.new_version
    assert (found.added, found.removed) == ((), ())
    assert len(found.repainted) == 13, "other streets under the same names"
    mixed = diff("streets", "models:/toy/2")
    assert mixed.old_version == mixed.new_version


def test_the_command_tells_it_to_people_and_programs(here: Path) -> None:
    shown = segpipe("lineage", "models:/toy@champion").stdout
    told = document(segpipe("lineage", "models:/toy@champion", "--images", "--json"))
    assert told["broken"] == []
    assert all(shard["sha256"] in shown for shard in told["data"]["shards"])
    assert all(word in shown for word in (told["weights_sha256"], told["recipe_digest"], told["code_version"]))
    assert told["verdict"]["reason"] in shown
    assert len(told["data"]["image_hashes"]) == 13
    assert "hash of each: --images" in shown


def test_what_is_gone_or_changed_is_told_as_broken(restored: Path) -> None:
    sound = lineage("models:/toy@champion")
    assert sound.data is not None
    run = Path(sound.checkpoint).parent
    (run / "run.json").write_text("{}")
    Path(str(sound.data.uri), sound.data.shards[0].path).unlink()
    for score in sound.scores:
        shutil.rmtree(score.uri)
    found = lineage("models:/toy@champion")
    assert [link.partition(":")[0] for link in found.broken] == ["recipe", "dataset", "evaluation"]
    assert "is not the recipe" in found.broken[0]
    assert found.broken[1].endswith(f"{sound.data.shards[0].path}: this shard of the version is gone")
    assert "lies no report of these weights on streets" in found.broken[2]
    assert (found.trainings, found.scores) == ((), ())
    assert found.verdict == sound.verdict, "what holds is told"
    result = segpipe("lineage", "models:/toy@champion")
    assert result.exit_code == 1
    assert result.stdout.count("broken: ") == 3
    (Path(sound.checkpoint) / "weights.safetensors").unlink()
    worse = lineage("models:/toy@champion")
    assert worse.broken[0].startswith("weights: ")
    assert (worse.data, worse.recipe_digest) == (None, None)


def test_an_mlflow_that_is_down_is_one_broken_link(here: Path, mlflow_down: str) -> None:
    found = lineage("models:/toy@champion")
    (link,) = found.broken
    assert link.startswith("registry: MLflow at http://127.0.0.1:9 cannot be used")
    assert found.version is None
    result = segpipe("lineage", "models:/toy/1")
    assert result.exit_code == 3, "which model has a number, only MLflow knows"


def test_what_a_training_began_with_is_told_with_its_weights(shapes: Shapes, tmp_path: Path) -> None:
    parent = resolve(small_run(epochs=1).model_copy(update={"label": "parent"}))
    began = shapes.train(tmp_path, parent)
    child = shapes.train(tmp_path, parent.model_copy(update={"label": "child", "start_from": parent}))
    links = stage._Links()
    (link,) = stage._parents(origin_of(child.model_uri), links)
    assert (link.of, link.label, link.uri, link.weights_sha256) == (
        "child",
        "parent",
        began.run_uri,
        began.weights_sha256,
    )
    assert links.broken == []
    shutil.rmtree(began.run_uri)
    (gone,) = stage._parents(origin_of(child.model_uri), links)
    assert (gone.label, gone.weights_sha256) == ("parent", None)
    assert links.broken[0].startswith("start_from parent: ")
