"""Runs in MLflow: opened by key (found again, never doubled), filled with history, closed.

One `retrain` is a parent run; each training of the comparison is a child of it.
"""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from segpipe.errors import InputError
from segpipe.tracking.connect import (
    RefusedError,
    RunRef,
    is_server,
    link,
    metric_name,
    page,
    sqlite_path,
    talking_to,
    without_password,
)
from segpipe.user import current_user

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Ending = Literal["FINISHED", "FAILED", "KILLED"]
KEY = "segpipe.key"
METRICS_PER_CALL = 1000
PARAMS_PER_CALL = 100
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
KIND = "mlflow.experimentKind"  # makes MLflow's pages show training runs instead of chat traces
# What MLflow stores of a tag; a longer text would be cut in the middle of a table.
NOTE_CHARACTERS = 8000
# Between what came of a run and what was asked: a rule of Markdown that nobody types, as a description may hold `---`.
RULE = "\n\n- -- --- -- -\n\n"
# What a table of runs, which has a column for each name, is spared. COCO's sizes and recalls, and the factors of PQ: of
# masks and boxes, in validation and test, 48 columns. What grows with the data: classes and keypoints. And all but the
# main scores of a validation, which only says how the training goes. `HISTORY` and the report have everything.
_NO_COLUMN = re.compile(
    r"(.+/)?((ap[sml]|ar\w*)/coco/\w+|[sr]q/\w+|(iou|pq/class|pck/class|pck/keypoint)/.+)"
    r"|val/(ap\d\d/coco/\w+|miou_present|mean_accuracy|frequency_weighted_iou)"
)
HISTORY = "history.csv"


def open_parent(
    uri: str,
    *,
    experiment: str,
    key: str,
    name: str,
    description: str,
    tags: Mapping[str, str],
    experiment_description: str = "",
) -> RunRef:
    """The run of `experiment` whose tag `segpipe.key` is `key`; created when there is none.

    A new experiment of an embedded store keeps its files in `mlartifacts` beside the SQLite file; a server decides for
    itself.
    """
    with talking_to(uri) as client:
        experiment_id = _experiment(client, uri, experiment, experiment_description)
        run_tags = {**tags, NOTE: shorten_note(description)}
        return _open(client, uri, experiment_id, key=key, name=name, tags=run_tags)


def open_child(
    parent: RunRef,
    *,
    key: str,
    name: str,
    params: Mapping[str, str | float | int],
    tags: Mapping[str, str],
    description: str,
) -> RunRef:
    """The run below `parent` whose `segpipe.key` is `key`; created when there is none. Parameters are written once:
    MLflow keeps the first value of each, and the key already names what they were.
    """
    with talking_to(parent.tracking_uri) as client:
        child_tags = {**tags, NOTE: shorten_note(description), PARENT: parent.run_id}
        run = _open(client, parent.tracking_uri, parent.experiment_id, key=key, name=name, tags=child_tags)
        # A champion that was registered before its run could be shown (MLflow was down) has a run without a parent.
        if PARENT not in client.get_run(run.run_id).data.tags:
            for tag, value in child_tags.items():
                client.set_tag(run.run_id, tag, value)
        _log_new_params(client, run.run_id, params)
        return run


def has_params(run: RunRef, prefix: str) -> bool:
    """Whether a run has parameters whose names begin so."""
    with talking_to(run.tracking_uri) as client:
        return any(name.startswith(prefix) for name in client.get_run(run.run_id).data.params)


def record_values(run: RunRef, *, metrics: Mapping[str, float], params: Mapping[str, str | float | int]) -> None:
    """Makes `metrics` the run's values, and adds parameters that it has not."""
    with talking_to(run.tracking_uri) as client:
        set_metrics(client, run.run_id, {metric_name(name): value for name, value in metrics.items()})
        _log_new_params(client, run.run_id, params)


def mirror_history(run: RunRef, history: Sequence[Mapping[str, Any]]) -> int:
    """Logs the values of `history` that the run does not have yet (by metric and step); returns how many those were.

    A row is {"step": int, "epoch": int, "metrics": {name: value}}, of which `columns` are logged. All of it becomes the
    file HISTORY, whose rows are step, epoch, name and value.
    """
    with talking_to(run.tracking_uri) as client:
        from mlflow.entities import Metric

        known = RecordedSteps(client, run.run_id)
        now = int(time.time() * 1000)
        missing = [
            Metric(metric_name(name), float(value), now, int(row["step"]))
            for row in history
            for name, value in columns(row["metrics"]).items()
            if not known.has(metric_name(name), int(row["step"]))
        ]
        log_metrics(client, run.run_id, missing)
        client.log_text(run.run_id, _as_csv(history), HISTORY)
        return len(missing)


def _as_csv(history: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    rows = ((row["step"], row["epoch"], name, value) for row in history for name, value in row["metrics"].items())
    csv.writer(file, lineterminator="\n").writerows([("step", "epoch", "name", "value"), *rows])
    return file.getvalue()


def describe(run: RunRef, *, story: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Puts what came of a run before what its description says, sets tags, and makes `metrics` the run's values.

    For the parent run, of whose description MLflow shows three lines before somebody asks for more. An earlier `story`
    is replaced, and this one is cut where both do not fit.
    """
    with talking_to(run.tracking_uri) as client:
        set_metrics(client, run.run_id, metrics)
        before = client.get_run(run.run_id).data.tags.get(NOTE, "")
        asked = before.partition(RULE)[2] if RULE in before else before
        note = f"{shorten_note(story, NOTE_CHARACTERS - len(RULE) - len(asked))}{RULE}{asked}"
        for key, value in {**tags, NOTE: note}.items():
            client.set_tag(run.run_id, key, value)


def columns(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics that runs show, each as a column of the page that compares them: those that are defined, and that
    somebody compares models by."""
    return {name: value for name, value in metrics.items() if value is not None and not _NO_COLUMN.fullmatch(name)}


def finish(run: RunRef, ending: Ending = "FINISHED") -> None:
    """Closes a run; one that was dropped without a fault is KILLED. Doing it again is free."""
    with talking_to(run.tracking_uri) as client:
        if client.get_run(run.run_id).info.status != ending:
            client.set_terminated(run.run_id, status=ending)


def run_url(run: RunRef) -> str | None:
    """The run's page in the server's web interface; None for an embedded store, which has no server of its own, and
    for a run that does not exist."""
    return None if not run.exists else page(run.tracking_uri, "experiments", run.experiment_id, "runs", run.run_id)


def artifact_link(run: RunRef, name: str) -> str:
    """What leads on a page of MLflow to a file of a run."""
    return link("experiments", run.experiment_id, "runs", run.run_id, "artifactPath", name)


class RecordedSteps:
    """Which steps of which metrics a run holds already; asks the store once for each metric that it has."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._stored = set(client.get_run(run_id).data.metrics)
        self._steps: dict[str, set[int]] = {}

    def has(self, name: str, step: int) -> bool:
        if name not in self._stored:
            return False
        if name not in self._steps:
            self._steps[name] = {metric.step for metric in self._client.get_metric_history(self._run_id, name)}
        return step in self._steps[name]


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Sends any number of values in as few calls as MLflow's limit allows."""
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_CALL])


def set_metrics(client: MlflowClient, run_id: str, values: Mapping[str, float]) -> None:
    """Makes these the values that a run shows, at step 0: of several at one step MLflow shows the youngest. A value
    that it shows already is not logged again.
    """
    from mlflow.entities import Metric

    shown, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    named = {metric_name(name): value for name, value in values.items()}
    news = [Metric(name, value, now, 0) for name, value in named.items() if shown.get(name) != value]
    log_metrics(client, run_id, news)


def shorten_note(text: str, most: int = NOTE_CHARACTERS) -> str:
    """A markdown description cut to what MLflow keeps, at the end of a line and saying so."""
    if len(text) <= most:
        return text
    ending = "\n\n... shortened; the artifacts hold the rest."
    return text[: max(0, most - len(ending))].rpartition("\n")[0] + ending


def _open(
    client: MlflowClient, uri: str, experiment_id: str, *, key: str, name: str, tags: Mapping[str, str]
) -> RunRef:
    if "'" in key:
        raise InputError(f"run key {key!r}: holds a quote, which MLflow's search cannot express; use plain characters")
    # The oldest wins, so that two processes that raced for one key agree from the next call on.
    found = client.search_runs(
        [experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1, order_by=["attributes.start_time ASC"]
    )
    if found:
        run_id, status = found[0].info.run_id, found[0].info.status
        if status in ("FAILED", "KILLED"):
            client.update_run(run_id, status="RUNNING")
    else:
        origin = {"mlflow.user": current_user(), "mlflow.source.name": "segpipe", "mlflow.source.type": "JOB"}
        created = client.create_run(experiment_id, run_name=name, tags={**origin, **tags, KEY: key})
        run_id = created.info.run_id
    return RunRef(tracking_uri=uri, experiment_id=experiment_id, run_id=run_id, key=key)


def _experiment(client: MlflowClient, uri: str, name: str, description: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            tags = {KIND: "custom_model_development"} | ({NOTE: description} if description else {})
            location = _artifact_location(uri, name)
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if found is None or error.error_code != "RESOURCE_ALREADY_EXISTS":  # that code: another process was faster
                raise
    if not is_server(uri) and str(found.artifact_location).startswith("mlflow-artifacts:"):
        raise RefusedError(
            f"MLflow at {without_password(uri)}: a server made the experiment {name!r} and keeps its files; set "
            "MLFLOW_TRACKING_URI to that server (`make ui` starts one at http://127.0.0.1:5000), or give the recipe "
            "another name"
        )
    if found.lifecycle_stage == "deleted":
        # Its name stays taken, so that the alternative would be a night without records.
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Without one, MLflow would write to `mlruns` in whatever folder the process was started in."""
    path = sqlite_path(uri)  # a server or another database decides for itself
    return f"{os.path.dirname(path)}/mlartifacts/{experiment}" if path else None


def _log_new_params(client: MlflowClient, run_id: str, params: Mapping[str, str | float | int]) -> None:
    from mlflow.entities import Param

    stored = client.get_run(run_id).data.params
    new = [Param(metric_name(name), str(value)) for name, value in params.items() if metric_name(name) not in stored]
    for start in range(0, len(new), PARAMS_PER_CALL):
        client.log_batch(run_id, params=new[start : start + PARAMS_PER_CALL])
