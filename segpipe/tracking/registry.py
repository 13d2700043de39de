"""The model registry's mirror: versions by their weights' hash, aliases, descriptions.

Who is champion is decided by the promotion ledger; an alias here only shows it (MLflow's aliases have no
compare-and-set). What is registered is a loader module with a weights file and strict JSON: no pickle.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.tracking.connect import RunRef, page, talking_to, without_password
from segpipe.tracking.runs import log_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature

WEIGHTS_TAG = "segpipe.weights_sha256"
WEIGHTS, BUNDLE = "weights.safetensors", "model.json"
LOADER = "segpipe.serving"
# What `serving` imports, with the versions of this environment (torch's local build suffix has no place in an index).
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "safetensors"),
    *("pydantic", "pyyaml", "pillow", "fsspec", "pyarrow"),
)


def register(run: RunRef, *, name: str, bundle_uri: str, tags: Mapping[str, str], description: str) -> int:
    """The version of registered model `name` that holds the weights of the bundle in the local folder `bundle_uri`.

    Made, with the run as its source and the run's `test/` metrics, when there is none; weights that are registered
    already keep their version, and nothing is logged twice. Raises InputError without a bundle, CorruptError when the
    weights are not those that `model.json` names.
    """
    digest = _verified_digest(bundle_uri)
    with talking_to(run.tracking_uri) as client:
        _create_registered_model(client, name)
        found = client.search_model_versions(f"name = '{name}' and tags.`{WEIGHTS_TAG}` = '{digest}'")
        if found:
            return min(int(version.version) for version in found)
        model_id, source = _logged_model(client, run, name, bundle_uri, digest, tags)
        created = client.create_model_version(
            name,
            source,
            run.run_id,
            tags={**tags, WEIGHTS_TAG: digest},
            description=description,
            model_id=model_id,
        )
        number = int(created.version)
        client.update_model_version(name, str(number), with_usage(description, run.tracking_uri, name, number))
        return number


def set_alias(uri: str, name: str, alias: str, version: int) -> None:
    """Points `models:/<name>@<alias>` at a version."""
    with talking_to(uri) as client:
        client.set_registered_model_alias(name, alias, str(version))


def alias_version(uri: str, name: str, alias: str) -> int | None:
    """The version that an alias points at; None when there is no such model or alias."""
    with talking_to(uri) as client:
        from mlflow.exceptions import MlflowException

        try:
            return int(client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            # A missing alias of an existing model is reported as an invalid parameter.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def clear_alias(uri: str, name: str, alias: str) -> None:
    """Removes an alias; free when there is none."""
    if alias_version(uri, name, alias) is not None:
        with talking_to(uri) as client:
            client.delete_registered_model_alias(name, alias)


def describe_version(uri: str, name: str, version: int, description: str, tags: Mapping[str, str]) -> None:
    """Replaces a version's markdown description (how to load it is appended) and sets tags."""
    with talking_to(uri) as client:
        client.update_model_version(name, str(version), with_usage(description, uri, name, version))
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)


def set_registered_model_description(uri: str, name: str, description: str) -> None:
    """Replaces the markdown description of a registered model, which is made if need be."""
    with talking_to(uri) as client:
        _create_registered_model(client, name)
        client.update_registered_model(name, description)


def version_url(uri: str, name: str, version: int) -> str | None:
    """A version's page in the server's web interface; None for an embedded store."""
    return page(uri, "models", name, "versions", str(version))


def with_usage(description: str, uri: str, name: str, version: int) -> str:
    """`description` with how to load and serve the version behind it."""
    model = f"models:/{name}/{version}"
    store = without_password(uri)
    return f"""{description.rstrip()}

## Use it

```python
import mlflow

mlflow.set_tracking_uri("{store}")
model = mlflow.pyfunc.load_model("{model}")
labels = model.predict(images)  # uint8 (N, H, W, 3) RGB of any size -> class ids (N, H, W)
```

```sh
MLFLOW_TRACKING_URI={store} mlflow models serve -m {model} --env-manager local --port 5001
curl -H 'Content-Type: application/json' -d '{{"inputs": [[[[0, 0, 0], [255, 255, 255]]]]}}' http://127.0.0.1:5001/invocations
```""".lstrip()


def _verified_digest(bundle_uri: str) -> str:
    path, weights = storage.join(bundle_uri, BUNDLE), storage.join(bundle_uri, WEIGHTS)
    if not storage.exists(path):
        raise InputError(f"{bundle_uri}: has no {BUNDLE}; register the model/ folder of a finished run")
    named, found = str(storage.read_json(path)["weights_sha256"]), storage.sha256_file(weights)
    if named != found:
        raise CorruptError(f"{weights}: SHA-256 is {found[:12]}, {BUNDLE} names {named[:12]}; train or copy it again")
    return found


def _create_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _logged_model(
    client: MlflowClient, run: RunRef, name: str, bundle_uri: str, digest: str, tags: Mapping[str, str]
) -> tuple[str, str]:
    """(id, artifact location) of the run's logged model with these weights; one that a crash left half done is redone.

    By the client's own calls instead of `mlflow.pyfunc.log_model`, which works on a process-wide current store and run.
    """
    from mlflow.entities import LoggedModelOutput

    found = client.search_logged_models([run.experiment_id], f"tags.`{WEIGHTS_TAG}` = '{digest}'")
    mine = [model for model in found if model.source_run_id == run.run_id]
    ready = [model for model in mine if str(model.status) == "READY"]
    if ready:
        return ready[0].model_id, ready[0].artifact_location
    if mine:
        model = mine[0]
    else:
        model_tags = {**tags, WEIGHTS_TAG: digest}
        params = dict(client.get_run(run.run_id).data.params)
        model = client.create_logged_model(run.experiment_id, name, run.run_id, tags=model_tags, params=params)
        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, 0)])
        _copy_test_metrics(client, run, model.model_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _save(folder, bundle_uri, _description_of(model, run))
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id, model.artifact_location


def _description_of(model: Any, run: RunRef) -> Model:
    from mlflow.models import Model

    return Model(
        artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run.run_id, model_id=model.model_id
    )


def _save(folder: Path, bundle_uri: str, mlflow_model: Model) -> None:
    """An MLflow model folder: our bundle, the code that loads it, its signature and exact requirements."""
    from mlflow import pyfunc

    local = storage.local_path(bundle_uri)
    if local is None:
        raise InputError(f"{bundle_uri}: a bundle is registered from a local folder; copy it to one first")
    requirements = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
    # uv's environments hold no pip, which MLflow would like to name in conda.yaml.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The description shows an example; a stored one would add a prediction to every registration.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        pyfunc.save_model(
            path=str(folder),
            mlflow_model=mlflow_model,
            loader_module=LOADER,
            data_path=str(local),
            code_paths=[str(Path(__file__).resolve().parents[1])],
            signature=signature(len(storage.read_json(storage.join(bundle_uri, BUNDLE))["classes"])),
            pip_requirements=requirements,
        )


def signature(num_classes: int) -> ModelSignature:
    """uint8 images (any number, any size, RGB) -> class ids. The input has no name, so that a plain array and a plain
    JSON list are taken as they are.
    """
    from mlflow.models import ModelSignature

    images = {"dtype": "uint8", "shape": [-1, -1, -1, 3]}
    labels = {"dtype": "uint8" if num_classes <= 255 else "int32", "shape": [-1, -1, -1]}
    document = {
        "inputs": json.dumps([{"type": "tensor", "tensor-spec": images}]),
        "outputs": json.dumps([{"type": "tensor", "tensor-spec": labels, "name": "labels"}]),
        "params": None,
    }
    made: ModelSignature = ModelSignature.from_dict(document)
    return made


def _copy_test_metrics(client: MlflowClient, run: RunRef, model_id: str) -> None:
    """Shows the run's evaluation on the model's own page."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = client.get_run(run.run_id).data.metrics
    tests = {key: value for key, value in values.items() if key.startswith("test/")}
    log_metrics(client, run.run_id, [Metric(key, value, now, 0, model_id=model_id) for key, value in tests.items()])
