"""Registered versions by their weights, aliases and descriptions."""

import importlib.metadata
import json
from pathlib import Path

import mlflow
import pytest

from segpipe import tracking
from segpipe.errors import CorruptError, InputError, UnreachableError
from segpipe.tracking import RunRef
from segpipe.tracking.model_folder import REQUIREMENTS
from tests.fixtures.example_reports import eval_report
from tests.fixtures.mlflow_store import FORM, make_bundle


def register(
    run: RunRef, name: str, bundle_uri: str, requires: tuple[str, ...] = (), description: str = "mIoU 0.5"
) -> int:
    return tracking.register(
        run,
        name=name,
        bundle_uri=bundle_uri,
        tags={"arch": "fcn"},
        description=description,
        form=FORM,
        requires=requires,
    )


def logged_models(run: RunRef) -> list:
    return list(mlflow.MlflowClient(run.tracking_uri).search_logged_models([run.experiment_id]))


def test_the_same_weights_are_registered_once(open_run, tmp_path: Path) -> None:
    run, other = open_run("a"), open_run("b")
    first, _ = make_bundle(tmp_path / "first")
    second, _ = make_bundle(tmp_path / "second", seed=1)
    assert [register(run, "once", first), register(run, "once", first), register(other, "once", first)] == [1, 1, 1]
    assert register(other, "once", second) == 2
    assert len(logged_models(run)) == 2


def test_a_version_shows_where_it_comes_from(open_run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = open_run("a")
    tracking.record_dataset(run, name="toy", version="ab" * 32, uri="/d", split="test", context="evaluation")
    tracking.record_evaluation(run, report=eval_report(), report_json=b"{}", recipe_text="", pictures=[])
    folder, bundle = make_bundle(tmp_path)
    version = register(run, "origin", folder)
    client = mlflow.MlflowClient(run.tracking_uri)
    stored = client.get_model_version("origin", str(version))
    assert stored.run_id == run.run_id
    assert stored.tags == {
        "arch": "fcn",
        "segpipe.weights_sha256": bundle.weights_sha256,
        "segpipe.usage": FORM.usage,
        "segpipe.request": FORM.request,
    }
    assert stored.description.startswith("mIoU 0.5\n\n## Use it")
    assert f"models:/origin/{version}" in stored.description
    (model,) = logged_models(run)
    assert {(m.key, m.dataset_name) for m in model.metrics} >= {("test/miou", "toy/test")}
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "origin", "version": "1"}]
    assert capfd.readouterr() == ("", "")


def test_a_version_leads_to_its_model_card(open_run, tmp_path: Path) -> None:
    run = open_run("a")
    tracking.record_evaluation(
        run, report=eval_report(), report_json=b"{}", recipe_text="", pictures=[], card=b"<p>one</p>"
    )
    folder, _ = make_bundle(tmp_path)
    version = register(run, "shown", folder)
    client = mlflow.MlflowClient(run.tracking_uri)
    card = f"[`card.html`]({tracking.artifact_link(run, tracking.CARD)})"
    line = f"\n\nModel card: {card} among the artifacts of the run `a`.\n\n## Use it"
    assert line in client.get_model_version("shown", str(version)).description
    tracking.describe_version(run.tracking_uri, "shown", version, "Champion.")
    assert f"Champion.{line}" in client.get_model_version("shown", str(version)).description
    found = tracking.version_run(run.tracking_uri, "shown", version)
    assert found is not None
    assert found.run_id == run.run_id
    tracking.record_page(found, tracking.CARD, b"<p>two</p>")
    assert Path(client.download_artifacts(run.run_id, tracking.CARD)).read_bytes() == b"<p>two</p>"


@pytest.mark.parametrize("store", ["http://me:secret@host:5000", "sqlite:///mlflow.db"])
def test_links_on_mlflow_s_pages_hold_under_any_address(store: str) -> None:
    run = RunRef(tracking_uri=store, experiment_id="7", run_id="ab", key="k")
    assert tracking.artifact_link(run, tracking.CARD) == (
        "#/experiments/7/runs/ab/artifactPath/card.html?workflowType=machine_learning"
    )
    assert tracking.version_link("m", 3) == "#/models/m/versions/3?workflowType=machine_learning"


def test_registering_ends_what_a_crash_left_half_done(
    open_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run("a")
    folder, _ = make_bundle(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise ConnectionResetError("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_model_artifacts", broken)
        with pytest.raises(UnreachableError, match="went away"):
            register(run, "crash", folder)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_model_version", broken)
        with pytest.raises(UnreachableError, match="went away"):
            register(run, "crash", folder)
    assert register(run, "crash", folder) == 1
    (model,) = logged_models(run)
    assert str(model.status) == "READY"


def test_a_folder_that_is_no_bundle_or_a_damaged_one_is_refused(open_run, tmp_path: Path) -> None:
    run = open_run("a")
    with pytest.raises(InputError, match=r"has no model\.json"):
        register(run, "refused", str(tmp_path))
    folder, _ = make_bundle(tmp_path)
    weights = Path(folder) / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptError, match="SHA-256"):
        register(run, "refused", folder)
    assert logged_models(run) == []


def test_nothing_in_the_model_folder_is_a_pickle(open_run, tmp_path: Path) -> None:
    run = open_run("a")
    folder, _ = make_bundle(tmp_path)
    register(run, "plain", folder)
    (model,) = logged_models(run)
    files = [path for path in Path(model.artifact_location).rglob("*") if path.is_file()]
    pages = {".j2", ".css", ".js"}  # text of the package's templates, which nothing here runs
    assert {path.suffix for path in files} <= {"", ".json", ".safetensors", ".py", ".yaml", ".txt", ".typed"} | pages
    requirements = (Path(model.artifact_location) / "requirements.txt").read_text().split()
    assert all("==" in line for line in requirements)


def test_what_a_model_requires_is_listed_with_what_all_do(
    open_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, version_of = open_run("a"), importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"timm": "1.2.3+cu"}.get(name) or version_of(name))
    register(run, "listed", make_bundle(tmp_path)[0], requires=("timm",))
    (model,) = logged_models(run)
    listed = (Path(model.artifact_location) / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in listed] == [*REQUIREMENTS, "timm"]
    assert listed[-1] == "timm==1.2.3"


def test_what_is_not_installed_cannot_be_required(open_run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-package: the model needs it, and it is not installed where"):
        register(open_run("a"), "lacking", make_bundle(tmp_path)[0], requires=("no-such-package",))


def test_aliases(open_run, store: str, tmp_path: Path) -> None:
    run = open_run("a")
    assert tracking.alias_version(store, "aliased", "champion") is None
    version = register(run, "aliased", make_bundle(tmp_path)[0])
    assert tracking.alias_version(store, "aliased", "champion") is None
    tracking.set_alias(store, "aliased", "champion", version)
    assert tracking.alias_version(store, "aliased", "champion") == version


def test_descriptions(open_run, store: str, tmp_path: Path) -> None:
    version = register(open_run("a"), "described", make_bundle(tmp_path)[0])
    tracking.describe_version(store, "described", version, "promoted")
    tracking.describe_model(store, "described", "the models of toy", alias="champion", version=version)
    client = mlflow.MlflowClient(store)
    stored = client.get_model_version("described", str(version))
    assert stored.description.startswith("promoted\n\n## Use it")
    page = client.get_registered_model("described").description
    assert page.startswith("the models of toy\n\n## Use it")
    assert all(FORM.usage in text for text in (page, stored.description))
    assert "mlflow models serve -m models:/described@champion" in page


def test_what_does_not_fit_into_a_description_is_left_out_by_the_line(open_run, store: str, tmp_path: Path) -> None:
    lines = "\n".join(f"line {number:03} says something" for number in range(300))
    version = register(open_run("a"), "long", make_bundle(tmp_path)[0], description=lines)
    tracking.describe_model(store, "long", lines, alias="champion", version=version)
    client = mlflow.MlflowClient(store)

    def texts() -> list[str]:
        told = client.get_registered_model("long").description
        return [told, client.get_model_version("long", str(version)).description]

    before = texts()
    tracking.describe_version(store, "long", version, lines)
    for text in [*before, *texts()]:
        assert 4900 < len(text) <= 5000
        told, _, usage = text.partition("\n\n(The rest of it does not fit in here.)\n\n")
        assert lines.startswith(told + "\n")
        assert usage.startswith("## Use it")
        assert FORM.request in usage
    tracking.describe_version(store, "long", version, "x" * 6000)
    assert len(texts()[1]) == 5000


def test_a_model_of_a_run_is_registered_without_a_second_copy(open_run, store: str, tmp_path: Path) -> None:
    run = open_run("a")
    folder, bundle = make_bundle(tmp_path)
    assert not tracking.has_model(run, bundle.weights_sha256)
    assert tracking.registered_version(store, "logged", bundle.weights_sha256) is None
    for _ in range(2):
        tracking.log_model(run, bundle_uri=folder, tags={"arch": "fcn"}, form=FORM, requires=())
    assert tracking.has_model(run, bundle.weights_sha256)
    assert register(run, "logged", folder) == 1
    assert tracking.registered_version(store, "logged", bundle.weights_sha256) == 1
    (model,) = logged_models(run)
    assert (str(model.status), model.tags["arch"]) == ("READY", "fcn")
