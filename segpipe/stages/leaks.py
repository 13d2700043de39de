"""Images that a model was trained on and is scored by: a score on those says nothing. Asked before a promotion.

The hash of every image file lies in its shard since ingest, so nothing is hashed or decoded here. What is held grows
with the evaluation split, which its report lists image by image anyway, and not with what was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from segpipe.shards import Dataset
from segpipe.stages.numbers import counted
from segpipe.stages.origins import Origin, dataset_of

NAMED = 3  # of those that are told


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """How many of the `evaluated` samples were trained on, as which, in the order of the evaluation split: sample id ->
    where it is among what was trained on."""

    evaluated: int
    split: str
    seen: Mapping[str, str]

    def __str__(self) -> str:
        shown = [f"{self.split}/{sample_id} = {place}" for sample_id, place in list(self.seen.items())[:NAMED]]
        more = f" and {len(self.seen) - len(shown)} more" if len(self.seen) > len(shown) else ""
        return f"{len(self.seen)} of {counted(self.evaluated, 'evaluation image')}: {', '.join(shown)}{more}"


def leak(origin: Origin, evaluated: Dataset, split: str) -> Leak | None:
    """What of an evaluation split the trainings behind a model have seen; None where they have seen nothing of it.

    Raises InputError where the dataset version of the trainings is gone, CorruptError where it is damaged.
    """
    trained_on = dataset_of(origin.bundle, beside=evaluated.uri)
    splits = dict.fromkeys(training.train_split for training in origin.trainings)
    return compare(evaluated, split, [(trained_on, each) for each in splits])


def compare(evaluated: Dataset, split: str, trained_on: Iterable[tuple[Dataset, str]]) -> Leak | None:
    """The samples of `split` that are among these splits, by the very bytes of their image or, within one dataset, by
    their id: labelled or painted anew it is still the same photograph."""
    sample_ids: list[str] = []
    by_hash: dict[bytes, list[int]] = {}
    for row, (sample_id, image_sha256) in enumerate(evaluated.identities(split)):
        sample_ids.append(sample_id)
        by_hash.setdefault(image_sha256, []).append(row)
    by_id = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    seen: dict[int, str] = {}
    for dataset, train_split in trained_on:
        same_name = dataset.manifest.dataset == evaluated.manifest.dataset
        version = "" if dataset.version == evaluated.version else f" of version {dataset.version[:8]}"
        for sample_id, image_sha256 in dataset.identities(train_split):
            rows = list(by_hash.get(image_sha256, ()))
            if same_name and sample_id in by_id:
                rows.append(by_id[sample_id])
            for row in rows:
                seen.setdefault(row, f"{train_split}/{sample_id}{version}")
    if not seen:
        return None
    return Leak(evaluated=len(sample_ids), split=split, seen={sample_ids[row]: seen[row] for row in sorted(seen)})
