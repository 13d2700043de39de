"""Where a model comes from, as people read it. As `views`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from segpipe.cli.drawing import MARKS, say, table
from segpipe.stages.numbers import counted

if TYPE_CHECKING:
    from segpipe.stages.lineage import DataLink, Lineage, ParentLink


def lineage(console: Console, found: Lineage) -> None:
    """The links in the order in which they were made, the broken ones last."""
    version = f", version {found.version} in MLflow" if found.version is not None else ""
    say(console, f"{found.model} is {found.label} ({found.arch}){version}", "bold")
    say(console, f"  weights    {found.weights_sha256}\n  checkpoint {found.checkpoint}")
    if found.data is not None:
        _data(console, found.data)
    say(console, f"recipe {found.recipe_digest or 'unknown'}\ncode   {found.code_version or 'unknown'}")
    rows = [(each.role, each.label, each.arch, each.train_split, each.validation_split) for each in found.trainings]
    table(console, "Trainings", ("role", "label", "architecture", "trained on", "epoch chosen on"), rows)
    for parent in found.parents:
        say(console, f"{parent.of} began with {_parent(parent)}")
    scores = [
        (each.dataset, each.dataset_version[:12], each.split, f"{each.primary} {each.value:.4f}", each.uri)
        for each in found.scores
    ]
    table(console, "Evaluations", ("dataset", "version", "split", "score", "report"), scores)
    if found.verdict is not None:
        by = f"record {found.verdict.number}, {found.verdict.at[:19]}, by {found.verdict.who}"
        say(console, f"{found.verdict.kind} ({by}): {found.verdict.reason}", MARKS[found.verdict.kind])
    for link in found.broken:
        say(console, f"broken: {link}", "red")


def _data(console: Console, data: DataLink) -> None:
    say(console, f"dataset {data.name}, version {data.version}, {data.uri or 'which is gone'}")
    if data.images is not None:
        say(console, f"  {counted(data.images, 'image')}; the hash of each: --images")
    rows = [(each.split, each.path, each.rows, each.sha256) for each in data.shards]
    table(console, "", ("split", "shard", "rows", "SHA-256"), rows)
    for split, sample_id, sha256 in data.image_hashes:
        say(console, f"{sha256}  {split}/{sample_id}")


def _parent(parent: ParentLink) -> str:
    if parent.pretrained is not None:
        return f"the weights {parent.pretrained}"
    return f"{parent.label}, weights {parent.weights_sha256 or 'that are gone'} ({parent.uri})"
