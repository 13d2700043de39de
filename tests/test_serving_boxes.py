"""A model that is told by boxes which objects to look at, as MLflow loads and serves it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from torch import nn

from segpipe import models, serving, tracking
from segpipe.checkpoint import model_uri, save_model
from segpipe.stages.identity import resolve
from segpipe.stages.registration import answer_form
from segpipe.types import ClassInfo, ModelBundle, Task
from tests.fixtures.bundles import bundle_of
from tests.fixtures.figures import CLASSES, HEIGHT, WIDTH, figure_run
from tests.fixtures.mlflow_store import ask, free_port, mlflow_process

PERSONS = CLASSES[:1]
BOXES = [[[10.0, 4.0, 60.0, 90.0], [-5.0, 20, 40, 190]], [], [[70, 10, 110.5, 80.0]]]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)


def make_pose_bundle(folder: Path, classes: tuple[ClassInfo, ...], **options: Any) -> tuple[str, ModelBundle]:
    torch.manual_seed(0)
    usual = {} if options.get("framing") == "image" else resolve(figure_run()).options
    given = {**usual, **options}
    network: nn.Module = models.create("hrnet_pose_tiny", len(classes), **given)
    nn.init.normal_(network.get_parameter("final_layer.weight"), std=1.0)
    bundle = bundle_of("hrnet_pose_tiny", classes, task=Task.KEYPOINTS, options=given, dataset="figures")
    saved = save_model(str(folder), network.state_dict(), bundle)
    return model_uri(str(folder)), saved


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ModelBundle]:
    return make_pose_bundle(tmp_path_factory.mktemp("run"), PERSONS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, bundle: tuple[str, ModelBundle]) -> Iterator[str]:
    """A store that holds the bundle as version 1 of the model `poses`."""
    uri, form = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db", answer_form(bundle[1])
    run = tracking.open_parent(uri, experiment="e", key="k", name="n", description="", tags={})
    noted: dict[str, Any] = {"tags": {}, "description": "d", "form": form, "requires": ()}
    assert tracking.register(run, name="poses", bundle_uri=bundle[0], **noted) == 1
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def ragged(lists: list[Any]) -> np.ndarray:
    found = np.empty(len(lists), dtype=object)
    found[:] = lists
    return found


def test_a_request_brings_the_boxes_of_each_image(bundle: tuple[str, ModelBundle]) -> None:
    answers = serving._load_pyfunc(bundle[0]).predict({"images": IMAGES, "boxes": BOXES})
    assert [answer["boxes"] for answer in answers] == BOXES
    assert [answer["class_ids"] for answer in answers] == [[0, 0], [], [0]]
    assert [np.shape(answer["points"]) for answer in answers] == [(2, 17, 3), (0,), (1, 17, 3)]
    (alone,) = serving._load_pyfunc(bundle[0]).predict({"images": [IMAGES[2]], "boxes": [np.array(BOXES[2])]})
    np.testing.assert_allclose(alone["points"], answers[2]["points"], atol=1e-3)


def test_images_of_several_sizes_bring_theirs(bundle: tuple[str, ModelBundle]) -> None:
    given = {"images": [IMAGES[0], IMAGES[2][:90]], "boxes": ragged([BOXES[0], BOXES[2]])}
    found = serving._load_pyfunc(bundle[0]).predict(given)
    assert [len(answer["points"]) for answer in found] == [2, 1]


def test_parts_of_a_batch_keep_their_boxes(bundle: tuple[str, ModelBundle], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = serving._load_pyfunc(bundle[0]).predict({"images": IMAGES, "boxes": BOXES})
    monkeypatch.setattr(serving, "NUMBERS_PER_PASS", 1)
    parts = serving._load_pyfunc(bundle[0]).predict({"images": IMAGES, "boxes": BOXES})
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(np.array(one["points"]), np.array(other["points"]), atol=1e-3)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (IMAGES, "input of ndarray; this model is told which objects to look at: expected the keys images, boxes"),
        ({"images": IMAGES}, r"input of the keys \['images'\]; .* expected the keys images, boxes$"),
        ({"images": IMAGES, "boxes": BOXES, "class_ids": []}, r"the keys \['boxes', 'class_ids', 'images'\]"),
        ({"images": IMAGES.astype(float), "boxes": BOXES}, "images of type float64; expected uint8"),
        ({"images": IMAGES, "boxes": BOXES[:2]}, "boxes: 2 lists for 3 images; expected a list for each image"),
        ({"images": IMAGES, "boxes": 7}, "boxes: 7 for 3 images"),
        ({"images": IMAGES[:1], "boxes": [7]}, r"boxes of image 0: 7; expected \[x0, y0, x1, y1\] of each object"),
        ({"images": IMAGES[:1], "boxes": [[1, 2, 3, 4]]}, r"boxes of image 0: 1; expected \[x0, y0, x1, y1\]"),
        ({"images": IMAGES[:1], "boxes": [[[1, 2, 3]]]}, r"boxes of image 0: \[1, 2, 3\]; expected"),
        ({"images": IMAGES[:1], "boxes": [[[1, 2, "3", 4]]]}, r"boxes of image 0: \[1, 2, '3', 4\]; expected"),
        ({"images": IMAGES[:1], "boxes": [[[5, 2, 3, 4]]]}, r"boxes of image 0: \[5, 2, 3, 4\]; .* x0 < x1"),
        ({"images": IMAGES[:1], "boxes": [[[1, 2, np.nan, 4]]]}, r"boxes of image 0: \[1, 2, nan, 4\]"),
        ({"images": IMAGES[:1], "boxes": [[[1, 2, 10**400, 4]]]}, r"boxes of image 0: \[1, 2, 1000"),
        ({"images": IMAGES[:1], "boxes": [[[128, 0, 130, 4]]]}, r"not outside of its 96 x 128 pixels"),
        (
            {"images": IMAGES[:1], "boxes": [[[-20_000, -20_000, 20_000, 20_000]]]},
            "boxes of image 0: .* 96 x 128 pixels, x from -128 to 256, y from -96 to 192, and no side above 8192$",
        ),
        ({"images": IMAGES[:1], "boxes": [[[-128.5, 0, 4, 4]]]}, r"boxes of image 0: \[-128.5, 0, 4, 4\]; expected"),
        ({"images": IMAGES[:1], "boxes": [[[0, 0, 4, 192.5]]]}, r"boxes of image 0: \[0, 0, 4, 192.5\]; expected"),
        (
            {"images": np.zeros((1, 1, 9000, 3), dtype=np.uint8), "boxes": [[[0, 0, 8193, 1]]]},
            r"\[0, 0, 8193, 1\]; .* no side above 8192",
        ),
        (
            {"images": IMAGES, "boxes": [[[0, 0, 4, 4]] * 500, [], [[0, 0, 4, 4]] * 13]},
            "boxes: 513 in one request; expected at most 512: send fewer images at a time",
        ),
    ],
    ids=range(19),
)
def test_wrong_boxes_are_refused_with_a_sentence(bundle: tuple[str, ModelBundle], given: Any, sentence: str) -> None:
    with pytest.raises(MlflowException, match=sentence) as caught:
        serving._load_pyfunc(bundle[0]).predict(given)
    assert caught.value.get_http_status_code() == 400


def test_a_box_may_reach_one_size_of_the_image_beyond_each_edge(bundle: tuple[str, ModelBundle]) -> None:
    widest = [[-WIDTH, -HEIGHT, 2 * WIDTH, 2 * HEIGHT]]
    (answer,) = serving._load_pyfunc(bundle[0]).predict({"images": IMAGES[:1], "boxes": [widest]})
    assert answer["boxes"] == widest
    assert np.isfinite(answer["points"]).all()


def test_of_several_classes_a_request_says_which(tmp_path: Path) -> None:
    folder, described = make_pose_bundle(tmp_path, CLASSES)
    assert [spec["name"] for spec in answer_form(described).inputs] == ["images", "boxes", "class_ids"]
    loaded, given = serving._load_pyfunc(folder), {"images": IMAGES, "boxes": BOXES}
    answers = loaded.predict({**given, "class_ids": [[1, 0], [], [1]]})
    assert [answer["class_ids"] for answer in answers] == [[1, 0], [], [1]]
    for wrong, sentence in (
        ([[1], [], [1]], r"class_ids of image 0: \[1\]; expected one for each of its 2 boxes, from 0 to 1"),
        ([[1, 2], [], [1]], r"class_ids of image 0: \[1, 2\]; expected"),
        ([[1, 0]], "class_ids: 1 lists for 3 images"),
    ):
        with pytest.raises(MlflowException, match=sentence):
            loaded.predict({**given, "class_ids": wrong})


def test_a_model_of_whole_images_takes_images_alone(tmp_path: Path) -> None:
    folder, described = make_pose_bundle(tmp_path, PERSONS, framing="image")
    assert answer_form(described).usage.startswith("poses = model.predict(images)\n# images: uint8")
    found = serving._load_pyfunc(folder).predict(IMAGES)
    assert [answer["boxes"] for answer in found] == [[[0.0, 0.0, WIDTH, HEIGHT]]] * 3


def test_signature_and_description_tell_of_the_boxes(store: str) -> None:
    model = mlflow.pyfunc.load_model("models:/poses/1")
    assert [(spec["name"], spec["tensor-spec"]["dtype"]) for spec in model.metadata.signature.inputs.to_dict()] == [
        ("images", "object"),
        ("boxes", "object"),
    ]
    page = mlflow.MlflowClient().get_model_version("poses", "1").description
    assert 'model.predict({"images": images, "boxes": boxes})' in page
    assert "boxes: of each image a list of [x0, y0, x1, y1] in pixels" in page
    example = json.loads(page.partition("-d '")[2].partition("'\n")[0])["inputs"]
    images = np.array(example["images"], dtype=np.uint8)
    (answer,) = model.predict({"images": images, "boxes": ragged(example["boxes"])})
    assert answer["boxes"] == [[0.0, 0.0, 2.0, 1.0]]
    with pytest.raises(MlflowException, match="missing inputs"):
        model.predict(images)


def test_a_served_model_takes_boxes_and_refuses_wrong_ones(
    store: str, bundle: tuple[str, ModelBundle], tmp_path: Path
) -> None:
    port, images = free_port(), IMAGES[:, :40, :48]
    command = ("models", "serve", "-m", "models:/poses/1", "--env-manager", "local", "--workers", "1")
    boxes = [[[1, 2, 30, 38.5], [5, 5, 48, 40]], [], [[0, 0, 9, 9]]]
    expected = serving._load_pyfunc(bundle[0]).predict({"images": images, "boxes": boxes})
    with mlflow_process(*command, port=port, folder=tmp_path, tracking_uri=store):
        status, answer = ask(port, {"inputs": {"images": images.tolist(), "boxes": boxes}})
        assert status == 200
        assert [found["boxes"] for found in answer["predictions"]] == boxes
        for found, known in zip(answer["predictions"], expected, strict=True):
            np.testing.assert_allclose(np.array(found["points"]), np.array(known["points"]), atol=1e-3)
        status, answer = ask(port, {"inputs": {"images": images.tolist(), "boxes": [[[9, 9, 1, 1]], [], []]}})
        assert (status, "boxes of image 0: [9, 9, 1, 1]; expected" in answer["message"]) == (400, True)
        for without in ({"images": images.tolist()}, images.tolist()):
            status, answer = ask(port, {"inputs": without})
            assert (status, "boxes" in answer["message"]) == (400, True)
