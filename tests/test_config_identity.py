"""Which parts of a recipe make a training run's identity, and its digest."""

from typing import Any

import pytest
import yaml

from segpipe.config import WITHOUT_EFFECT, AugmentConfig, Recipe, RunConfig, TrainConfig, digest
from segpipe.errors import InputError
from tests.fixtures.recipes import MINIMAL, recipe_with


def digests(document: Any, *overrides: str) -> list[str]:
    recipe = Recipe.parse(document, origin="my.yaml", overrides=overrides)
    return [recipe.run_config(index).digest for index in range(len(recipe.architectures))]


def reversed_keys(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: reversed_keys(value) for key, value in reversed(node.items())}
    return [reversed_keys(item) for item in node] if isinstance(node, list) else node


def test_the_digest_is_that_of_the_meaning_not_of_the_text() -> None:
    expected = digests(MINIMAL)
    assert len(set(expected)) == 2
    assert all(len(found) == 64 for found in expected)
    assert digests(reversed_keys(MINIMAL)) == expected, "order of keys"
    written_out = yaml.safe_load(Recipe.parse(MINIMAL, origin="my.yaml").to_yaml())
    assert written_out["train"]["weight_decay"] == 1e-4
    assert digests(written_out) == expected, "defaults written out"
    assert digests(MINIMAL, "architectures.0.train={epochs: 3}") == expected, "an override that changes nothing"
    assert digests(MINIMAL, "train.ema_decay=null", "train.learning_rate=0.001") == expected
    assert digests(MINIMAL, "train.aux_weight=1") == digests(MINIMAL, "train.aux_weight=1.0")


@pytest.mark.parametrize(
    "override",
    [
        "resources.workers=8",
        "resources.gpus_per_worker=1",
        "resources.max_failures=0",
        "evaluate.workers=4",
        "evaluate.split=val",
        "promote.margin=0.5",
        "description=another",
        "dataset.options={seed: 3}",
        "train.loader_threads=7",
        "train.checkpoint_every=5",
        "architectures.0.train={loader_threads: 3, checkpoint_every: 1}",
    ],
)
def test_what_is_not_the_training_leaves_the_digest_alone(override: str) -> None:
    assert digests(MINIMAL, override) == digests(MINIMAL)


@pytest.mark.parametrize(
    "override",
    ["train.seed=1", "train.epochs=4", "train.augment.flip=0.4", "train.precision=bfloat16", "train.clip_norm=1.0"],
)
def test_what_changes_the_result_changes_every_digest(override: str) -> None:
    assert not set(digests(MINIMAL, override)) & set(digests(MINIMAL))


def test_a_change_of_one_architecture_changes_its_digest_only() -> None:
    before = digests(MINIMAL)
    for override in (
        "architectures.0.options.backbone=resnet18",
        "architectures.0.pretrained=DEFAULT",
        "architectures.0.label=mine",
        "architectures.0.train={epochs: 4}",
    ):
        after = digests(MINIMAL, override)
        assert after[0] != before[0]
        assert after[1] == before[1]


def test_every_other_key_of_train_is_part_of_the_identity() -> None:
    identity = Recipe.parse(MINIMAL, origin="my.yaml").run_config(0).identity
    assert set(identity["train"]) == set(TrainConfig.model_fields) - set(WITHOUT_EFFECT) - {"loss", "sigmoid"}
    assert set(identity["train"]["inference"]) == {"scales", "mirror"}
    assert set(WITHOUT_EFFECT) < set(TrainConfig.model_fields)
    assert set(identity) == set(RunConfig.model_fields) - {
        "pretrained_id",
        "start_from",
        "trained_as",
        "common",
        "members",
    }


def test_an_augmentation_that_is_off_is_no_part_of_the_identity_and_one_that_is_on_is() -> None:
    off = Recipe.parse(MINIMAL, origin="my.yaml").run_config(0).identity["train"]["augment"]
    assert set(off) == {"crop", "scale", "flip", "colour"}
    values = {
        "vertical_flip": 0.5,
        "rotation": 10.0,
        "elastic": 10.0,
        "blur": 0.1,
        "copy_paste": 0.5,
        "min_area": 4,
        "keypoint_pairs": [],
    }
    written_off = [f"train.augment.{key}={AugmentConfig.model_fields[key].default or 0}" for key in list(values)[:5]]
    assert digests(MINIMAL, *written_off, "train.augment.blur_sigma=[0.1, 2.0]") == digests(MINIMAL)
    on = [digests(MINIMAL, f"train.augment.{key}={value}")[0] for key, value in values.items()]
    on += [digests(MINIMAL, "train.augment.blur=0.1", "train.augment.blur_sigma=[1, 2]")[0], digests(MINIMAL)[0]]
    assert len(set(on)) == len(on)
    assert {*off, *values, "blur_sigma"} == set(AugmentConfig.model_fields)


def test_what_came_later_is_part_of_the_identity_where_it_is_used() -> None:
    unused = ("train.loss={cross_entropy: 1}", "train.loss={cross_entropy: {weight: 1.0}}", "train.sigmoid=false")
    assert all(digests(MINIMAL, override) == digests(MINIMAL) for override in (*unused, "train.inference.window=null"))
    used = [
        "train.loss={dice: 1}",
        "train.loss={dice: 1, cross_entropy: 1}",
        "train.loss={dice: {smooth: 1}}",
        "train.loss={cross_entropy: 0.5}",
        "train.sigmoid=true",
        "train.inference.window={size: [64, 64]}",
        "train.inference.window={size: [64, 64], overlap: 0.25}",
    ]
    assert len({digests(MINIMAL, override)[0] for override in [*used, "train.seed=0"]}) == len(used) + 1
    same = ["train.loss={cross_entropy: 1, dice: {weight: 1.0, smooth: 0}}", "train.loss={dice: 1.0, cross_entropy: 1}"]
    assert digests(MINIMAL, same[0]) == digests(MINIMAL, same[1])


def test_the_identity_holds_which_weights_and_not_where_they_lie() -> None:
    run = Recipe.parse(recipe_with("architectures.0.pretrained", "a/weights.pth"), origin="my.yaml").run_config(0)
    here, moved = (
        run.model_copy(update={"pretrained": path, "pretrained_id": "sha256:12"}) for path in ("a.pth", "b.pth")
    )
    other = moved.model_copy(update={"pretrained_id": "sha256:34"})
    assert here.identity["pretrained"] == "sha256:12"
    assert here.digest == moved.digest
    assert len({run.digest, here.digest, other.digest}) == 3


def test_the_digest_is_pinned() -> None:
    """A change of these values makes every finished run unknown: change them on purpose only."""
    assert digest({"b": [1, 2.5, None], "a": "\u00e4"}) == digest({"a": "\u00e4", "b": [1, 2.5, None]})
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert digests(MINIMAL) == [
        "cc88dcf59e28971a6d23d3120c7207dd1bf5bc57ac78f5f6cc032134680d48f6",
        "3f0ce01752af80c754e3ece2efe37cbcd90d409be10d22345eae20cd9d194a0a",
    ]


def test_what_a_training_starts_from_is_part_of_it_to_the_first_one() -> None:
    chain = [
        {"arch": "unet", "label": "a"},
        {"arch": "unet", "label": "b", "start_from": "a"},
        {"arch": "unet", "label": "c", "start_from": "b"},
    ]
    document = recipe_with("architectures", chain)
    first, second, third = digests(document)
    assert third != digests(recipe_with("architectures", [chain[0], {"arch": "unet", "label": "c"}]))[1]
    assert digests(document, "architectures.0.train={seed: 1}")[0] != first
    assert digests(document, "architectures.0.train={seed: 1}")[1] != second
    assert digests(document, "architectures.0.train={seed: 1}")[2] != third
    assert digests(document, "architectures.2.train={seed: 1}")[:2] == [first, second]
    run = Recipe.parse(document, origin="my.yaml").run_config(2)
    assert RunConfig.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{"arch": "unet", "start_from": "unet"}],
            "architectures.0.start_from: no entry above that is trained is labelled unet; there are: none",
        ),
        (
            [{"arch": "unet"}, {"arch": "fcn_resnet18", "start_from": "unett"}],
            "architectures.1.start_from: no entry above that is trained is labelled unett; there are: unet",
        ),
        (
            [{"arch": "unet"}, {"arch": "unet", "label": "b", "start_from": "unet", "pretrained": "DEFAULT"}],
            "architectures.1: it starts from 'unet' and is pretrained; take one",
        ),
    ],
)
def test_a_start_is_an_entry_above(entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.parse(recipe_with("architectures", entries), origin="my.yaml")


def test_a_crf_is_part_of_the_identity_where_there_is_one() -> None:
    assert digests(MINIMAL, "train.inference.crf=null") == digests(MINIMAL)
    used = ["train.inference.crf={}", "train.inference.crf={iterations: 6}", "train.inference.crf.gaussian=[3, 2]"]
    assert len({digests(MINIMAL, override)[0] for override in [*used, "train.seed=0"]}) == 4
    written_out = "train.inference.crf={iterations: 5, gaussian: [3, 3], bilateral: [80, 13, 10]}"
    assert digests(MINIMAL, written_out) == digests(MINIMAL, used[0])


def test_a_crf_is_no_part_of_a_training_and_windows_and_views_are() -> None:
    plain = Recipe.parse(MINIMAL, origin="my.yaml").run_config(0)
    assert plain.training is plain

    def training(*overrides: str) -> str:
        return Recipe.parse(MINIMAL, origin="my.yaml", overrides=overrides).run_config(0).training.digest

    assert training("train.inference.crf={}") == training("train.inference.crf={iterations: 6}") == plain.digest
    assert training("train.inference.samples=4") == plain.digest
    views = ["train.inference.scales=[0.5, 1.0]", "train.inference.mirror=true", "train.inference.window.size=[9, 9]"]
    assert len({training(view) for view in views} - {plain.digest}) == 3, "an epoch is chosen by what they see"
    assert training(views[0], "train.inference.crf={}") == training(views[0])


def test_entries_that_differ_after_training_alone_are_trained_once() -> None:
    entries: list[dict[str, Any]] = [
        {"arch": "unet", "label": "first", "train": {"inference": {"crf": {}}}},
        {"arch": "unet", "label": "plain"},
        {"arch": "unet", "label": "mirrored", "train": {"inference": {"mirror": True, "crf": {}}}},
        {"arch": "unet", "label": "other", "train": {"inference": {"mirror": True, "crf": {"iterations": 2}}}},
        {"arch": "unet", "label": "child", "start_from": "other"},
        {"arch": "unet", "label": "longer", "train": {"epochs": 9}},
    ]
    recipe = Recipe.parse(recipe_with("architectures", entries), origin="my.yaml")
    runs = {run.label: run for run in recipe.run_configs()}
    assert {label: run.training.label for label, run in runs.items()} == {
        "first": "first",
        "plain": "first",
        "mirrored": "mirrored",
        "other": "mirrored",
        "child": "child",
        "longer": "longer",
    }
    assert [runs[label].awaits for label in ("first", "plain", "other", "child")] == [
        (),
        ("first",),
        ("mirrored",),
        ("mirrored",),
    ]
    assert len({run.digest for run in runs.values()}) == len(runs)
    alone = Recipe.parse(recipe_with("architectures", [entries[3]]), origin="my.yaml").run_config(0)
    assert alone.digest == runs["other"].digest, "what else a recipe trains is no part of a result"
    assert RunConfig.model_validate_json(runs["other"].model_dump_json()) == runs["other"]


def test_the_same_training_is_known_however_it_is_written() -> None:
    entries: list[dict[str, Any]] = [
        {"arch": "unet", "label": "first", "train": {"weight_decay": 1e-4, "loader_threads": 3}},
        {"arch": "unet", "label": "plain", "train": {"checkpoint_every": 7, "inference": {"crf": {"iterations": 5}}}},
        {"arch": "unet", "label": "written_out", "train": {"inference": {"mirror": False, "scales": [1.0]}}},
        {"arch": "unet", "label": "child", "start_from": "first"},
        {"arch": "unet", "label": "same_child", "start_from": "plain"},
        {"arch": "unet", "label": "other", "train": {"weight_decay": 2e-4}},
        {"arch": "unet", "label": "pretrained", "pretrained": "DEFAULT"},
    ]
    runs = Recipe.parse(recipe_with("architectures", entries), origin="my.yaml").run_configs()
    assert [run.trained_as.label if run.trained_as else "" for run in runs] == [
        "",
        "first",
        "first",
        "",
        "child",
        "",
        "",
    ]
    assert [run.training.label for run in runs[:5]] == ["first"] * 3 + ["child"] * 2
    assert [run.train.loader_threads for run in runs[:2]] == [3, 2]


def test_samples_are_part_of_the_identity_where_there_are_some() -> None:
    assert digests(MINIMAL, "train.inference.samples=0") == digests(MINIMAL)
    assert len({digests(MINIMAL, f"train.inference.samples={number}")[0] for number in (0, 2, 40)}) == 3
    with pytest.raises(InputError, match=r"train.inference.samples: .*one sample tells nothing of how much"):
        digests(MINIMAL, "train.inference.samples=1")
