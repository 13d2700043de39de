"""The model registry's mirror: versions by their weights' hash, aliases, descriptions.

Who is champion is decided by the promotion ledger; an alias here only shows it (MLflow's aliases have no
compare-and-set). What is registered is a loader module with a weights file and strict JSON: no pickle.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe import storage
from segpipe.errors import CorruptError, InputError
from segpipe.tracking.connect import RefusedError, RunRef, link, metric_name, talking_to, without_password
from segpipe.tracking.model_folder import BUNDLE, WEIGHTS, save_model_folder
from segpipe.tracking.records import CARD, evaluation_prefix
from segpipe.tracking.runs import artifact_link, log_metrics
from segpipe.types import AnswerForm

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

WEIGHTS_TAG = "segpipe.weights_sha256"
# What MLflow's column for a description holds, of a model as of a version. SQLite takes more, PostgreSQL refuses it.
MOST_LETTERS = 5000
CUT = "\n\n(The rest of it does not fit in here.)"
USAGE_TAG, REQUEST_TAG = "segpipe.usage", "segpipe.request"
# Of a version that was registered before these were noted, nobody wrote down what it answers.
_UNNOTED = {
    USAGE_TAG: "answers = model.predict(images)  # uint8 (N, H, W, 3) RGB of any size",
    REQUEST_TAG: '{"inputs": [[[[0, 0, 0], [255, 255, 255]]]]}',
}


def registered_version(uri: str, name: str, weights_sha256: str) -> int | None:
    """The version of registered model `name` that holds these weights; None when there is no such model or version."""
    with talking_to(uri) as client:
        return _version_of(client, name, weights_sha256)


def weights_of_version(uri: str, name: str, version: int) -> str | None:
    """The hash of the weights that a version was registered for; None when there is no such version, or when another
    program made it."""
    with talking_to(uri) as client:
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        weights: str | None = found.tags.get(WEIGHTS_TAG)
        return weights


def has_model(run: RunRef, weights_sha256: str) -> bool:
    """Whether these weights are a model of the run, to the last file."""
    with talking_to(run.tracking_uri) as client:
        return any(str(model.status) == "READY" for model in _models_of(client, run, weights_sha256))


def log_model(
    run: RunRef, *, bundle_uri: str, tags: Mapping[str, str], form: AnswerForm, requires: Collection[str]
) -> None:
    """Makes the bundle in the local folder `bundle_uri` a model of the run, which `mlflow.pyfunc` loads and which
    answers in this `form`; once. `requires` are the distributions that it needs beside those that every model does.

    Raises InputError without a bundle or one of these, CorruptError when the weights are not those that `model.json`
    names.
    """
    digest = _verified_digest(bundle_uri)
    with talking_to(run.tracking_uri) as client:
        _logged_model(client, run, bundle_uri, digest, tags, form, requires)


def register(
    run: RunRef,
    *,
    name: str,
    bundle_uri: str,
    tags: Mapping[str, str],
    description: str,
    form: AnswerForm,
    requires: Collection[str],
) -> int:
    """The version of registered model `name` that holds the weights of the bundle in the local folder `bundle_uri`.

    Made of the run's logged model, with the metrics of its evaluation, when there is none; weights that are registered
    already keep their version, and nothing is logged twice. Raises as `log_model`.
    """
    digest = _verified_digest(bundle_uri)
    with talking_to(run.tracking_uri) as client:
        _create_registered_model(client, name)
        if (known := _version_of(client, name, digest)) is not None:
            return known
        model_id, source = _logged_model(client, run, bundle_uri, digest, tags, form, requires)
        created = client.create_model_version(
            name,
            source,
            run.run_id,
            tags={**tags, WEIGHTS_TAG: digest, **_asking(form)},
            description=_fitting(description, MOST_LETTERS),
            model_id=model_id,
        )
        number = int(created.version)
        _describe(client, run.tracking_uri, created, description)  # its number, which this tells, is known only now
        # What MLflow's own register_model leaves: without it the model's page says "not registered".
        client.set_logged_model_tags(
            model_id, {"mlflow.modelVersions": json.dumps([{"name": name, "version": str(number)}])}
        )
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


def describe_version(uri: str, name: str, version: int, description: str) -> None:
    """Replaces a version's markdown description; where its model card is, and how to load and serve it, is appended."""
    with talking_to(uri) as client:
        _describe(client, uri, client.get_model_version(name, str(version)), description)


def describe_model(uri: str, name: str, description: str, *, alias: str, version: int) -> None:
    """Replaces the markdown description of a registered model; how to load and serve `alias`, which `version` has or is
    about to have, is appended."""
    with talking_to(uri) as client:
        asking = _noted(client.get_model_version(name, str(version)).tags)
        client.update_registered_model(name, with_usage(description, uri, f"{name}@{alias}", asking))


def tag_version(uri: str, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Sets tags of a version; others stay."""
    with talking_to(uri) as client:
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)


def fetch_bundle(uri: str, name: str, version: int, folder: Path) -> Path:
    """The bundle of a registered version, as its store holds it, in a folder below the local `folder`. Nothing of it is
    loaded, or executed."""
    with talking_to(uri) as client:
        from mlflow.artifacts import download_artifacts

        source = client.get_model_version_download_uri(name, str(version))
        data = download_artifacts(artifact_uri=f"{source}/data", dst_path=str(folder), tracking_uri=uri)
        found = sorted(path.parent for path in Path(data).glob(f"*/{BUNDLE}"))
        if len(found) != 1:
            raise RefusedError(
                f"MLflow holds {len(found)} bundles as version {version} of {name!r}, expected one; delete that "
                "version there, and it is registered anew"
            )
        return found[0]


def version_run(uri: str, name: str, version: int) -> RunRef | None:
    """The run that a version comes from; None where somebody registered it without one."""
    with talking_to(uri) as client:
        run_id = client.get_model_version(name, str(version)).run_id
        if not run_id:
            return None
        run = client.get_run(run_id)
        return RunRef(tracking_uri=uri, experiment_id=run.info.experiment_id, run_id=run.info.run_id, key="")


def version_link(name: str, version: int) -> str:
    """What leads on a page of MLflow to a version's own."""
    return link("models", name, "versions", str(version))


def with_usage(description: str, uri: str, which: str, asking: Mapping[str, str]) -> str:
    """`description` with how to load, ask and serve `which` behind it: "name/version" or "name@alias". `asking` are the
    two tags that say how. Lines of the description that do not fit before that are left out."""
    model = f"models:/{which}"
    store = without_password(uri)
    usage = f"""

## Use it

```python
import mlflow

mlflow.set_tracking_uri("{store}")
model = mlflow.pyfunc.load_model("{model}")
{asking[USAGE_TAG]}
```

```sh
export MLFLOW_TRACKING_URI={store}
mlflow models serve -m {model} --env-manager local --port 5001
curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
  -d '{asking[REQUEST_TAG]}'
```"""
    return f"{_fitting(description.rstrip(), MOST_LETTERS - len(usage))}{usage}".lstrip()


def _describe(client: MlflowClient, uri: str, found: ModelVersion, description: str) -> None:
    text = f"{description}{_card_line(client, uri, found.run_id)}"
    page_text = with_usage(text, uri, f"{found.name}/{found.version}", _noted(found.tags))
    client.update_model_version(found.name, str(found.version), page_text)


def _fitting(text: str, most: int) -> str:
    """The text in at most so many letters: whole, or its first lines and a word that there are more."""
    if len(text) <= most:
        return text
    kept = text[: max(0, most - len(CUT))]
    lines = kept.rpartition("\n")[0] or kept
    return f"{lines.rstrip()}{CUT}"


def _card_line(client: MlflowClient, uri: str, run_id: str | None) -> str:
    """A paragraph on where the model card of a run is; nothing where it has none."""
    if run_id is None or not any(each.path == CARD for each in client.list_artifacts(run_id)):
        return ""
    run = client.get_run(run_id).info
    leads = artifact_link(RunRef(tracking_uri=uri, experiment_id=run.experiment_id, run_id=run_id, key=""), CARD)
    return f"\n\nModel card: [`{CARD}`]({leads}) among the artifacts of the run `{run.run_name}`."


def _verified_digest(bundle_uri: str) -> str:
    path, weights = storage.join(bundle_uri, BUNDLE), storage.join(bundle_uri, WEIGHTS)
    if not storage.exists(path):
        raise InputError(f"{bundle_uri}: has no {BUNDLE}; register the model/ folder of a finished run")
    named, found = str(storage.read_json(path)["weights_sha256"]), storage.sha256_file(weights)
    if named != found:
        raise CorruptError(f"{weights}: SHA-256 is {found[:12]}, {BUNDLE} names {named[:12]}; train or copy it again")
    return found


def _asking(form: AnswerForm) -> dict[str, str]:
    return {USAGE_TAG: form.usage, REQUEST_TAG: form.request}


def _noted(tags: Mapping[str, str]) -> dict[str, str]:
    """How a version is asked, by the tags that it was registered with."""
    return {tag: tags.get(tag, unnoted) for tag, unnoted in _UNNOTED.items()}


def _version_of(client: MlflowClient, name: str, digest: str) -> int | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{WEIGHTS_TAG}` = '{digest}'")
    return min((int(version.version) for version in found), default=None)


def _create_registered_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _models_of(client: MlflowClient, run: RunRef, digest: str) -> list[LoggedModel]:
    found = client.search_logged_models([run.experiment_id], f"tags.`{WEIGHTS_TAG}` = '{digest}'")
    return [model for model in found if model.source_run_id == run.run_id]


def _logged_model(
    client: MlflowClient,
    run: RunRef,
    bundle_uri: str,
    digest: str,
    tags: Mapping[str, str],
    form: AnswerForm,
    requires: Collection[str],
) -> tuple[str, str]:
    """(id, artifact location) of the run's logged model with these weights; one that a crash left half done is redone.

    By the client's own calls instead of `mlflow.pyfunc.log_model`, which works on a process-wide current store and run.
    """
    from mlflow.entities import LoggedModelOutput

    mine = _models_of(client, run, digest)
    ready = [model for model in mine if str(model.status) == "READY"]
    if ready:
        return ready[0].model_id, ready[0].artifact_location
    if mine:
        model = mine[0]
    else:
        source = client.get_run(run.run_id)
        model = client.create_logged_model(
            run.experiment_id,
            metric_name(source.info.run_name).replace("/", "_").replace(".", "_").replace(":", "_"),
            run.run_id,
            tags={**tags, WEIGHTS_TAG: digest},
            params=dict(source.data.params),
        )
        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, 0)])
        _copy_evaluation(client, run, model.model_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        save_model_folder(folder, bundle_uri, model=model, run_id=run.run_id, form=form, requires=requires)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id, model.artifact_location


def _copy_evaluation(client: MlflowClient, run: RunRef, model_id: str) -> None:
    """Shows the run's evaluation, with its dataset, on the model's own page."""
    from mlflow.entities import Metric

    source, now = client.get_run(run.run_id), int(time.time() * 1000)
    inputs = source.inputs.dataset_inputs if source.inputs else []
    tested = [i.dataset for i in inputs if any("evaluation" in tag.value for tag in i.tags)]
    if not tested:
        return
    dataset = tested[-1]
    prefix = evaluation_prefix(dataset.name.rpartition("/")[2])
    shown = [
        Metric(key, value, now, 0, model_id=model_id, dataset_name=dataset.name, dataset_digest=dataset.digest)
        for key, value in source.data.metrics.items()
        if key.startswith(prefix)
    ]
    log_metrics(client, run.run_id, shown)
