"""Where results lie. Every path that a stage writes to is made here.

<home>/datasets/<dataset>/                            Parquet shards, manifests, the log of versions
<home>/runs/<experiment>/<label>-<run key>/           checkpoints, model bundle, train.json
<home>/evaluations/<experiment>/<version>/<label>-<key>/  report.json, card.html, pictures, small maps
<home>/rehearsals/<experiment>/<label>-<key>/         trainings that were tried for some seconds: check.json, inputs.png
<home>/halvings/<experiment>/<key>/                  the rungs of a search within a budget: two records a rung
<home>/crf/<version>/<label>-<key>/search.json        searches of a CRF's parameters
<home>/predictions/<label>-<key>/                     what a model said of some images: masks, pictures, records
<home>/scores/<label>-<key>/                          how unsure a model is of some images: one record an image
<home>/ledger/<experiment>/                           who is champion: one record a decision
<home>/nights/<experiment>/                           what each retrain came to: one record a night
<home>/pages/<experiment>/<version>-<key>.html        all models of a night side by side
<home>/pending/<experiment>/                          what MLflow was not shown yet: one record a run or verdict
<home>/cache/                                         copies of remote shards (storage/cache.py)
<home>/mlflow.db, mlartifacts/, prefect/              the embedded MLflow and Prefect
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from segpipe import storage

# What a run's folder holds besides its model: which run it is, and how its training went.
RUN_CONFIG, RUN_RESULT = "run.json", "train.json"
_MODEL_OF_RUN = re.compile(r"([a-z0-9_-]+)-([0-9a-f]{12})/model/?$")


def home() -> str:
    """`$SEGPIPE_HOME`, or `./.segpipe`; a local path is made absolute, a URI such as s3://bucket/key is kept."""
    return absolute(os.environ.get("SEGPIPE_HOME") or ".segpipe")


def absolute(uri: str) -> str:
    """A local path made absolute; a URI such as s3://bucket/key is kept. What is written down is read from elsewhere:
    by a worker in another folder, on another night."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def local_home() -> str:
    """Where the embedded SQLite files live: the home, or `./.segpipe` when the home is an object store."""
    value = home()
    return str(Path(".segpipe").absolute()) if "://" in value else value


def dataset_uri(name: str) -> str:
    return storage.join(home(), "datasets", name)


def runs_uri(experiment: str) -> str:
    return storage.join(home(), "runs", experiment)


def run_name(label: str, config_digest: str, dataset_version: str, code_version: str) -> str:
    """What a training run's folder is called among those of its experiment."""
    return f"{label}-{run_key(config_digest, dataset_version, code_version)}"


def evaluations_uri(experiment: str) -> str:
    return storage.join(home(), "evaluations", experiment)


def rehearsals_uri(experiment: str) -> str:
    return storage.join(home(), "rehearsals", experiment)


def halvings_uri(experiment: str) -> str:
    return storage.join(home(), "halvings", experiment)


def searches_uri() -> str:
    return storage.join(home(), "crf")


def predictions_uri() -> str:
    return storage.join(home(), "predictions")


def scores_uri() -> str:
    return storage.join(home(), "scores")


def ledger_uri(experiment: str) -> str:
    return storage.join(home(), "ledger", experiment)


def nights_uri(experiment: str) -> str:
    return storage.join(home(), "nights", experiment)


def pages_uri(experiment: str) -> str:
    return storage.join(home(), "pages", experiment)


def pending_uri(experiment: str) -> str:
    return storage.join(home(), "pending", experiment)


def key(*parts: str) -> str:
    """The first 12 digits of the SHA-256 over `parts`: names a result by what decides it."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def run_key(config_digest: str, dataset_version: str, code_version: str) -> str:
    """A training run's identity: what it is asked, on which data, by which code (its seed is in the config)."""
    return key(config_digest, dataset_version, code_version)


def label_of(model_uri: str) -> str:
    """The label in the path of a run's model, `.../<label>-<run key>/model`; "model" for any other path."""
    found = _MODEL_OF_RUN.search(model_uri)
    return found[1] if found else "model"


def run_of(model_uri: str) -> str:
    """The first 8 digits of the run key in such a path; empty for any other path."""
    found = _MODEL_OF_RUN.search(model_uri)
    return found[2][:8] if found else ""
