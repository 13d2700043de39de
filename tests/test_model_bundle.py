"""The bundle that predicts: weights and description belong together, or nothing is loaded; no pickle is opened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segpipe import checkpoint, models, storage
from segpipe.checkpoint import BUNDLE, WEIGHTS
from segpipe.config import RunConfig
from segpipe.errors import CorruptError, InputError
from segpipe.types import Inference, LabelCoding, ModelBundle, Task
from tests.fixtures.small import CLASSES, IGNORE, ONE_VIEW, OPTIONS, small_run


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return models.create("unet", len(CLASSES), **OPTIONS["unet"]).state_dict()


def bundle_of(run: RunConfig, **changes: Any) -> ModelBundle:
    fields: dict[str, Any] = {
        "arch": run.arch,
        "options": run.options,
        "task": Task.SEMANTIC,
        "classes": CLASSES,
        "ignore_index": IGNORE,
        "coding": LabelCoding(values=((0, 0), (11, IGNORE)), rules=("11 is void",)),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "input_scale": 0.5,
        "inference": ONE_VIEW,
        "dataset": "shapes",
        "dataset_version": "0" * 64,
        "config_digest": run.digest,
        "code_version": "test",
        "weights_sha256": "",
    }
    return ModelBundle(**{**fields, **changes})


def test_a_model_comes_back_ready_to_predict(run: str, trained: dict[str, Tensor]) -> None:
    written = checkpoint.save_model(run, trained, bundle_of(small_run()))
    uri = checkpoint.model_uri(run)
    model, bundle = checkpoint.load_model(uri)
    assert bundle == written == checkpoint.load_bundle(uri)
    assert bundle.weights_sha256 == storage.sha256_file(f"{uri}/{WEIGHTS}")
    assert not model.training
    assert all(torch.equal(tensor, trained[key]) for key, tensor in model.state_dict().items())
    assert checkpoint.save_model(run, trained, bundle_of(small_run())) == written, "writing it again is free"


def test_a_folder_without_a_model_says_what_to_give(run: str) -> None:
    with pytest.raises(InputError, match=r"not a model bundle, model.json is missing; give the model/ folder"):
        checkpoint.load_model(run)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [_flipped, lambda data: data[:-100]], ids=["flipped", "truncated"])
def test_other_weights_than_the_named_ones_are_refused(
    run: str, trained: dict[str, Tensor], damage: Callable[[bytes], bytes]
) -> None:
    checkpoint.save_model(run, trained, bundle_of(small_run()))
    path = Path(checkpoint.model_uri(run), WEIGHTS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptError, match=r"weights.safetensors: SHA-256 is \w+, expected \w+; the file was changed"):
        checkpoint.load_model(checkpoint.model_uri(run))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inference", {"scales": [1.5], "mirror": False}),
        ("input_scale", 1.0),
        ("mean", [0.4, 0.5, 0.5]),
        ("options", {**OPTIONS["unet"], "width": 2}),
    ],
)
def test_a_description_that_was_changed_is_refused(run: str, trained: dict[str, Tensor], key: str, value: Any) -> None:
    checkpoint.save_model(run, trained, bundle_of(small_run()))
    uri = checkpoint.model_uri(run)
    path = Path(uri, BUNDLE)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for read in (checkpoint.load_model, checkpoint.verify_bundle):
        with pytest.raises(CorruptError, match=r"model.json: describes another use than .* weights.safetensors names"):
            read(uri)


def test_the_hash_of_the_weights_tells_models_apart_that_look_at_images_another_way(
    run: str, trained: dict[str, Tensor]
) -> None:
    """Evaluations and champions are known by it."""
    views = Inference(scales=(1.0, 1.5), mirror=True)
    plain = checkpoint.save_model(f"{run}/a", trained, bundle_of(small_run()))
    mirrored = checkpoint.save_model(f"{run}/b", trained, bundle_of(small_run(), inference=views))
    elsewhere = checkpoint.save_model(f"{run}/c", trained, bundle_of(small_run(), dataset="other", code_version="2"))
    assert plain.weights_sha256 == elsewhere.weights_sha256 != mirrored.weights_sha256
    assert checkpoint.load_model(f"{run}/b/model")[1].inference == views


def test_missing_weights_are_named(run: str, trained: dict[str, Tensor]) -> None:
    checkpoint.save_model(run, trained, bundle_of(small_run()))
    Path(checkpoint.model_uri(run), WEIGHTS).unlink()
    with pytest.raises(InputError, match=r"weights.safetensors: no such file"):
        checkpoint.load_model(checkpoint.model_uri(run))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"options": {**OPTIONS["unet"], "width": 2}}, CorruptError, r"does not fit unet .*'width': 2.*size mismatch"),
        ({"classes": CLASSES[:2]}, CorruptError, r"does not fit unet .*size mismatch for head.weight"),
        ({"arch": "fcn_resnet18", "options": {}}, CorruptError, r"does not fit fcn_resnet18 .*Missing key"),
        ({"arch": "unett"}, InputError, r"unknown 'unett'; did you mean 'unet'"),
        ({"options": {"depth": 3}}, InputError, r"unknown option 'depth'"),
    ],
)
def test_weights_that_do_not_fit_their_description_are_refused(
    run: str, trained: dict[str, Tensor], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    checkpoint.save_model(run, trained, bundle_of(small_run(), **changes))
    with pytest.raises(error, match=f"(?s){message}"):
        checkpoint.load_model(checkpoint.model_uri(run))


def test_a_description_that_is_not_ours_is_refused(run: str, trained: dict[str, Tensor]) -> None:
    checkpoint.save_model(run, trained, bundle_of(small_run()))
    path = Path(checkpoint.model_uri(run), BUNDLE)
    document = json.loads(path.read_text())
    for wrong in ({**document, "loader_module": "os"}, {**document, "input_scale": "half"}, {"arch": "unet"}, []):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CorruptError, match=r"model.json"):
            checkpoint.load_model(checkpoint.model_uri(run))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('unpickled')",)


def test_a_pickle_is_never_opened(run: str, trained: dict[str, Tensor]) -> None:
    """Even one whose hash the description vouches for."""
    checkpoint.save_model(run, trained, bundle_of(small_run()))
    uri = Path(checkpoint.model_uri(run))
    torch.save({"weight": _Bomb()}, uri / WEIGHTS)
    document = json.loads((uri / BUNDLE).read_text())
    document["weights_sha256"] = storage.sha256_file(str(uri / WEIGHTS))
    (uri / BUNDLE).write_text(json.dumps(document))
    with pytest.raises(CorruptError, match="not a safetensors file"):
        checkpoint.load_model(str(uri))


def test_a_model_of_one_logit_comes_back_as_one(run: str) -> None:
    weights = models.create("unet", 1, **OPTIONS["unet"]).state_dict()
    written = checkpoint.save_model(run, weights, bundle_of(small_run(), classes=CLASSES[:2], sigmoid=True))
    model, bundle = checkpoint.load_model(checkpoint.model_uri(run))
    assert bundle == written
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    path = Path(checkpoint.model_uri(run), BUNDLE)
    plain = json.loads(path.read_text())
    del plain["sigmoid"]
    path.write_text(json.dumps(plain))
    with pytest.raises(CorruptError, match="describes another use than the one that the header"):
        checkpoint.load_model(checkpoint.model_uri(run))
