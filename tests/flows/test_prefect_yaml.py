"""What prefect.yaml declares fits the flows: entrypoints, parameters, schedule, trigger, limits."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentEventTrigger
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.schema_tools import validate

from segpipe.config import Recipe

ROOT = Path(__file__).parents[2]
DECLARED: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = DECLARED["deployments"]


def flow_of(deployment: dict[str, Any]) -> Flow[Any, Any]:
    return load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]), use_placeholder_flow=False)


def named(flow: str, name: str) -> dict[str, Any]:
    return next(d for d in DEPLOYMENTS if d["entrypoint"].endswith(f":{flow}") and d["name"] == name)


def test_prefect_reads_the_file_and_it_names_no_machine() -> None:
    PrefectYamlModel.model_validate(DECLARED)
    assert "pull" not in DECLARED  # `deploy` notes the folder that it runs in
    assert str(ROOT) not in (ROOT / "prefect.yaml").read_text()


def test_every_flow_has_a_deployment() -> None:
    flows = {d["entrypoint"].partition(":")[2] for d in DEPLOYMENTS}
    assert flows == {"ingest", "train", "evaluate", "predict", "promote", "retrain"}
    names = [(d["entrypoint"], d["name"]) for d in DEPLOYMENTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint'].rpartition(':')[2]}/{d['name']}")
def test_a_deployment_fits_its_flow(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    schema = flow.parameters.model_dump()
    assert set(deployment["parameters"]) <= set(schema["properties"])
    validate(deployment["parameters"], schema, raise_on_error=True, ignore_required=True)
    for name, described in schema["properties"].items():
        assert described.get("description") or "$ref" in described, f"Prefect's form does not explain {name}"
    if "recipe" in deployment["parameters"]:
        Recipe.load(ROOT / deployment["parameters"]["recipe"], tuple(deployment["parameters"]["overrides"]))
    assert deployment["work_pool"]["name"] == "segpipe-process"
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["description"]
    assert "segpipe" in deployment["tags"]
    limit = deployment["concurrency_limit"]
    assert limit["limit"] == 1
    assert limit["collision_strategy"] in {each.value for each in ConcurrencyLimitStrategy}


def test_retrain_runs_every_night_and_on_new_data_and_never_twice_at_once() -> None:
    nightly = named("retrain", "nightly")
    (schedule,) = nightly["schedules"]
    CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    assert schedule["active"] is True
    recipe = Recipe.load(ROOT / nightly["parameters"]["recipe"])
    expected = {
        "segpipe.dataset.ingested": f"segpipe.dataset.{recipe.dataset.name}",
        "segpipe.drift.detected": f"segpipe.model.{recipe.name}",
    }
    triggers = _initialize_deployment_triggers("retrain/nightly", nightly["triggers"])
    assert {event: t.match.root["prefect.resource.id"] for t in triggers for event in t.expect} == expected
    assert len({trigger.name for trigger in triggers}) == len(triggers) == len(expected)
    assert all(trigger.parameters == nightly["parameters"] for trigger in triggers)
    assert nightly["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    within = {event: t.within for t in triggers for event in t.expect if isinstance(t, DeploymentEventTrigger)}
    assert within["segpipe.drift.detected"] == timedelta(hours=12), "drift is told by every call until somebody labels"
    assert within["segpipe.dataset.ingested"] == timedelta(0), "each version is announced once"


def test_the_ingest_deployment_publishes_what_the_nightly_recipe_reads() -> None:
    recipe = Recipe.load(ROOT / named("retrain", "nightly")["parameters"]["recipe"])
    declared = named("ingest", "ingest")["parameters"]["dataset"]
    assert flow_of(named("ingest", "ingest")).validate_parameters({"dataset": declared})["dataset"] == recipe.dataset
