"""A model bundle as an MLflow model folder: what `registry.register` uploads.

    MLmodel                               signature, and segpipe.serving as the loader module
    data/<bundle>/weights.safetensors     the bundle itself
    data/<bundle>/model.json
    code/segpipe/                         this package, so that the model loads where segpipe is not installed
    requirements.txt                      exact versions of what serving imports, and of what this very model does

No pickle anywhere: MLflow calls `segpipe.serving._load_pyfunc` with the bundle's folder.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe import storage
from segpipe.errors import InputError
from segpipe.types import AnswerForm

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

WEIGHTS, BUNDLE = "weights.safetensors", "model.json"
LOADER = "segpipe.serving"
# What `serving` imports, on the way or directly, whatever the model.
REQUIREMENTS = (
    *("mlflow", "torch", "torchvision", "numpy", "scipy", "safetensors"),
    *("pydantic", "pyyaml", "pillow", "simplejpeg", "fsspec", "pyarrow"),
)


def save_model_folder(
    folder: Path, bundle_uri: str, *, model: LoggedModel, run_id: str, form: AnswerForm, requires: Collection[str]
) -> None:
    """Writes the folder of logged model `model` from the local bundle folder `bundle_uri`.

    `requires` are the distributions that this model imports beside `REQUIREMENTS`. Raises InputError for a bundle that
    is not on this machine, and for a distribution that is not installed on it.
    """
    bundle = storage.local_path(bundle_uri)
    if bundle is None:
        raise InputError(f"{bundle_uri}: a bundle is registered from a local folder; copy it to one first")
    # uv's environments hold no pip, which MLflow would like to name in conda.yaml.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The version's description shows an example; a stored one would add a prediction to every registration.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        # MLflow's own classes, at the import of pyfunc.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
        from mlflow import pyfunc
        from mlflow.models import Model

        pyfunc.save_model(
            path=str(folder),
            mlflow_model=Model(
                artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
            ),
            loader_module=LOADER,
            data_path=str(bundle),
            code_paths=[str(Path(__file__).resolve().parents[1])],
            signature=signature(form),
            pip_requirements=[_pinned(name) for name in (*REQUIREMENTS, *requires)],
        )


def signature(form: AnswerForm) -> ModelSignature:
    """What the model is asked with -> what it answers."""
    from mlflow.models import ModelSignature

    document = {
        "inputs": json.dumps(form.inputs),
        "outputs": json.dumps(form.columns),
        "params": json.dumps(form.params) if form.params else None,
    }
    made: ModelSignature = ModelSignature.from_dict(document)
    return made


def _pinned(distribution: str) -> str:
    """`name==version` as installed here, without torch's local suffix (+cpu), which no package index has."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"{distribution}: the model needs it, and it is not installed where the model is registered, which decides "
            "the version; install it here as where the model was trained, and run the same command again"
        ) from None
    return f"{distribution}=={version.partition('+')[0]}"
