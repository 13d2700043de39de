"""The story of `make drift`: a champion of daylight meets the dark. `begin` makes what is needed before deployments,
`tell` plays it through Prefect's API: whatever starts a retrain here is an event and an automation, nobody else."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from segpipe import masks
from segpipe.sources.scenes import Scenes

HOME = Path(os.environ["SEGPIPE_HOME"])
API = os.environ["PREFECT_API_URL"]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
DARK = 0.35  # of the light is left
HEIGHT, WIDTH = 96, 128
DATASET = {"name": "streets", "format": "folder", "root": str(HOME / "source")}
RECIPE = {
    "name": "streets",
    "dataset": DATASET,
    "architectures": [{"arch": "fcn_resnet18", "options": {"output_stride": 16}}],
    "train": {
        "epochs": 3,
        "batch_size": 4,
        "augment": {"crop": [HEIGHT, WIDTH]},
        "optimizer": "adamw",
        "learning_rate": 0.002,
        "warmup_steps": 10,
        "clip_norm": 1.0,
        "precision": "bfloat16",
    },
    "resources": {"workers": 1, "cpus_per_worker": 1},
    "evaluate": {"split": "test", "batch_size": 4, "workers": 1, "pictures": 4},
    "promote": {"floor": 0.2},
    "rehearsal": {"seconds": 0},
}
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.0f} s  {text}", flush=True)


def draw(seed: int, light: float, **splits: int) -> Iterator[tuple[str, str, bytes, bytes]]:
    """(split, name, JPEG, mask as PNG) of made-up streets."""
    source = Scenes(**{"train": 0, "val": 0, "test": 0, **splits}, height=HEIGHT, width=WIDTH, seed=seed, clips=0.0)
    for ref in source.index().refs:
        sample, stream = source.read(ref), io.BytesIO()
        picture = Image.open(io.BytesIO(sample.image)).point(lambda value: value * light)
        picture.save(stream, "JPEG", quality=92)
        labels = masks.read_map(sample.label_map or b"", sample)
        yield ref.split, f"{seed}-{ref.sample_id}", stream.getvalue(), masks.encode_png(labels)


def put_labelled(seed: int, light: float, **splits: int) -> None:
    """Streets with their masks into the folder that the recipe's dataset is read from."""
    root = HOME / "source"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, name, image, mask in draw(seed, light, **splits):
        (root / "images" / f"{name}.jpg").write_bytes(image)
        (root / "masks" / f"{name}.png").write_bytes(mask)
        with (root / f"{split}.txt").open("a") as listed:
            listed.write(f"{name}\n")
    classes = [
        {"name": info.name, "id": k, "colour": list(info.colour), "thing": info.is_thing}
        for k, info in enumerate(Scenes().classes)
    ]
    ignored = {"name": "unlabelled", "id": 255, "ignore": True}
    (root / "classes.json").write_text(json.dumps([*classes, ignored]))


def put_unlabelled(folder: str, seed: int, light: float, count: int) -> str:
    """Streets that nobody has labelled."""
    place = HOME / folder
    place.mkdir(parents=True)
    for _, name, image, _ in draw(seed, light, test=count):
        (place / f"{name}.jpg").write_bytes(image)
    return str(place)


def begin() -> None:
    """The first labelled streets, the recipe, and prefect.yaml with recipe and names put in, as the README says."""
    put_labelled(1, 1.0, train=120, val=16, test=40)
    recipe = HOME / "streets.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    text = Path("prefect.yaml").read_text().replace("flows/recipes/scenes.yaml", str(recipe))
    for name in ("segpipe.dataset.scenes", "segpipe.model.scenes", "of scenes is", "that scenes was"):
        text = text.replace(name, name.replace("scenes", "streets"))
    declared = yaml.safe_load(text)
    for deployment in declared["deployments"]:
        deployment.pop("schedules", None)  # the story has its own clock, whose days are minutes
        for trigger in deployment.get("triggers", ()):
            # Of drift a retrain is started at most once in twelve hours; the next evening comes in a few minutes here.
            trigger.pop("within", None)
        if deployment["name"] == "ingest":
            deployment["parameters"] = {"dataset": DATASET}
    (HOME / "prefect.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))


def ask(path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"Content-Type": "application/json"})  # noqa: S310 - our server
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def events(name: str) -> list[dict[str, Any]]:
    found = ask("/events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})
    return sorted(found["events"], key=lambda event: event["occurred"])


def ended(run: dict[str, Any]) -> dict[str, Any]:
    while (run := ask(f"/flow_runs/{run['id']}"))["state"]["type"] not in ENDED:
        time.sleep(1)
    say(f"  {run['name']}: {run['state']['name']} {run['state']['message'] or ''}".rstrip())
    return run


def order(deployment: str, **parameters: Any) -> dict[str, Any]:
    """Runs a deployment, as `prefect deployment run` does, and waits for it."""
    ident = ask(f"/deployments/name/{deployment}")["id"]
    say(f"  running the deployment {deployment}")
    run = ended(
        ask(f"/deployments/{ident}/create_flow_run", {"parameters": parameters, "state": {"type": "SCHEDULED"}})
    )
    if run["state"]["type"] == "CRASHED":
        sys.exit("the run crashed; the worker's log says why")
    return run


def nightly_runs() -> list[dict[str, Any]]:
    ident = ask("/deployments/name/retrain/nightly")["id"]
    found: list[dict[str, Any]] = ask("/flow_runs/filter", {"deployments": {"id": {"any_": [ident]}}})
    return sorted(found, key=lambda run: run["created"])


def awaited(known: int, *, event: str) -> None:
    """The retrain that an automation starts; nothing here asks for it."""
    heard = time.monotonic()
    while len(runs := nightly_runs()) <= known:
        if time.monotonic() - heard > 180:
            sys.exit(f"no retrain has started within three minutes of {event}; Prefect's log says why")
        time.sleep(1)
    say(f"  the automation {runs[-1]['created_by']['display_value']!r} has started a run of retrain/nightly")
    ended(runs[-1])
    say(f"  {last_word(runs[-1]['id'])}")


def last_word(run: str) -> str:
    """What a retrain said of its verdict: the line before its end, which the server writes down in its own time."""
    asked = {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    for _ in range(30):
        said = [line["message"] for line in ask("/logs/filter", asked) if line["name"] == "prefect.flow_runs"]
        if len(said) > 1 and said[-1].startswith("Finished in state"):
            return str(said[-2])
        time.sleep(1)
    return "its log has not come to the server"


def predict(what: str, folder: str, name: str, *, drifts: bool) -> None:
    """Asks the champion, and looks at which event came of it."""
    known, before = len(nightly_runs()), len(events("segpipe.drift.detected"))
    say(what)
    order("predict/predict", model="models:/streets@champion", source=folder, name=name)
    until = time.monotonic() + (60 if drifts else 10)
    while len(found := events("segpipe.drift.detected")) == before and time.monotonic() < until:
        time.sleep(1)
    if not drifts:
        said = "no drift event came of it, as it should be" if len(found) == before else "a drift event: a false alarm"
        return say(f"  {said}")
    if len(found) == before:
        sys.exit("no drift event came of it")
    say(f"  the event segpipe.drift.detected: {found[-1]['payload']['sentence']}")
    say(f"  to label first: {', '.join(found[-1]['payload']['to_label'][:3])}, ...")
    return awaited(known, event="segpipe.drift.detected")


def tell() -> None:
    say("1. A first champion, on streets by day.")
    order("retrain/adhoc", recipe=str(HOME / "streets.yaml"))
    predict("2. More streets by day.", put_unlabelled("day", 2, 1.0, 30), "day_said", drifts=False)
    predict("3. The same camera at dusk.", put_unlabelled("dusk", 3, DARK, 30), "dark_said", drifts=True)
    say("4. Somebody has labelled streets at dusk, and tells nobody.")
    put_labelled(4, DARK, train=60, val=8, test=20)
    predict("   The next evening:", put_unlabelled("evening", 5, DARK, 30), "evening_said", drifts=True)
    say("5. More labelled streets, and an ingest.")
    put_labelled(6, DARK, train=30)
    known = len(nightly_runs())
    order("ingest/ingest", dataset=DATASET)
    awaited(known, event="segpipe.dataset.ingested")
    say("6. The same ingest again: nothing is new, and nothing starts.")
    known, before = len(nightly_runs()), len(events("segpipe.dataset.ingested"))
    order("ingest/ingest", dataset=DATASET)
    time.sleep(15)
    say(f"  events more: {len(events('segpipe.dataset.ingested')) - before}, retrains: {len(nightly_runs()) - known}")


if __name__ == "__main__":
    {"begin": begin, "tell": tell}[sys.argv[1]]()
