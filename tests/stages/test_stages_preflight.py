"""What of a recipe is refused before any work."""

from pathlib import Path

import pytest
import safetensors.torch

from segpipe import models
from segpipe.errors import InputError
from segpipe.stages import layout
from segpipe.stages.identity import options_of, resolve
from segpipe.stages.ingest import IngestResult, ingest
from segpipe.stages.preflight import check, check_evaluation, check_splits
from segpipe.stages.retrain import retrain
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.small import OPTIONS
from tests.stages.toy_night import forbid_work, recipe

pytestmark = pytest.mark.xdist_group("nights")


def test_everything_that_a_recipe_names_wrongly_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    wrong = recipe(
        "dataset={name: a, format: foldr, root: x}",
        "architectures=[{arch: unett}, {arch: unet, options: {backbone: resnet19}}, {arch: unet, label: b, "
        "options: {depth: 3}}, {arch: fcn_resnet18, train: {batch_size: 3}}]",
        "resources.workers=2",
    )
    for refuse in (check, lambda found: retrain(found, runtime="local")):
        with pytest.raises(InputError) as caught:
            refuse(wrong)
        lines = str(caught.value).splitlines()
        assert lines[0] == "recipe 'toy':"
        assert "architectures.0: architecture: unknown 'unett'; did you mean 'unet'?" in lines[1]
        assert "architectures.1: " in lines[2]
        assert "resnet19" in lines[2]
        assert "architectures.2: unet: unknown option 'depth'" in lines[3]
        assert "architectures.3: batch_size 3 does not divide over resources.workers 2" in lines[4]
        assert "dataset: unknown source format 'foldr'; did you mean 'folder'" in lines[5]
        assert len(lines) == 6
    assert not Path(layout.home()).exists(), "nothing was written"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.options.heigth=4", "source 'scenes' has no option 'heigth'"),
        ("dataset.options.height=4", "source 'scenes', option 'height': 4; expected 32 to 4096"),
        ("dataset={name: a, format: camvid, root: $NOT_SET_ANYWHERE/camvid}", "\n  dataset: root '$NOT_SET_ANYWHERE/"),
        ("dataset={name: a, format: folder, root: /absent}", "/absent"),
        ("dataset={name: a, format: camvid, root: /absent}", "dataset: /absent: there is no such folder"),
        (
            "dataset.options={train: 0, val: 0, test: 0}",
            "dataset: scenes: no usable sample (0 refused); give the folder that holds the samples",
        ),
        ("dataset.options.val=0", "  train.validation_split is 'val', but the source scenes has the splits test (3), "),
        (
            "architectures.1.train.train_split=all",
            "  architectures.1.train.train_split is 'all', but the source scenes has the splits test (3), train (8), ",
        ),
        ("evaluate.split=dev", "  evaluate.split is 'dev', but the source scenes has the splits test (3), train (8), "),
        (
            "architectures.0.pretrained=absent/weights.pth",
            "architectures.0: pretrained: absent/weights.pth: no such file",
        ),
        (
            "architectures.1.pretrained=IMAGENET",
            "architectures.1: pretrained: 'IMAGENET' is not known for deeplab_v3plus",
        ),
        ("architectures.0.options.width=wide", "option width: expected int, found 'wide'"),
        ("architectures.0.options.width=1.0", "option width: expected int, found 1.0"),
        (
            "architectures=[{arch: mask_rcnn, options: {norm: frozen}}]",
            "architectures.0: mask_rcnn: option norm: frozen",
        ),
    ],
)
def test_each_fault_of_a_recipe_is_refused_before_any_work(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(recipe(override))
    assert message in str(caught.value)


def test_a_budget_without_a_training_is_refused() -> None:
    idle = recipe("architectures=[{arch: kmeans}]", "rehearsal.seconds=1", "budget.hours=1")
    with pytest.raises(InputError, match="budget: of kmeans none learns by descent; leave it out"):
        check(idle)


def test_a_weights_file_is_read_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = models.create("unet", 5, **OPTIONS["unet"]).state_dict()
    safetensors.torch.save_file(state, path)
    check(recipe(f"architectures.0.pretrained={path}"))
    with pytest.raises(InputError, match=r"architectures.1: pretrained .*: the tensors do not fit"):
        check(recipe(f"architectures.1.pretrained={path}"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"architectures.0: pretrained: .*safetensors: cannot be read as weights"):
        check(recipe(f"architectures.0.pretrained={path}"))


def test_a_sound_recipe_passes(tmp_path: Path) -> None:
    check(recipe())
    assert not Path(layout.home()).exists()


def test_splits_by_lists_or_by_hash_are_those_that_ingest_will_make(tmp_path: Path) -> None:
    lists, dealt = write_folder_mini(tmp_path / "lists", lists=True), write_folder_mini(tmp_path / "dealt")
    check(recipe(f"dataset={{name: a, format: folder, root: {dealt}}}"))
    with pytest.raises(InputError) as caught:
        check(recipe(f"dataset={{name: a, format: folder, root: {lists}}}"))
    assert str(caught.value).splitlines() == [
        "recipe 'toy':",
        f"  evaluate.split is 'test', but the source {lists} has the splits train (16), val (4): name one of those, or "
        "give the source a list of samples for the missing one",
    ]


def test_additions_are_counted_as_ingest_will_take_them(tmp_path: Path) -> None:
    own = write_folder_mini(tmp_path / "own", lists=True)
    more = write_folder_mini(tmp_path / "more", count=24)
    for file in (*more.glob("images/img_023.*"), *more.glob("masks/img_023.*")):
        file.rename(file.with_stem("bell\a"))
    addition = f"{{format: folder, root: {more}, split: test}}"
    found = recipe(f"dataset={{name: a, format: folder, root: {own}, max_quarantine: 1, additions: [{addition}]}}")
    listed = check(found)
    assert dict(listed.samples) == {"train": 16, "val": 4, "test": 3}
    assert dict(listed.samples) == ingest(found.dataset).splits
    with pytest.raises(InputError) as caught:
        check(found.model_copy(update={"evaluate": found.evaluate.model_copy(update={"split": "x"})}))
    (line,) = str(caught.value).splitlines()[1:]
    assert f" but the source {own} with its additions has the splits test (3), train (16), val (4): " in line


def test_an_additions_fault_is_told_beside_those_of_the_dataset(tmp_path: Path) -> None:
    own = write_folder_mini(tmp_path / "own", lists=True)
    for root, fault in (("/absent", "/absent: there is no such folder"), ("$NOT_SET_ANYWHERE", "root '$NOT_SET_ANYWH")):
        addition = f"{{format: labelme, root: {root}}}"
        with pytest.raises(InputError) as caught:
            check(recipe(f"dataset={{name: a, format: folder, root: {own}, additions: [{addition}]}}"))
        split, more = str(caught.value).splitlines()[1:]
        assert split.startswith(
            f"  evaluate.split is 'test', but the source {own} has the splits train (16), val (4): "
        )
        assert more.startswith(f"  dataset.additions.0: {fault}")


def test_copy_paste_needs_objects_to_copy(tmp_path: Path) -> None:
    check(recipe("train.augment.copy_paste=0.5"))
    masks_only = f"dataset={{name: a, format: folder, root: {write_folder_mini(tmp_path)}}}"
    for key in ("train.augment.copy_paste=0.5", "architectures.1.train={augment: {copy_paste: 0.1}}"):
        with pytest.raises(InputError, match=rf"copy_paste is on, but the source {tmp_path} has no segments to paste"):
            check(recipe(masks_only, key))
    check_evaluation(recipe(masks_only, "train.augment.copy_paste=0.5"))


OBJECTS = ("task=instance", "architectures=[{arch: mask_rcnn}, {arch: unet_watershed}]")


def test_a_recipe_of_objects_passes_and_one_of_mixed_tasks_does_not() -> None:
    check(recipe(*OBJECTS))
    with pytest.raises(InputError) as caught:
        check(recipe("task=instance"))
    first, *_ = str(caught.value).splitlines()[1:]
    assert first.startswith(
        "  architectures.0.arch: unet is a model of task semantic, and the recipe's task is instance"
    )
    assert "mask_rcnn" in first
    assert first.endswith("or set task: semantic")


def test_a_source_must_fill_what_the_task_needs(tmp_path: Path) -> None:
    masks_only = f"dataset={{name: a, format: folder, root: {write_folder_mini(tmp_path, lists=True)}}}"
    expected = (
        rf"task instance needs segments, which the source {tmp_path} does not fill \(it fills: label_map\); choose"
    )
    for refuse in (check, check_evaluation):
        with pytest.raises(InputError, match=expected):
            refuse(recipe(masks_only, "evaluate.split=val", *OBJECTS))


def test_what_a_task_would_ignore_is_refused_once_for_all_that_ask_for_it() -> None:
    with pytest.raises(InputError) as caught:
        check(recipe(*OBJECTS, "train.inference={mirror: true}", "architectures.1.train={class_weights: enet}"))
    both = str(caught.value).splitlines()[1:]
    assert len(both) == 2, "they are not the same faults"
    assert both[0].startswith("  architectures.0: train: inference asks for scales [1.0] and mirror: ")
    assert both[1].startswith("  architectures.1: train: class_weights is enet: ")
    with pytest.raises(InputError) as caught:
        check(recipe(*OBJECTS, "train.aux_weight=1.0"))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("  architectures.0, architectures.1: train: aux_weight is 1: ")


def test_weights_that_masks_with_a_class_each_would_ignore_are_refused() -> None:
    both = "architectures=[{arch: unet}, {arch: mask2former}]"
    check(recipe(both))
    with pytest.raises(InputError) as caught:
        check(recipe(both, "train.class_weights=enet", "architectures.1.train={aux_weight: 0.1}"))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("  architectures.1: mask2former: train: class_weights is enet: ")
    assert "; aux_weight is 0.1: " in line
    check(recipe(both, "train.class_weights=enet", "architectures.1.train={class_weights: none}"))


def test_a_common_weight_of_heads_is_for_those_that_have_some() -> None:
    heads = "{arch: fcn_resnet18, options: {aux: true}}"
    others = "{arch: unet}, {arch: kmeans}, {arch: mask2former}"
    found = recipe(f"architectures=[{heads}, {others}]", "train.aux_weight=0.1")
    check(found)
    weights = [resolve(run).train.aux_weight for run in found.run_configs()]
    assert weights == [0.1, 0.4, 0.4, 0.4], "a change of it is no other training of the others"
    with pytest.raises(InputError) as caught:
        check(recipe(f"architectures=[{heads}, {others}]", "architectures.1.train={aux_weight: 0.1}"))
    (line,) = str(caught.value).splitlines()[1:]
    assert line == "  architectures.1: unet: train: aux_weight is 0.1: it has no auxiliary heads; leave it out"
    with pytest.raises(InputError) as caught:
        check(recipe(f"architectures=[{others}]", "train.aux_weight=0.1"))
    (line,) = str(caught.value).splitlines()[1:]
    assert line == "  train.aux_weight is 0.1: none of unet, kmeans, mask2former has auxiliary heads; leave it out"


def test_what_is_resolved_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = "{arch: fcn_resnet18, options: {aux: true}}"
    found = recipe(f"architectures=[{heads}, {{arch: unet}}]", "train.aux_weight=0.1")
    runs = [resolve(run) for run in found.run_configs()]
    monkeypatch.setattr(models, "aux_heads", lambda *_: pytest.fail("a model was built"))
    assert [resolve(run) for run in runs] == runs


def test_a_limit_for_a_class_that_is_not_there_is_refused() -> None:
    check(recipe("promote.max_falls={car: 0.2}"))
    with pytest.raises(InputError) as caught:
        check(recipe("promote.max_falls={caar: 0.2, car: 0.1}"))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(
        "  promote.max_falls: the source scenes has no class 'caar'; did you mean 'car'? expected some of: "
    )


def test_gpus_that_are_not_there_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("segpipe.stages.preflight.num_gpus", lambda: 1)
    forbid_work(monkeypatch)
    check(recipe("resources.gpus_per_worker=1"))
    two = recipe("resources={workers: 2, gpus_per_worker: 1}")
    for refuse in (check, retrain):
        with pytest.raises(InputError) as caught:
            refuse(two)
        assert str(caught.value).splitlines()[1:] == [
            "  resources: 2 workers of gpus_per_worker 1 ask for 2 GPU, and this machine has 1: set RAY_ADDRESS to a "
            "cluster that has them, or lower workers or gpus_per_worker (0 trains on CPUs)"
        ]
    check(two, runtime="local")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    check(two)


def test_a_loss_that_cannot_be_is_refused_before_any_work() -> None:
    with pytest.raises(InputError) as caught:
        check(recipe("train.sigmoid=true", "train.loss={focal: {alpha: 0.25}}"))
    (line,) = str(caught.value).splitlines()[1:]
    assert ": train: sigmoid is true and loss: focal.alpha is set: that is for two classes, and the dataset" in line
    with pytest.raises(InputError, match="train: loss is dice: that is for a model with logits for every pixel"):
        check(recipe(*OBJECTS, "train.loss={dice: 1}"))


def test_an_evaluation_asks_for_its_own_split_only() -> None:
    check_evaluation(recipe("dataset.options.train=0", "architectures=[{arch: unett}]"))
    with pytest.raises(InputError, match=r"evaluate.split is 'test', but the source scenes has the splits train \(8\)"):
        check_evaluation(recipe("dataset.options.test=0", "dataset.options.val=0"))


def test_a_split_that_ingest_refused_as_a_whole_is_missing() -> None:
    ingested = IngestResult(
        name="streets",
        uri="datasets/streets",
        version="v1",
        status="published",
        splits={"train": 8, "test": 3},
        quarantined=(),
        warnings=(),
        seconds=0.0,
    )
    with pytest.raises(InputError, match=r"train.validation_split is 'val', but dataset 'streets' has the splits test"):
        check_splits(recipe(), ingested)


def test_whole_numbers_are_floats_and_frozen_norms_need_weights() -> None:
    run = recipe("architectures=[{arch: mask_rcnn, options: {min_score: 0, norm: frozen}, pretrained: DEFAULT}]")
    options = options_of(run.run_config(0))
    assert (options["min_score"], type(options["min_score"]), options["norm"]) == (0.0, float, "frozen")
    with pytest.raises(InputError, match="option min_score: expected float, found True"):
        options_of(recipe("architectures=[{arch: mask_rcnn, options: {min_score: true}}]").run_config(0))


POSES = "architectures=[{arch: hrnet_pose_tiny, options: {keypoints: 5}}]"


def test_pairs_of_keypoints_are_said_once_and_follow_into_the_models_options() -> None:
    both = ("train.augment.keypoint_pairs=[[1, 2], [3, 4]]", "train.inference={mirror: true}")
    said = recipe("task=keypoints", POSES, *both)
    check(said)
    assert options_of(said.run_config(0))["keypoint_pairs"] == [[1, 2], [3, 4]]
    assert resolve(resolve(said.run_config(0))) == resolve(said.run_config(0))
    for more, message in (
        (
            ("architectures.0.options.keypoint_pairs=[[1, 2]]",),
            r"option keypoint_pairs is \[\[1, 2\]\], and train.augm",
        ),
        (("train.augment.keypoint_pairs=[[1, 7]]",), r"keypoint_pairs: \[\[1, 7\]\]; expected .* from 0 to 4: the opt"),
        (
            ("architectures.0.options.keypoints=6",),
            r"option keypoints is 6, and objects of the source scenes have up to 5",
        ),
        (("train.augment.keypoint_pairs=null",), r"train.augment.flip and train.inference.mirror: in a mirror image"),
    ):
        with pytest.raises(InputError, match=f"architectures.0: .*{message}"):
            check(recipe("task=keypoints", POSES, *both, *more))


def test_what_a_model_that_counts_would_ignore_is_refused_where_it_alone_was_asked() -> None:
    entries = [{"arch": "kmeans", "train": {"epochs": 3, "input_scale": 0.5}}, {"arch": "graph_cut"}]
    with pytest.raises(InputError) as caught:
        check(recipe(f"architectures={entries}"))
    (line,) = str(caught.value).splitlines()[1:]
    assert "architectures.0.train: kmeans learns by counting and would ignore epochs;" in line
    alone = f"architectures={[{**entries[0], 'train': {'input_scale': 0.5}}, entries[1]]}"
    check(recipe(alone))
    check(recipe("architectures=[{arch: unet}, {arch: kmeans}]", "train.learning_rate=0.3", "train.patience=2"))
    with pytest.raises(InputError) as caught:
        check(recipe(alone, "train.learning_rate=0.3", "train.patience=2", "train.input_scale=0.5"))
    assert str(caught.value).splitlines()[1:] == [
        "  train: kmeans learns by counting, graph_cut learns by counting: learning_rate, patience would be ignored; "
        "leave that out"
    ]
    with pytest.raises(InputError, match=r"architectures.0: kmeans: train: sigmoid is true: a model that counts has"):
        check(recipe(f"architectures={[{'arch': 'kmeans', 'train': {'sigmoid': True}}]}"))
    for looks, named in (
        ({"window": {"size": [32, 32]}}, "inference.window is set"),
        ({"mirror": True}, "inference.mirr"),
    ):
        entry = {"arch": "kmeans", "train": {"inference": looks}}
        with pytest.raises(InputError, match=f"architectures.0: kmeans: train: {named}"):
            check(recipe(f"architectures={[entry]}"))
    with pytest.raises(InputError, match=r"architectures.0: in_channels|architectures.0: clusters: expected a whole"):
        check(recipe(f"architectures={[{'arch': 'kmeans', 'options': {'clusters': 0}}]}"))
