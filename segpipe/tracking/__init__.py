"""The mirror of our files in MLflow, and the only room that imports it. Below `stages/`, beside `storage`.

    connect.py    which store, is it up, and its ways to fail: UnreachableError, RefusedError
    runs.py       parent and child runs, found again by their key; training history
    live.py       MetricLogger: values while training runs, from a thread that nobody waits for
    records.py    datasets, evaluation reports, pictures
    model_folder.py   what is uploaded for a registered version
    registry.py   registered versions, aliases, descriptions

MLflow is never memory: everything written here is read from our own files first, and writing it again changes nothing.
`import mlflow` stands inside functions because it costs seconds that a command which does not need it should not pay.
"""

from segpipe.tracking.connect import RefusedError, RunRef, default_uri, reachable, without_login
from segpipe.tracking.live import MetricLogger
from segpipe.tracking.records import (
    CARD,
    PADDING,
    SIDE_BY_SIDE,
    evaluation_metric,
    has_inputs,
    markdown_table,
    record_dataset,
    record_evaluation,
    record_page,
    record_recipe,
)
from segpipe.tracking.registry import (
    alias_version,
    describe_model,
    describe_version,
    fetch_bundle,
    has_model,
    log_model,
    register,
    registered_version,
    set_alias,
    tag_version,
    version_link,
    version_run,
    weights_of_version,
)
from segpipe.tracking.runs import (
    Ending,
    artifact_link,
    describe,
    finish,
    has_params,
    mirror_history,
    open_child,
    open_parent,
    record_values,
    run_url,
)

__all__ = [
    "CARD",
    "PADDING",
    "SIDE_BY_SIDE",
    "Ending",
    "MetricLogger",
    "RefusedError",
    "RunRef",
    "alias_version",
    "artifact_link",
    "default_uri",
    "describe",
    "describe_model",
    "describe_version",
    "evaluation_metric",
    "fetch_bundle",
    "finish",
    "has_inputs",
    "has_model",
    "has_params",
    "log_model",
    "markdown_table",
    "mirror_history",
    "open_child",
    "open_parent",
    "reachable",
    "record_dataset",
    "record_evaluation",
    "record_page",
    "record_recipe",
    "record_values",
    "register",
    "registered_version",
    "run_url",
    "set_alias",
    "tag_version",
    "version_link",
    "version_run",
    "weights_of_version",
    "without_login",
]
