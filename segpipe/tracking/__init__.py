"""The mirror of our files in MLflow, and the only room that imports it. Below `stages/`, beside `storage`.

    connect.py    which store, is it up, and every way that it can fail as one UnreachableError
    runs.py       parent and child runs, found again by their key; training history
    live.py       MetricLogger: values while training runs, from a thread that nobody waits for
    records.py    datasets, evaluation reports, pictures
    model_folder.py   what is uploaded for a registered version
    registry.py   registered versions, aliases, descriptions

MLflow is never memory: everything written here is read from our own files first, and writing it again changes nothing.
`import mlflow` stands inside functions because it costs seconds that a command which does not need it should not pay.
"""

from segpipe.tracking.connect import RunRef, default_uri, reachable
from segpipe.tracking.live import MetricLogger
from segpipe.tracking.records import record_dataset, record_evaluation
from segpipe.tracking.registry import (
    alias_version,
    clear_alias,
    describe_version,
    register,
    set_alias,
    set_registered_model_description,
    version_url,
)
from segpipe.tracking.runs import comparison_url, describe, finish, mirror_history, open_child, open_parent, run_url

__all__ = [
    "MetricLogger",
    "RunRef",
    "alias_version",
    "clear_alias",
    "comparison_url",
    "default_uri",
    "describe",
    "describe_version",
    "finish",
    "mirror_history",
    "open_child",
    "open_parent",
    "reachable",
    "record_dataset",
    "record_evaluation",
    "register",
    "run_url",
    "set_alias",
    "set_registered_model_description",
    "version_url",
]
