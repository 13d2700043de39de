"""Runs are found again by their key, and what they hold already is not logged twice."""

from pathlib import Path

import mlflow
import pytest

from segpipe import tracking
from segpipe.errors import InputError
from segpipe.tracking import RunRef
from segpipe.tracking.runs import NOTE, NOTE_CHARACTERS, RULE, columns, shorten_note

HISTORY = [
    {"step": 10, "epoch": 0, "metrics": {"train/loss": 2.0, "val/miou": 0.1}},
    {"step": 20, "epoch": 1, "metrics": {"train/loss": 1.0, "val/miou": None}},
]


def client_of(run: RunRef) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(run.tracking_uri)


def steps(run: RunRef, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client_of(run).get_metric_history(run.run_id, name))


def test_a_key_names_one_run(open_run) -> None:
    first, again, other = open_run("a"), open_run("a"), open_run("b")
    assert first == again
    assert first.experiment_id == other.experiment_id
    assert first.run_id != other.run_id


def test_a_key_that_a_search_cannot_express_is_refused(open_run) -> None:
    with pytest.raises(InputError, match="quote"):
        open_run("it's")


def test_a_new_experiment_keeps_its_files_beside_the_store(open_run, store: str) -> None:
    run = open_run("a")
    experiment = client_of(run).get_experiment(run.experiment_id)
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert experiment.artifact_location == f"{folder}/mlartifacts/{experiment.name}"


def test_experiment_and_run_say_what_they_are(store: str) -> None:
    run = tracking.open_parent(
        store,
        experiment="elsewhere",
        key="a",
        name="a",
        description="what this run is",
        tags={"recipe": "toy"},
        experiment_description="what this experiment is",
    )
    experiment, data = client_of(run).get_experiment(run.experiment_id), client_of(run).get_run(run.run_id).data
    assert experiment.tags["mlflow.note.content"] == "what this experiment is"
    assert data.tags["mlflow.note.content"] == "what this run is"
    assert data.tags["recipe"] == "toy"


def test_children_stand_below_their_parent_with_their_parameters(open_run) -> None:
    parent = open_run("parent")
    arguments = {"key": "child", "name": "unet", "tags": {"arch": "unet"}, "description": "first"}
    child = tracking.open_child(parent, params={"epochs": 3, "rate": 0.1}, **arguments)
    again = tracking.open_child(parent, params={"epochs": 3, "workers": 2}, **arguments)
    run = client_of(child).get_run(child.run_id)
    assert again == child
    assert run.data.params == {"epochs": "3", "rate": "0.1", "workers": "2"}
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.info.run_name == "unet"


def test_many_and_odd_parameters_are_stored(open_run) -> None:
    params = {f"option.{i} (odd)": i for i in range(150)}
    child = tracking.open_child(open_run("p"), key="c", name="c", params=params, tags={}, description="")
    assert len(client_of(child).get_run(child.run_id).data.params) == 150


def test_values_are_recorded_once_and_found_by_how_their_names_begin(open_run) -> None:
    run = open_run("a")
    assert not tracking.has_params(run, "cost.")
    for gflops in (2.5, 2.5, 3.5):
        tracking.record_values(run, metrics={"cost/gflops": gflops}, params={"cost.image": f"{gflops}"})
    data = client_of(run).get_run(run.run_id).data
    assert (data.metrics, data.params["cost.image"]) == ({"cost/gflops": 3.5}, "2.5")
    assert [value for _, value in steps(run, "cost/gflops")] == [2.5, 3.5]
    assert tracking.has_params(run, "cost.")
    assert not tracking.has_params(run, "costs")


def test_history_is_mirrored_once(open_run) -> None:
    run = open_run("a")
    assert tracking.mirror_history(run, HISTORY[:1]) == 2
    assert tracking.mirror_history(run, HISTORY) == 1
    assert tracking.mirror_history(run, HISTORY) == 0
    assert steps(run, "train/loss") == [(10, 2.0), (20, 1.0)]
    assert steps(run, "val/miou") == [(10, 0.1)]
    file = client_of(run).download_artifacts(run.run_id, "history.csv")
    assert Path(file).read_text().splitlines()[:2] == ["step,epoch,name,value", "10,0,train/loss,2.0"]


def test_a_long_history_passes_the_limit_of_one_call(open_run) -> None:
    run = open_run("a")
    history = [{"step": i, "epoch": 0, "metrics": {"train/loss": 1 / (i + 1)}} for i in range(1203)]
    assert tracking.mirror_history(run, history) == 1203
    assert len(steps(run, "train/loss")) == 1203


def test_a_failed_run_that_is_opened_again_runs_again(open_run) -> None:
    run = open_run("a")
    status = [client_of(run).get_run(run.run_id).info.status]
    for action in (
        lambda: tracking.finish(run, "FAILED"),
        lambda: open_run("a"),
        lambda: tracking.finish(run),
    ):
        action()
        status.append(client_of(run).get_run(run.run_id).info.status)
    assert status == ["RUNNING", "FAILED", "RUNNING", "FINISHED"]


def test_finishing_twice_keeps_the_first_end(open_run) -> None:
    run = open_run("a")
    tracking.finish(run)
    end = client_of(run).get_run(run.run_id).info.end_time
    tracking.finish(run)
    assert client_of(run).get_run(run.run_id).info.end_time == end


def test_a_deleted_experiment_comes_back(open_run) -> None:
    run = open_run("a")
    client_of(run).delete_experiment(run.experiment_id)
    assert open_run("b").experiment_id == run.experiment_id
    assert client_of(run).get_experiment(run.experiment_id).lifecycle_stage == "active"


def test_what_came_of_a_run_stands_before_what_was_asked_and_is_replaced(open_run) -> None:
    run = open_run("a")
    before = "What was asked.\n\n---\n\nUnder a rule of one's own, more of it."
    client_of(run).set_tag(run.run_id, NOTE, before)
    for text, value in (("first", 0.5), ("second", 0.5), ("second", 0.6)):
        tracking.describe(run, story=f"**{text}**", metrics={"test/miou": value}, tags={"verdict": text})
    tags = client_of(run).get_run(run.run_id).data.tags
    assert tags[NOTE] == f"**second**{RULE}{before}"
    assert tags["verdict"] == "second"
    assert steps(run, "test/miou") == [(0, 0.5), (0, 0.6)]
    assert client_of(run).get_run(run.run_id).data.metrics == {"test/miou": 0.6}, "what holds now is shown"


def test_links_lead_to_a_server_only() -> None:
    server = RunRef(tracking_uri="http://host:5000", experiment_id="3", run_id="abc", key="a")
    file = RunRef(tracking_uri="sqlite:////x.db", experiment_id="3", run_id="abc", key="a")
    absent = RunRef(tracking_uri="http://host:5000", experiment_id="", run_id="", key="a")
    assert tracking.run_url(server) == "http://host:5000/#/experiments/3/runs/abc?workflowType=machine_learning"
    assert tracking.run_url(file) is None
    assert tracking.run_url(absent) is None


def test_a_long_description_is_cut_at_the_end_of_a_line() -> None:
    text = shorten_note("\n".join(f"| row {i} |" for i in range(2000)))
    assert len(text) <= NOTE_CHARACTERS
    assert text.endswith("|\n\n... shortened; the artifacts hold the rest.")
    assert shorten_note("short") == "short"


def test_nothing_is_printed(open_run, capfd: pytest.CaptureFixture[str]) -> None:
    run = open_run("a")
    tracking.mirror_history(run, HISTORY)
    tracking.finish(run)
    assert capfd.readouterr() == ("", "")


def test_a_table_of_runs_is_spared_what_nobody_compares() -> None:
    kept = {
        "train/loss": 1.0,
        "val/ap/coco/segm": 0.5,
        "ap50/coco/bbox": 0.6,
        "pq/things": 0.4,
        "test/pck/box/0.1": 0.2,
    }
    left_out = ["val/aps/coco/segm", "apl/coco/bbox", "ar100/coco/segm", "val/ar1/coco/bbox", "ar/coco/keypoints"]
    left_out += ["val/iou/traffic sign/front", "val/pq/class/car", "test/pck/keypoint/3", "sq/things", "val/rq/all"]
    left_out += ["val/ap50/coco/segm", "val/mean_accuracy", "val/miou_present"]
    assert columns(kept | dict.fromkeys(left_out, 0.1) | {"miou": None}) == kept
