"""What a training run leaves in MLflow besides its curves: its dataset, its evaluation, its pictures.

Everything is written from an `EvalReport` or a dataset version that our own files hold already; doing it again
overwrites the same names.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from segpipe.tracking.connect import RunRef, metric_name, talking_to
from segpipe.tracking.runs import NOTE, columns, set_metrics, shorten_note
from segpipe.types import CLASS_COUNTS, EvalReport

DIGEST_CHARACTERS = 12  # MLflow takes 36 at most and its pages cut long ones; the full version stands in the source
CLASS_TABLE = "evaluation/per_class.json"
RECIPE = "recipe.yaml"
PICTURES = "pictures"
CARD, SIDE_BY_SIDE = "card.html", "side_by_side.html"
PICTURES_IN_NOTE = 4
HEADING = "## Evaluation"
LATENCY = "latency_ms"  # of an image
CLASSES_IN_NOTE = 60
PADDING = "&emsp;"  # MLflow draws the cells of a table without any distance, and trims what is a space by itself
TITLES = {  # in the order of the columns
    "miou": "mIoU",
    "iou": "IoU",
    "dice": "Dice",
    "pixels": "pixels %",
    "ap/coco/segm": "mask AP",
    "ap/coco/bbox": "box AP",
    "ap": "AP",
    "ap50": "AP50",
    "pq/all": "PQ",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "objects": "objects",
    "segments": "segments",
    "pck/box/0.1": "PCK",
    "keypoints": "keypoints",
}


def record_dataset(
    run: RunRef,
    *,
    name: str,
    version: str,
    uri: str,
    split: str,
    context: str,
    profile: Mapping[str, Any] | None = None,
) -> None:
    """Ties one split of a dataset version to the run. `context` says what for: "training", "evaluation".

    The digest that MLflow shows is the start of the version. `profile` is shown beside it, for example sample counts.
    """
    with talking_to(run.tracking_uri) as client:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        scheme, _, rest = uri.partition("://")
        dataset = Dataset(
            name=f"{name}/{split}",
            digest=version[:DIGEST_CHARACTERS],
            source_type=scheme if rest else "local",
            source=json.dumps({"uri": uri, "version": version, "split": split}),
            profile=json.dumps(profile) if profile else None,
        )
        client.log_inputs(run.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def has_inputs(run: RunRef) -> bool:
    """Whether a dataset is tied to the run."""
    with talking_to(run.tracking_uri) as client:
        inputs = client.get_run(run.run_id).inputs
        return bool(inputs and inputs.dataset_inputs)


def record_evaluation(
    run: RunRef,
    *,
    report: EvalReport,
    report_json: bytes,
    recipe_text: str,
    pictures: Sequence[tuple[str, bytes]],
    card: bytes | None = None,
) -> None:
    """Writes an evaluation to the run: its metrics (`headline_metrics`), a per-class table, the report, the recipe, PNG
    pictures (name without ending, bytes), the model card and a section of the run's description.

    Another evaluation of the same training takes the place of the one before; the metrics of each split stay.
    """
    with talking_to(run.tracking_uri) as client, tempfile.TemporaryDirectory() as scratch:
        set_metrics(client, run.run_id, headline_metrics(report))
        _write_files(Path(scratch), report, report_json, recipe_text, pictures)
        if card is not None:
            (Path(scratch) / CARD).write_bytes(card)
        client.log_artifacts(run.run_id, scratch)
        note = client.get_run(run.run_id).data.tags.get(NOTE, "").partition(HEADING)[0].rstrip()
        shown = {name: _picture_url(run.run_id, name) for name, _ in pictures[:PICTURES_IN_NOTE]}
        tags = {
            "mlflow.loggedArtifacts": json.dumps([{"path": CLASS_TABLE, "type": "table"}]),
            NOTE: shorten_note(f"{note}\n\n{evaluation_note(report, shown)}".lstrip()),
        }
        for key, value in tags.items():
            client.set_tag(run.run_id, key, value)


def headline_metrics(report: EvalReport) -> dict[str, float]:
    """The `columns` of its metrics, the bounds of the primary one and its latency, by what `evaluation_metric` calls
    them."""
    bounds = {f"{report.primary}_low": report.low, f"{report.primary}_high": report.high}
    seconds = {} if report.latency is None else {LATENCY: 1000 * report.latency}
    shown = columns({**report.metrics, **bounds, **seconds})
    return {evaluation_metric(report.split, name): float(value) for name, value in shown.items()}


def evaluation_metric(split: str, name: str) -> str:
    """What MLflow calls a metric of an evaluation on `split`: test/miou."""
    return metric_name(f"{evaluation_prefix(split)}{name}")


def evaluation_prefix(split: str) -> str:
    """How the names of an evaluation's metrics begin: test/."""
    # train/ and val/ are the curves of the training, in the same run: a point at step 0 of them would be lost there.
    return f"evaluated_{split}/" if split in ("train", "val") else f"{metric_name(split)}/"


def record_recipe(run: RunRef, recipe_text: str) -> None:
    """Puts the recipe beside the run, as the file RECIPE."""
    with talking_to(run.tracking_uri) as client:
        client.log_text(run.run_id, recipe_text, RECIPE)


def record_page(run: RunRef, name: str, page: bytes) -> None:
    """Puts a page beside the run, in place of an earlier one of that name."""
    with talking_to(run.tracking_uri) as client, tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / name
        file.write_bytes(page)
        client.log_artifact(run.run_id, str(file))


def evaluation_note(report: EvalReport, pictures: Mapping[str, str]) -> str:
    """The evaluation as markdown: the headline with its interval, each class, pictures (URL by sample id), what was
    measured where, how to load.
    """
    title = TITLES.get(report.primary, report.primary)
    columns, rows = _class_table(report)
    table = markdown_table(columns, rows[:CLASSES_IN_NOTE], texts=("class",))
    if len(rows) > CLASSES_IN_NOTE:
        table += ["", f"{len(rows) - CLASSES_IN_NOTE} more classes are in `{CLASS_TABLE}`."]
    class_table = "\n".join(table)
    return f"""{HEADING}

**{title} {report.value:.4f}** (95 % interval {report.low:.4f} to {report.high:.4f} over {report.resampled}) on \
{report.num_samples} images of `{report.dataset}` / `{report.split}`.{_caveat(report)}

{class_table}
{_shown(pictures)}
* model `{report.arch}` ({report.label}), {report.parameters / 1e6:.2f} M parameters{_timed(report)}
* dataset version `{report.dataset_version[:DIGEST_CHARACTERS]}`, protocol `{report.protocol}`
* weights `{report.weights_sha256[:DIGEST_CHARACTERS]}` (SHA-256), recipe `{report.config_digest[:DIGEST_CHARACTERS]}`
* code segpipe `{report.code_version}`

Load it:

```python
from segpipe.checkpoint import load_model

model, bundle = load_model("{report.checkpoint}")
```"""


def markdown_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float | None]],
    *,
    texts: Collection[str],
    padding: str = PADDING,
) -> list[str]:
    """The lines of a table: the columns that are `texts` left, the others right; floats with four digits. The `padding`
    of cells is what MLflow's pages need."""
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    head, *body = ["| " + " | ".join(f"{cell}{padding}" for cell in line) + " |" for line in lines]
    ruler = "|".join("---" if column in texts else "---:" for column in columns)
    return [head, f"|{ruler}|", *body]


def _timed(report: EvalReport) -> str:
    return "" if report.latency is None else f", {1000 * report.latency:.3g} ms an image on {report.timed_on}"


def _shown(pictures: Mapping[str, str]) -> str:
    """The pictures below each other; all of them are among the run's artifacts."""
    if not pictures:
        return ""
    images = "\n\n".join(f"![{name}]({url})" for name, url in pictures.items())
    return f"\nThe first of the pictures in the run's artifacts (`{PICTURES}/`):\n\n{images}\n"


def _picture_url(run_id: str, name: str) -> str:
    """Where the server's own page finds an artifact; relative, so that it holds for any host and path prefix."""
    # A picture logged by `log_image` is shown in a card below a list of all parameters of its run, and cannot be seen.
    return "get-artifact?" + urlencode({"path": f"{PICTURES}/{_file_name(name)}.png", "run_uuid": run_id})


def _caveat(report: EvalReport) -> str:
    """What the interval does not say where images were resampled though several belong together."""
    groups = len(set(report.groups))
    if report.resampled == "groups" or groups == report.num_samples:
        return ""
    few = f"{groups} group{'s' * (groups > 1)}, too few to resample"
    return f" The images come from {few}: the interval says nothing about others."


def _class_table(report: EvalReport) -> tuple[list[str], list[list[Any]]]:
    """Column titles and one row a class, in class order; pixels as share of the whole, objects as their number."""
    measured = report.per_class[report.classes[0]]
    names = sorted(measured, key=[*TITLES, *sorted(measured)].index)
    total = sum(values.get("pixels") or 0.0 for values in report.per_class.values())
    columns = ["class", *(TITLES.get(name, name) for name in names)]
    rows = [
        [label, *(_class_cell(name, report.per_class[label].get(name), pixels=total) for name in names)]
        for label in report.classes
    ]
    return columns, rows


def _class_cell(name: str, value: float | None, *, pixels: float) -> float | None:
    if value is None:
        return None
    if name == "pixels":
        return round(100 * value / (pixels or 1), 4)
    return int(value) if name in CLASS_COUNTS else round(value, 4)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _write_files(
    folder: Path, report: EvalReport, report_json: bytes, recipe_text: str, pictures: Sequence[tuple[str, bytes]]
) -> None:
    """Lays out the run's artifacts below `folder` as they shall appear in MLflow."""
    evaluation, drawn = folder / "evaluation", folder / PICTURES
    evaluation.mkdir()
    drawn.mkdir()
    columns, rows = _class_table(report)
    (evaluation / "report.json").write_bytes(report_json)
    (folder / CLASS_TABLE).write_text(json.dumps({"columns": columns, "data": rows}))
    with (evaluation / "per_class.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    (folder / RECIPE).write_text(recipe_text)
    for name, data in pictures:
        (drawn / f"{_file_name(name)}.png").write_bytes(data)


def _file_name(name: str) -> str:
    """A sample id as one file name that every artifact store takes."""
    return metric_name(name).replace("/", "_").replace(":", "_").replace(" ", "_")
