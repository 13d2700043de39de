"""What a flow run is called on Prefect's page."""

from __future__ import annotations

from pathlib import PurePosixPath

from prefect.runtime import flow_run


def run_name() -> str:
    """`retrain camvid`, `train camvid unet`: the flow, the recipe's file, and which model where one is named."""
    recipe, label = str(flow_run.parameters.get("recipe", "")), flow_run.parameters.get("label")
    return " ".join([str(flow_run.flow_name), PurePosixPath(recipe).stem, *([str(label)] if label else [])])
