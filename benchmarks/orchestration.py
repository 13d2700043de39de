"""What orchestration costs: `retrain` over N architectures against the same trainings run bare, in the same session.

    python benchmarks/orchestration.py [--architectures 3] [--epochs 10] [--json]

Bare training is `train.loop.fit` in a fresh plain process with all cores, one architecture after the other: no Prefect,
no Ray, no MLflow, no evaluation of the test split. `retrain` is the flow with everything, cold (a fresh home: databases
are created, Ray starts) and warm (the same Prefect server and the same Ray cluster, another seed). The ratio that
matters is warm wall time / sum of bare training times; the goal for N = 3 is 1.15 where bare training takes two minutes
an architecture or more, so raise --epochs until it does. Compare numbers of one session only.

Where the time of a retrain goes is told along its slowest architecture: its training loop and its evaluation as they
were measured there, the ingest, and the rest: starting Prefect, Ray and the worker, MLflow, the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "flows" / "recipes" / "scenes.yaml"

BARE = """
import json, sys, time
import torch
from segpipe.config import Recipe
from segpipe.stages import layout
from segpipe.stages.ingest import ingest
from segpipe.stages.train import train
if __name__ == "__main__":
    recipe = Recipe.load(sys.argv[1], tuple(sys.argv[2:]))
    dataset = ingest(recipe.dataset)
    for index in range(len(recipe.architectures)):
        run = recipe.run_config(index)
        result = train(run, data=dataset.uri, version=dataset.version, to=layout.runs_uri("bare"),
                       resources=recipe.resources, runtime="local")
        print(json.dumps({"label": run.label, "seconds": result.train_seconds}), flush=True)
"""

FLOW = """
import json, sys, time
from flows import environment
environment.prepare()
from flows.retrain import retrain
from segpipe.config import Recipe
from segpipe.stages import layout
from segpipe.stages.evaluate import location
from segpipe.stages.evaluations import load_report
from segpipe.stages.identity import resolve
from segpipe.stages.train import finished, run_location

def slowest(recipe, version):
    rows = []
    for run in map(resolve, recipe.run_configs()):
        result = finished(run_location(run, version=version, to=layout.runs_uri(recipe.name)))
        folder = location(result.weights_sha256, label=run.label, version=version, config=recipe.evaluate,
                          to=layout.evaluations_uri(recipe.name))
        rows.append((result.train_seconds, load_report(folder).seconds / recipe.evaluate.workers))
    training, evaluation = max(rows, key=sum)
    return {"training": training, "evaluation": evaluation}

if __name__ == "__main__":
    for name, seed in (("cold", 1), ("warm", 2)):
        overrides = (*sys.argv[2:], f"train.seed={seed}")
        started = time.perf_counter()
        result = retrain(sys.argv[1], overrides)
        row = {"name": name, "seconds": time.perf_counter() - started, "ingest": result.dataset.seconds}
        print(json.dumps(row | slowest(Recipe.load(sys.argv[1], overrides), result.dataset.version)), flush=True)
"""


def rows(script: str, arguments: list[str], home: str) -> list[dict[str, Any]]:
    """Runs a script in a fresh process and home; its JSON lines."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=home, delete=False) as file:
        file.write(script)
    environment = {**os.environ, "SEGPIPE_HOME": home, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, file.name, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def where(row: dict[str, Any]) -> dict[str, float]:
    """The wall time of one retrain, in parts along its slowest architecture."""
    parts = {name: row[name] for name in ("ingest", "training", "evaluation")}
    parts["rest"] = row["seconds"] - sum(parts.values())
    return {name: round(seconds, 1) for name, seconds in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = [
        "{arch: deeplab_v3plus, options: {backbone: resnet18}}",
        "{arch: unet, options: {backbone: resnet18, head_stride: 2}}",
        "{arch: fcn_resnet18, options: {output_stride: 16}}",
    ][: options.architectures]
    settings = [f"architectures=[{', '.join(names)}]", f"train.epochs={options.epochs}"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as bare_home, tempfile.TemporaryDirectory() as flow_home:
        bare = rows(BARE, [str(RECIPE), *settings], bare_home)
        flow = {row["name"]: row for row in rows(FLOW, [str(RECIPE), *settings], flow_home)}
    bare_seconds = sum(row["seconds"] for row in bare)
    report = {
        "architectures": len(names),
        "epochs": options.epochs,
        "bare_seconds": {row["label"]: round(row["seconds"], 1) for row in bare},
        "bare_sum": round(bare_seconds, 1),
        "retrain": {name: where(row) for name, row in flow.items()},
        "ratio": {name: round(row["seconds"] / bare_seconds, 3) for name, row in flow.items()},
        "session_seconds": round(time.perf_counter() - started, 1),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{len(names)} architectures, {options.epochs} epochs, {os.cpu_count()} cores")
    for label, seconds in report["bare_seconds"].items():
        print(f"  bare {label:18} {seconds:8.1f} s")
    print(f"  bare sum                {bare_seconds:8.1f} s")
    for name, ratio in report["ratio"].items():
        print(f"  retrain {name:15} {flow[name]['seconds']:8.1f} s   ratio {ratio:.3f}")
        print("    " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in report["retrain"][name].items()))


if __name__ == "__main__":
    main()
