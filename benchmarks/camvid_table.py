"""What `benchmarks/camvid.py` prints and draws of the outcomes in a folder: the table, and the page of predictions.

An outcome is a JSON file of one training, as `camvid.measured` returns it, with the predicted maps of a few images
beside it.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

MEASURES = ("miou", "mean_accuracy", "pixel_accuracy", "boundary_iou")


def outcomes_in(folder: str) -> list[Path]:
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        sys.exit(f"{folder}: holds no outcomes; `run` makes them")
    return files


def table(folder: str) -> None:
    """Prints the table of all outcomes in the folder, best first."""
    groups: dict[tuple[str, bool, str], list[dict[str, Any]]] = {}
    for file in outcomes_in(folder):
        outcome = json.loads(file.read_text())
        groups.setdefault((outcome["name"], outcome["pretrained"], outcome["code"]), []).append(outcome)
    scores = ("test mIoU", "class acc.", "global acc.", "boundary IoU")
    titles = (*scores, "published mIoU", "parameters", "GFLOPs", "images/s", "epochs", "seeds")
    print("| architecture | " + " | ".join(titles) + " |\n|---|" + "---:|" * len(titles))
    rows = sorted(groups.items(), key=lambda item: -statistics.mean(o["metrics"]["miou"] for o in item[1]))
    for (name, pretrained, _), outcomes in rows:
        first = outcomes[0]
        cells = [", ".join([name, *backbones(first)]) + " (pretrained)" * pretrained]
        for measure in MEASURES:
            values = [100 * outcome["metrics"][measure] for outcome in outcomes]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        cells.append(published_on_camvid(name))
        counts = first["gflops"] is None
        cells += ["-", "-"] if counts else [f"{first['parameters'] / 1e6:.2f} M", f"{first['gflops']:.1f}"]
        cells.append(f"{statistics.median(outcome['images_per_second'] for outcome in outcomes):.1f}")
        epochs = sorted({outcome["epochs"] for outcome in outcomes})
        cells += ["-" if counts else "-".join(map(str, dict.fromkeys((epochs[0], epochs[-1])))), str(len(outcomes))]
        print("| " + " | ".join(cells) + " |")
    made: dict[str, list[str]] = {}
    for (name, pretrained, code), (first, *_) in rows:
        how = f"{first['day']}, {first['device']}, segpipe {code}; {json.dumps(first['setting'])}"
        made.setdefault(how, []).append(name + " (pretrained)" * pretrained)
    for how, names in made.items():
        print(f"\n{how}: {', '.join(names)}")
    print("\n## Published, each under its own protocol\n")
    for name in sorted({name for name, _, _ in groups}):
        for line in published_lines(name):
            print(line)


def published_on_camvid(name: str) -> str:
    """The mean IoUs of it that somebody printed of CamVid's test split; "-" where none is known."""
    from segpipe import models

    wanted = ("CamVid", "test", "miou")
    shares = [said.value for said in models.spec(name).published if (said.dataset, said.split, said.metric) == wanted]
    return " / ".join(f"{100 * share:.1f}" for share in shares) or "-"


def published_lines(name: str) -> list[str]:
    """What was printed of it, that of CamVid first, each with its protocol and its source."""
    from segpipe import models

    lines = []
    for said in sorted(models.spec(name).published, key=lambda said: said.dataset != "CamVid"):
        number = f"{said.metric} {100 * said.value:.1f} on {said.dataset} {said.split}"
        lines.append(f"- {name}: {number}: {said.protocol} ({said.source})")
    return lines


def backbones(outcome: dict[str, Any]) -> list[str]:
    return [outcome["options"]["backbone"]] if "backbone" in outcome["options"] else []


def shown_samples(dataset: Any) -> list[str]:
    """The ids of three test images, from both of its drives."""
    ids = dataset.sample_ids("test")
    return [ids[len(ids) * part // 6] for part in (1, 3, 5)]


def page(folder: str) -> None:
    """Draws what every architecture says of the same three images, best first."""
    import numpy as np

    from segpipe.data.decode import decode
    from segpipe.report.drawing import png
    from segpipe.report.panels import compose
    from segpipe.shards import open_dataset

    dataset = open_dataset(f"{folder}/data")
    shown = shown_samples(dataset)
    samples = {sample.sample_id: decode(sample) for sample in dataset.samples("test") if sample.sample_id in shown}
    colours = np.array([info.colour for info in dataset.manifest.classes] + [(0, 0, 0)], dtype=np.uint8)
    panels = [(name, samples[name].image_3HW.permute(1, 2, 0).numpy()) for name in shown]
    truths = [np.asarray(samples[name].labels_HW) for name in shown]
    panels += [("truth", colours[np.minimum(truth, len(colours) - 1)]) for truth in truths]
    outcomes = [(json.loads(file.read_text()), np.load(file.with_suffix(".npz"))) for file in outcomes_in(folder)]
    for outcome, maps in sorted(outcomes, key=lambda pair: -pair[0]["metrics"]["miou"]):
        caption = f"{outcome['name']}, test mIoU {100 * outcome['metrics']['miou']:.1f}"
        panels += [(caption, colours[maps[name]]) for name in shown]
    entries = [(info.name, info.colour) for info in dataset.manifest.classes] + [("not labelled", (0, 0, 0))]
    sheet = compose(panels, entries, "CamVid: every architecture on the same three images", columns=3)
    file = Path(folder) / "page.png"
    file.write_bytes(png(sheet))
    print(f"{file}: {len(outcomes)} architectures")
