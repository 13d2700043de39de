"""What `segpipe check` foretells: steps, and crops that the images do not fill."""

from pathlib import Path

import pytest

from segpipe.config import Recipe
from segpipe.errors import InputError
from segpipe.stages import layout
from segpipe.stages.identity import resolve
from segpipe.stages.ingest import ingest
from segpipe.stages.outlook import Outlook, outlook
from segpipe.stages.preflight import check
from segpipe.stages.train import run_location
from tests.stages.toy_night import recipe

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]


def outlook_of(found: Recipe) -> list[Outlook]:
    return outlook(found, check(found).samples)


def test_steps_are_counted_from_the_listing_before_there_is_a_dataset() -> None:
    first, second = outlook_of(recipe("train.epochs=100", "architectures.1.train.batch_size=3"))
    assert (first.label, first.steps, first.notes) == ("unet", 200, ())
    assert (second.label, second.steps) == ("deeplab_v3plus", 200)


def test_too_few_steps_are_told() -> None:
    found = outlook_of(recipe("train.epochs=99"))[0]
    assert (found.steps, found.notes) == (
        198,
        ("only 198 steps in 99 epochs of 8 samples: raise epochs, or lower batch_size",),
    )


def test_a_training_without_a_step_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        outlook_of(recipe("train.batch_size=9", "architectures.1.train={batch_size: 4, accumulate: 3}"))
    idle = "nothing would be trained; lower batch_size or accumulate"
    assert str(caught.value).splitlines() == [
        "recipe 'toy':",
        f"  architectures.0: 8 samples do not fill one step of 9: {idle}",
        f"  architectures.1: 8 samples do not fill one step of 12: {idle}",
    ]


def test_a_dataset_of_other_files_foretells_nothing_of_these() -> None:
    """Of the same name in the home, but ingested from another root, say."""
    enough = ("train.epochs=100", "train.augment.crop=[64, 32]")
    ingest(recipe().dataset)
    (note,) = outlook_of(recipe(*enough))[0].notes
    assert note.startswith("augment.crop 64x32")
    other = outlook_of(recipe(*enough, "dataset.options.train=12"))[0]
    assert (other.steps, other.notes) == (300, ())


def test_what_is_trained_already_is_not_to_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its folder, which names training, data and code: another recipe, or a source that has changed, has another."""
    found = recipe("train.epochs=100")
    assert [each.steps for each in outlook_of(found)] == [200, 200]
    version = ingest(found.dataset).version
    runs = layout.runs_uri(found.name)
    folder = run_location(resolve(found.run_config(0)), version=version, to=runs)
    Path(folder).mkdir(parents=True)
    (Path(folder) / "run.json").write_text("{}")
    assert outlook_of(found)[0].steps == 200, "begun, and not ended"
    monkeypatch.setattr("segpipe.stages.outlook.finished", lambda uri: uri == folder or None)
    first, second = outlook_of(found)
    assert (first.steps, first.aside.partition(",")[0], second.steps) == (0, "is trained already", 200)
    assert outlook_of(recipe("train.epochs=50"))[0].steps == 100
    assert outlook_of(recipe("train.epochs=100", "dataset.options.train=12"))[0].steps == 300


def test_a_crop_that_the_images_of_the_dataset_do_not_fill_is_told() -> None:
    enough = ("train.epochs=100",)
    ingest(recipe().dataset)
    assert outlook_of(recipe(*enough))[0].notes == ()
    (note,) = outlook_of(recipe(*enough, "train.augment.crop=[64, 32]"))[0].notes
    assert note.startswith("augment.crop 64x32 (height x width) is larger than 8 of 8 images (most are 40x32 pixels")
    (note,) = outlook_of(recipe(*enough, "train.input_scale=0.5"))[0].notes
    assert "40x32 pixels at input_scale 0.5" in note


def test_a_model_that_counts_takes_no_steps_and_fills_no_crop() -> None:
    beside = recipe("architectures=[{arch: kmeans}, {arch: unet}]", "train.epochs=1")
    counting, unet = outlook(beside, {"train": 8, "val": 2, "test": 3})
    assert (counting.steps, counting.notes) == (0, ())
    assert counting.aside == (
        "learns by counting: of train it takes train_split, validation_split, input_scale, inference alone"
    )
    assert unet.steps > 0
    assert unet.notes


def test_what_is_trained_as_another_takes_no_steps_of_its_own() -> None:
    others = "{arch: unet, label: crf, train: {inference: {crf: {}}}}, {arch: unet, label: next, start_from: unet}"
    found = outlook(recipe(f"architectures=[{{arch: unet}}, {others}]", "train.epochs=1"), {"train": 8})
    assert [(each.label, each.steps, each.aside) for each in found] == [
        ("unet", 2, ""),
        ("crf", 0, "takes the weights of unet: their training is the same"),
        ("next", 2, "starts from the weights of unet"),
    ]
    assert found[1].notes == ()
