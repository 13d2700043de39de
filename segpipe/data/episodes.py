"""Few-shot episodes: N classes, K support images of each, and queries that are none of them. Beside `loader.py`.

An episode is a pure function of (seed, epoch, index, dataset version); the protocol is that of Vinyals et al. 2016
(arXiv 1606.04080, section 4.1) as Shaban et al. 2017 (arXiv 1709.03410) brought it to segmentation: an image belongs to
a class when its labels hold it.

Legend: N ways (classes), K shots (support images of a class), Q queries of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segpipe.errors import InputError
from segpipe.shards import Dataset, generator, shuffled


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """What one episode is made of, as rows of the split for `Dataset.read`.

    `support[n]` are the K rows and `queries[n]` the Q rows of class `class_ids[n]`. No row comes twice.
    """

    class_ids: tuple[int, ...]
    support: tuple[tuple[int, ...], ...]
    queries: tuple[tuple[int, ...], ...]


class Episodes:
    """Draws N-way K-shot episodes over some classes of a split (the new classes of a fold, background left out).

    `least_pixels` is what an image must show of a class to count for it (Shaban et al. take any; PFENet, arXiv
    2008.01449, leaves out objects below 2 * 32 * 32). `rows_of` maps each class to its rows.

    Raises InputError for numbers below 1, a class that is none of the dataset or given twice, fewer classes than ways,
    and a class with fewer than K + Q images.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        class_ids: Sequence[int],
        ways: int,
        shots: int,
        queries: int = 1,
        least_pixels: int = 1,
    ) -> None:
        self.ways, self.shots, self.queries = ways, shots, queries
        self._version = dataset.version
        _check(dataset, class_ids, ways, shots, queries, least_pixels)
        pixels = dataset.class_pixels(split)
        self.rows_of = {
            k: tuple(row for row, held in enumerate(pixels) if held.get(k, 0) >= least_pixels)
            for k in sorted(class_ids)
        }
        for k, rows in self.rows_of.items():
            if len(rows) < shots + queries:
                raise InputError(
                    f"{dataset.uri}: class {k} ({dataset.manifest.classes[k].name}) is in {len(rows)} images of "
                    f"{split!r} with at least {least_pixels} pixels; an episode needs {shots} to learn from and "
                    f"{queries} to ask for: lower shots or queries, or leave the class out"
                )
        self._where = f"{dataset.uri}: {split!r}"

    def draw(self, index: int, *, seed: int, epoch: int = 0) -> Episode:
        """Episode number `index`. Raises InputError where the classes have too few images apart from common ones."""
        draw = generator(f"segpipe episode|{self._version}|{seed}|{epoch}|{index}")
        classes = shuffled(self.rows_of, draw)[: self.ways]
        needed = self.shots + self.queries
        wanted = {k: shuffled(self.rows_of[k], draw) for k in classes}
        taken = _assign(wanted, needed)
        if taken is None:
            raise InputError(
                f"{self._where}: classes {classes} are mostly in the same images: {needed} for each, none twice, are "
                "not there; lower ways, shots or queries"
            )
        return Episode(
            class_ids=tuple(classes),
            support=tuple(tuple(taken[k][: self.shots]) for k in classes),
            queries=tuple(tuple(taken[k][self.shots :]) for k in classes),
        )


def _check(dataset: Dataset, class_ids: Sequence[int], ways: int, shots: int, queries: int, least_pixels: int) -> None:
    for name, value in (("ways", ways), ("shots", shots), ("queries", queries), ("least_pixels", least_pixels)):
        if value < 1:
            raise InputError(f"episodes with {name} of {value}; expected at least 1")
    num_classes = len(dataset.manifest.classes)
    wrong = [k for k in class_ids if not 0 <= k < num_classes]
    if wrong or len(set(class_ids)) != len(class_ids):
        raise InputError(f"{dataset.uri}: class ids {list(class_ids)}; expected each once, from 0 to {num_classes - 1}")
    if len(class_ids) < ways:
        raise InputError(f"episodes of {ways} ways from {len(class_ids)} classes; give more classes or fewer ways")


def _assign(wanted: dict[int, list[int]], needed: int) -> dict[int, list[int]] | None:
    """`needed` rows for each class out of those that it wants, best liked first, none twice; None where that cannot be.

    Kuhn's augmenting paths: a class whose rows are taken asks their holders to change to others.
    """
    holder: dict[int, int] = {}  # row: class

    def give(k: int, asked: set[int]) -> bool:
        free = [row for row in wanted[k] if row not in holder]
        held = [row for row in wanted[k] if row in holder and holder[row] != k]
        for row in (*free[:1], *held):
            if row in asked:
                continue
            asked.add(row)
            if row not in holder or give(holder[row], asked):
                holder[row] = k
                return True
        return False

    for k in wanted:
        for _ in range(needed):
            if not give(k, set()):
                return None
    return {k: [row for row in rows if holder.get(row) == k] for k, rows in wanted.items()}
