"""A registered model as MLflow loads and serves it: any number and size of images, the bytes that were trained."""

import ast
import importlib.metadata
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from segpipe import models, serving, tracking
from segpipe.checkpoint import load_bundle, load_model, model_uri, save_model
from segpipe.data.batch import Batch, normalise
from segpipe.errors import CorruptError, InputError
from segpipe.models.spec import Held
from segpipe.refine import dense_crf_batch
from segpipe.serving import requests
from segpipe.stages.registration import answer_form
from segpipe.tasks.views import look
from segpipe.tracking.model_folder import REQUIREMENTS
from segpipe.types import ClassInfo, CrfSettings, Inference, Task, Window
from tests.fixtures import regions
from tests.fixtures.bundles import bundle_of
from tests.fixtures.cells import CELL_CLASSES
from tests.fixtures.mlflow_store import CLASSES, FORM, ask, free_port, make_bundle, mlflow_process
from tests.fixtures.sent import encoded, png


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_bundle(tmp_path_factory.mktemp("run"))[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, bundle_uri: str) -> Iterator[str]:
    """A store that holds the bundle as version 1 of the model `served`."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    run = tracking.open_parent(uri, experiment="e", key="k", name="n", description="", tags={})
    noted: dict[str, Any] = {"tags": {}, "description": "", "form": FORM, "requires": ()}
    assert tracking.register(run, name="served", bundle_uri=bundle_uri, **noted) == 1
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def images(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


def direct(bundle_uri: str, images_NHW3: np.ndarray) -> np.ndarray:
    model, bundle = load_model(bundle_uri)
    with torch.inference_mode():
        batch = normalise(torch.from_numpy(images_NHW3).permute(0, 3, 1, 2), bundle.mean, bundle.std)
        return model(batch).logits_NKHW.argmax(1).numpy()


@pytest.mark.parametrize(("number", "height", "width"), [(1, 33, 47), (3, 20, 9), (2, 64, 64), (1, 1, 1)])
def test_a_loaded_model_predicts_what_the_checkpoint_predicts(
    store: str, bundle_uri: str, number: int, height: int, width: int
) -> None:
    model = mlflow.pyfunc.load_model("models:/served/1")
    batch = images(number, height, width)
    labels = model.predict(batch)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, direct(bundle_uri, batch))


def test_a_served_model_refines_as_its_evaluation_does(bundle_uri: str) -> None:
    """Image by image, by the probabilities of its logits."""
    model, bundle = load_model(bundle_uri)
    crf = CrfSettings(iterations=2, gaussian=(2.0, 5.0), bilateral=(20.0, 60.0, 5.0))
    refining = replace(bundle, inference=replace(bundle.inference, crf=crf))
    batch = images(2, 33, 20)
    found = serving.Predictor(model, refining).predict(batch)
    with torch.inference_mode():
        inputs = normalise(torch.from_numpy(batch).permute(0, 3, 1, 2), bundle.mean, bundle.std)
        given = model(inputs).logits_NKHW.softmax(1)
    refined = dense_crf_batch(
        batch, given.numpy(), iterations=crf.iterations, gaussian=crf.gaussian, bilateral=crf.bilateral
    )
    np.testing.assert_array_equal(found, np.asarray(refined).argmax(1))
    assert not np.array_equal(found, direct(bundle_uri, batch))


def test_a_batch_is_split_to_bound_its_memory(bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = serving._load_pyfunc(bundle_uri)
    batch = images(5, 16, 24)
    whole = predictor.predict(batch)
    sizes: list[int] = []
    predictor._model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    per_image = 16 * 24 * (3 + Held().pixel)
    monkeypatch.setattr(serving, "NUMBERS_PER_PASS", 2 * per_image)
    np.testing.assert_array_equal(predictor.predict(batch), whole)
    assert sizes == [2, 2, 1]


def test_regions_of_an_image_count_in_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = serving.Predictor(regions.OneOfEach(3), regions.bundle(CELL_CLASSES[:3], arch="mask_rcnn"))
    sizes: list[int] = []
    predictor._model.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    per_image = models.spec("mask_rcnn").held.image + 32 * 32 * (3 + Held().pixel)
    assert per_image > 8e7
    monkeypatch.setattr(serving, "NUMBERS_PER_PASS", 2 * per_image)
    predictor.predict(images(3, 32, 32))
    assert sizes == [2, 1]


def test_windows_are_served_as_they_are_evaluated_and_more_images_fit_a_pass(
    bundle_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, bundle = load_model(bundle_uri)
    window = Window(size=(16, 32), overlap=0.5)
    windowed = replace(bundle, inference=Inference(scales=(1.0,), mirror=True, window=window))
    predictor, batch = serving.Predictor(model, windowed), images(3, 100, 60)
    sizes: list[tuple[int, ...]] = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(inputs[0].shape)))
    # A window, three strips of each of two views, and the sum of both with what is added to it.
    num_classes = len(bundle.classes)
    per_image = 16 * 32 * (num_classes + Held().pixel) + 2 * 3 * num_classes * 16 * 60 + 2 * num_classes * 100 * 60
    assert per_image < 100 * 60 * Held().pixel / 7
    monkeypatch.setattr(serving, "NUMBERS_PER_PASS", 2 * per_image)
    found = predictor.predict(batch)
    assert {size[1:] for size in sizes} == {(3, 16, 32)}
    assert {size[0] for size in sizes} == {2, 1}
    with torch.inference_mode():
        expected = [
            look(
                model,
                Batch(
                    images_N3HW=torch.from_numpy(image)[None].permute(0, 3, 1, 2),
                    labels_NHW=None,
                    sample_ids=("s",),
                    original_sizes=((100, 60),),
                ),
                windowed,
            )[0][0].numpy()
            for image in batch
        ]
    assert np.mean(found != np.stack(expected)) < 0.001, "passes of other sizes round in other ways"


def test_images_of_several_sizes_come_as_a_list(bundle_uri: str) -> None:
    predictor = serving._load_pyfunc(bundle_uri)
    small, large = images(1, 8, 9)[0], images(1, 31, 17)[0]
    ragged = np.empty(2, dtype=object)
    ragged[0], ragged[1] = small, large
    for given in ([small, large], ragged):
        labels = predictor.predict(given)
        assert [label.shape for label in labels] == [(8, 9), (31, 17)]
        np.testing.assert_array_equal(labels[1], direct(bundle_uri, large[None])[0])


def test_no_images_give_no_labels(bundle_uri: str) -> None:
    assert serving._load_pyfunc(bundle_uri).predict(images(0, 8, 8)).shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (np.zeros((1, 8, 8, 3), dtype=np.float32), r"type float32; expected uint8 of shape \(N, H, W, 3\)"),
        (np.zeros((8, 8, 3), dtype=np.uint8), r"shape \(8, 8, 3\); expected"),
        (np.zeros((1, 3, 8, 8), dtype=np.uint8), r"shape \(1, 3, 8, 8\); expected"),
        (np.zeros((1, 0, 8, 3), dtype=np.uint8), "0 x 8 pixels"),
        ([np.zeros((1, 8, 8, 3), dtype=np.uint8)], r"\(H, W, 3\)"),
        ("a.png", r"image 0: 'a.png' is no base64"),
        (["AAAA"], r"image 0: .*expected a JPEG or a PNG file"),
        ([np.zeros((8, 8, 3), dtype=np.uint8), "AAAA"], "both as base64 text and as arrays"),
        ([[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]], "rows are of several lengths"),
        (np.array([[[[0.5, 1, 2]]]], dtype=object), "type float64"),
        (None, "type NoneType"),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(bundle_uri: str, given: Any, sentence: str) -> None:
    with pytest.raises(MlflowException, match=sentence) as caught:
        serving._load_pyfunc(bundle_uri).predict(given)
    assert caught.value.get_http_status_code() == 400


def test_an_image_beyond_the_limit_is_refused(bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MlflowException, match="11 x 10 pixels; expected 1 to 100 pixels: send smaller tiles"):
        serving._load_pyfunc(bundle_uri).predict(images(1, 11, 10))


def test_an_image_that_would_take_more_than_a_machine_has_is_refused_before_any_work() -> None:
    """The largest image: a network sees it, but the graph of all its pixels and their neighbours is another thing."""
    side = int(serving.MAX_IMAGE_PIXELS**0.5)
    image = np.broadcast_to(np.zeros(3, np.uint8), (1, side, side, 3))
    cut = serving.Predictor(models.create("graph_cut", 3), bundle_of("graph_cut", CLASSES))
    with pytest.raises(
        MlflowException, match=r"5792 x 5792 pixels: this model, .* about 41\.9 GiB .* at most 32: send sma"
    ):
        cut.predict(image)
    crf = Inference(scales=(1.0,), mirror=False, crf=CrfSettings())
    classes = tuple(ClassInfo(name=f"c{k}", colour=(k, k, k)) for k in range(60))
    refining = serving.Predictor(models.create("kmeans", 60), bundle_of("kmeans", classes, inference=crf))
    with pytest.raises(MlflowException, match=r"about 6.* GiB"):
        refining.predict(image)


def test_boxes_count_in_what_an_image_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = serving.Predictor(models.create("grabcut", 3), bundle_of("grabcut", CLASSES, task=Task.INSTANCE))
    box, batch = [0, 0, 20, 20], images(1, 20, 20)
    monkeypatch.setattr(serving, "MAX_NUMBERS", 20 * 20 * (32 + 3 + 10 / 4))
    told = {"images": batch, "boxes": [[box] * 10], "class_ids": [[0] * 10]}
    (found,) = predictor.predict({key: told[key] for key in ("images", *predictor._told)})
    assert len(found["masks"]) == 10
    told |= {"boxes": [[box] * 11], "class_ids": [[0] * 11]}
    with pytest.raises(MlflowException, match=r"20 x 20 pixels with 11 boxes: .* or fewer boxes at a time"):
        predictor.predict({key: told[key] for key in ("images", *predictor._told)})


def test_an_operator_may_allow_an_image_less(bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_REQUEST_GIB", "0.001")
    predictor = serving._load_pyfunc(bundle_uri)
    assert predictor.predict(images(2, 8, 8)).shape == (2, 8, 8)
    with pytest.raises(MlflowException, match=r"256 x 256 pixels: .* take about .* GiB for it; expected at most 0.001"):
        predictor.predict(images(1, 256, 256))
    monkeypatch.setenv("SEGPIPE_REQUEST_GIB", "")
    assert serving._load_pyfunc(bundle_uri).predict(images(1, 256, 256)).shape == (1, 256, 256)
    for wrong in ("0", "lots", "nan"):
        monkeypatch.setenv("SEGPIPE_REQUEST_GIB", wrong)
        with pytest.raises(InputError, match=f"SEGPIPE_REQUEST_GIB='{wrong}': expected GiB above 0"):
            serving._load_pyfunc(bundle_uri)


def test_unknown_parameters_are_refused(bundle_uri: str) -> None:
    with pytest.raises(MlflowException, match="unknown parameters"):
        serving._load_pyfunc(bundle_uri).predict(images(1, 8, 8), params={"threshold": 0.5})


@pytest.fixture(scope="module")
def unsure_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle that looks three times at an image, with dropout on."""
    folder, options = str(tmp_path_factory.mktemp("unsure")), {"backbone": "vgg16_bn_slim"}
    torch.manual_seed(0)
    network = models.create("bayesian_segnet", 3, **options)
    inference = Inference(scales=(1.0,), mirror=False, samples=3)
    save_model(
        folder, network.state_dict(), bundle_of("bayesian_segnet", CLASSES, options=options, inference=inference)
    )
    return model_uri(folder)


def test_a_model_of_samples_is_asked_how_unsure_it_is(unsure_uri: str) -> None:
    predictor, batch = serving._load_pyfunc(unsure_uri), images(3, 20, 26)
    labels = predictor.predict(batch)
    assert (labels.dtype, labels.shape) == (np.uint8, (3, 20, 26))
    np.testing.assert_array_equal(predictor.predict(batch, {"uncertainty": False}), labels)
    told = predictor.predict(batch, {"uncertainty": True})
    np.testing.assert_array_equal(np.stack([each["labels"] for each in told]), labels)
    uncertainty = np.stack([each["uncertainty"] for each in told])
    assert (uncertainty.dtype, uncertainty.shape) == (np.float32, (3, 20, 26))
    assert 0 < uncertainty.max() <= 0.25
    (alone,) = predictor.predict([batch[2]], {"uncertainty": True})
    np.testing.assert_array_equal(alone["uncertainty"], uncertainty[2])
    for params, sentence in (
        ({"uncertainty": "yes"}, "parameter uncertainty: 'yes'; expected true or false"),
        ({"threshold": 1}, r"unknown parameters \['threshold'\]; this model takes mask, uncertainty"),
    ):
        with pytest.raises(MlflowException, match=sentence):
            predictor.predict(batch, params)


def test_its_signature_takes_the_question_and_the_server_sends_the_answer(store: str, unsure_uri: str) -> None:
    from mlflow.pyfunc.scoring_server import predictions_to_json

    form = answer_form(load_bundle(unsure_uri))
    assert "uncertainty" in form.usage
    run = tracking.open_parent(store, experiment="e", key="u", name="u", description="", tags={})
    noted: dict[str, Any] = {"tags": {}, "description": "", "form": form, "requires": ()}
    assert tracking.register(run, name="unsure", bundle_uri=unsure_uri, **noted) == 1
    model, batch = mlflow.pyfunc.load_model("models:/unsure/1"), images(1, 9, 12)
    labels = serving._load_pyfunc(unsure_uri).predict(batch)
    np.testing.assert_array_equal(model.predict(batch), labels)
    told, sent = model.predict(batch, params={"uncertainty": True}), io.StringIO()
    predictions_to_json(told, sent)
    (answer,) = json.loads(sent.getvalue())["predictions"]
    assert answer["labels"] == labels[0].tolist()
    assert np.shape(answer["uncertainty"]) == (9, 12)


def test_changed_weights_do_not_load(tmp_path: Path) -> None:
    folder, _ = make_bundle(tmp_path)
    weights = Path(folder) / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptError, match="changed or damaged"):
        serving._load_pyfunc(folder)


def test_the_model_brings_its_code_and_names_all_that_it_needs(store: str, tmp_path: Path) -> None:
    """In a process that starts elsewhere: segpipe comes out of the model, and imports nothing that is not required."""
    script = (
        "import json, sys, warnings; warnings.simplefilter('ignore'); import mlflow, numpy\n"
        "model = mlflow.pyfunc.load_model('models:/served/1')\n"
        "labels = model.predict(numpy.zeros((1, 5, 7, 3), numpy.uint8))\n"
        "files = [m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'segpipe']\n"
        "print(json.dumps({'shape': labels.shape, 'files': files}))"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PYTHONPATH": ""}
    answer = subprocess.check_output([sys.executable, "-B", "-c", script], cwd=tmp_path, env=environment, text=True)
    found = json.loads(answer.splitlines()[-1])
    assert found["shape"] == [1, 5, 7]
    assert all("/code/segpipe/" in file for file in found["files"])
    imported = {root for file in found["files"] for root in _imports_at_load(Path(file))}
    outside = imported - set(sys.stdlib_module_names) - {"segpipe"}
    distributions = importlib.metadata.packages_distributions()
    missing = {root for root in outside if not set(map(str.lower, distributions[root])) & set(REQUIREMENTS)}
    assert missing == set()


def _imports_at_load(file: Path) -> set[str]:
    """Top-level packages that the module imports outside functions and type checking."""
    roots: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
    return roots


def test_a_served_model_answers_and_refuses(store: str, bundle_uri: str, tmp_path: Path) -> None:
    port = free_port()
    batch = images(2, 13, 21)
    command = ("models", "serve", "-m", "models:/served/1", "--env-manager", "local", "--workers", "1")
    with mlflow_process(*command, port=port, folder=tmp_path, tracking_uri=store):
        status, answer = ask(port, {"inputs": batch.tolist()})
        assert status == 200
        np.testing.assert_array_equal(np.array(answer["predictions"]), direct(bundle_uri, batch))
        status, answer = ask(port, {"inputs": batch[:, :, :, :2].tolist()})
        assert (status, answer["message"][:33]) == (400, "images of shape (2, 13, 21, 2); e"), "a sentence alone"
        status, answer = ask(port, {"inputs": [[[[300, 0, 0]]]]})
        assert (status, answer["message"][:16]) == (400, "a pixel of 300; ")
        status, answer = ask(port, {"inputs": np.zeros((1, 0, 4, 3)).tolist()})
        assert status == 400
        status, answer = ask(port, {"inputs": "no image"})
        assert (status, answer["message"][:38]) == (400, "image 0: 'no image' is no base64; expe")
        of_sizes = [batch[0], batch[1, :, :9], batch[1, :5]]
        status, answer = ask(port, {"inputs": [encoded(each) for each in of_sizes]})
        assert status == 200
        for image, said in zip(of_sizes, answer["predictions"], strict=True):
            np.testing.assert_array_equal(png(said["mask"]), direct(bundle_uri, image[None])[0])
        status, answer = ask(port, {"inputs": [each.tolist() for each in of_sizes], "params": {"mask": "rle"}})
        assert status == 200
        assert [(said["height"], said["width"]) for said in answer["predictions"]] == [(13, 21), (13, 9), (5, 21)]
        assert ask(port, {"inputs": images(1, 4, 4).tolist()})[0] == 200
