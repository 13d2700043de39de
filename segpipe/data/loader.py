"""The two ways through a dataset: shuffled crops for training, whole images exactly once for evaluation.

Both are pure functions of few integers. Training: (seed, epoch, position) decides every global batch, which is cut over
ranks afterwards, so a resume or another number of workers meets the same global batches. Evaluation: the batches are
fixed first and dealt to ranks second, so every image meets the same neighbours for any number of workers.

Unpacking, decoding and augmenting run in threads (all leave Python's lock), a few batches ahead; what they need is read
further ahead, by the reader's own threads. A thread takes a part of a batch through one step after the other: the code
of a step is then at hand in the core's cache, where decoding a JPEG between any two would drive it out. Each image is
laid into its batch as soon as it is made, for the same reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice

import torch
from torch import Tensor

from segpipe.config import TrainConfig
from segpipe.data.annotated import annotated
from segpipe.data.augment import augment
from segpipe.data.batch import Batch, collate, laid
from segpipe.data.copy_paste import pasteable, unfit
from segpipe.data.decode import DecodedSample, decode
from segpipe.data.objects import wanted
from segpipe.errors import CorruptError, InputError
from segpipe.shards import Dataset, StoredRow
from segpipe.types import Sample

_BATCHES_AHEAD = 3
# Decoded at once by a thread: 8 of CamVid's size are made in nine tenths of the time that one by one takes. Large
# photographs gain nothing and fill the memory, hence the bound on pixels.
_TOGETHER, _PIXELS_TOGETHER = 8, 4_000_000


class TrainBatches:
    """The micro-batches of one rank. `batch_size` images make a global micro-batch; the incomplete last one is dropped.

    With `objects`, a crop has the things and crowds that it shows, and with `keypoints` theirs, too: where nobody asks
    for them, no mirror image has to exchange left and right. Raises InputError when the batch does not divide over the
    ranks, the split is smaller than one batch, or there is nothing to copy and paste.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        *,
        rank: int,
        world_size: int,
        objects: bool = False,
        keypoints: bool = False,
    ) -> None:
        if config.batch_size % world_size:
            raise InputError(
                f"train.batch_size is {config.batch_size}, which does not divide over {world_size} workers; "
                f"choose a multiple of {world_size}"
            )
        samples = dataset.rows(config.train_split)
        self.micro_batches = config.steps_per_epoch(samples) * config.accumulate
        if not self.micro_batches:
            needed = config.batch_size * config.accumulate
            raise InputError(
                f"{dataset.uri}: split {config.train_split!r} has {samples} samples, and one step needs {needed} "
                "(train.batch_size x train.accumulate); lower them"
            )
        fault = unfit(dataset.manifest.annotations, dataset.manifest.classes) if config.augment.copy_paste else None
        if fault:
            raise InputError(f"dataset {dataset.uri} {fault}")
        self._dataset, self._config, self._objects, self._keypoints = dataset, config, objects, keypoints
        self._rank, self._world_size = rank, world_size

    def sample_ids(self, epoch: int, position: int) -> list[str]:
        """The ids of global micro-batch `position`, over all ranks."""
        size = self._config.batch_size
        ids = self._dataset.sample_ids(self._config.train_split)
        return [ids[row] for row in self._order(epoch)[position * size : (position + 1) * size]]

    def rows(self, epoch: int, *, start: int = 0) -> list[int]:
        """The rows of the split that this rank meets in an epoch, in order, from global micro-batch `start` on."""
        order = self._order(epoch)
        return [order[place] for place in self._places(start)]

    def epoch(self, epoch: int, *, start: int = 0) -> Generator[Batch]:
        """This rank's micro-batches of an epoch, from global micro-batch `start` on. Closing it ends its threads."""
        config, share = self._config, self._config.batch_size // self._world_size
        order = self._order(epoch)

        def crop(sample: Sample, decoded: DecodedSample, place: int) -> DecodedSample:
            return augment(
                decoded,
                config.augment,
                input_scale=config.input_scale,
                seed=config.seed,
                epoch=epoch,
                ignore_index=self._dataset.manifest.ignore_index,
                source=self._needed(sample) if self._objects else None,
                partner=lambda: self._partner(order, place),
            )

        def prepare(rows: Sequence[StoredRow], places: Sequence[int]) -> Iterator[DecodedSample]:
            samples = [annotated(row.sample(), self._dataset, config.train_split) for row in rows]
            return map(crop, samples, [decode(sample) for sample in samples], places)

        shapes = [(share, *config.augment.crop)] * (self.micro_batches - start)
        places = self._places(start)
        rows = self._dataset.stored(config.train_split, [order[place] for place in places], extras=False)
        return _in_threads(rows, places, shapes, prepare, threads=config.loader_threads)

    def _places(self, start: int) -> list[int]:
        """Where in an epoch's order this rank's samples stand, from global micro-batch `start` on."""
        size, share = self._config.batch_size, self._config.batch_size // self._world_size
        firsts = range(start * size + self._rank * share, self.micro_batches * size, size)
        return [place for first in firsts for place in range(first, first + share)]

    def _partner(self, order: list[int], place: int) -> Sample:
        """Whose objects may be pasted onto the sample at a place of an epoch: those of the one before it.

        That one lies in a row group which is in use, so it costs no reading, and most often in another than its own:
        the rows of a group may be frames of one drive.
        """
        row = order[place - 1] if place else order[min(1, len(order) - 1)]
        sample = self._dataset.one(self._config.train_split, row, extras=False)
        sample = annotated(sample, self._dataset, self._config.train_split)
        return pasteable(self._needed(sample), self._dataset.manifest.classes)

    def _needed(self, sample: Sample) -> Sample:
        return wanted(sample, self._dataset.manifest.classes, with_keypoints=self._keypoints)

    def _order(self, epoch: int) -> list[int]:
        return self._dataset.order(self._config.train_split, seed=self._config.seed, epoch=epoch)


class EvalBatches:
    """This rank's share of the whole images of a split, each exactly once over all ranks.

    Images that follow each other and are equal in size share a batch of at most `batch_size`. The batches of a rank
    follow each other, too, so that it fetches the shards of its share and no others.
    """

    def __init__(self, dataset: Dataset, split: str, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if split not in dataset.manifest.splits:
            known = ", ".join(dataset.manifest.splits)
            raise InputError(f"{dataset.uri}: has no split {split!r}; it has: {known}")
        runs: list[list[int]] = []
        self._sizes = dataset.sizes(split)
        for _, run in groupby(enumerate(self._sizes), key=lambda item: item[1]):
            rows = [row for row, _ in run]
            runs.extend(rows[at : at + batch_size] for at in range(0, len(rows), batch_size))
        self._batches = runs[len(runs) * rank // world_size : len(runs) * (rank + 1) // world_size]
        self._dataset, self._split = dataset, split

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        numbers = [row for batch in self._batches for row in batch]
        shapes = [(len(batch), *self._sizes[batch[0]]) for batch in self._batches]
        rows = self._dataset.stored(self._split, numbers, extras=False)
        return _in_threads(rows, numbers, shapes, self._prepare, threads=2)

    def _prepare(self, rows: Sequence[StoredRow], numbers: Sequence[int]) -> Iterator[DecodedSample]:
        """Whole images. Their sizes were looked up before their shards were hashed."""
        samples = [annotated(row.sample(), self._dataset, self._split) for row in rows]
        for sample, number in zip(samples, numbers, strict=True):
            if (sample.height, sample.width) != self._sizes[number]:
                raise CorruptError(
                    f"{self._dataset.uri}: {self._split} {sample.sample_id!r} is {sample.height} x {sample.width}, and "
                    f"was {self._sizes[number]} when it was looked up; check the network and the store, and run again"
                )
        return map(decode, samples)


def _in_threads(
    rows: Generator[StoredRow],
    places: Sequence[int],
    shapes: Sequence[tuple[int, int, int]],
    prepare: Callable[[Sequence[StoredRow], Sequence[int]], Iterator[DecodedSample]],
    *,
    threads: int,
) -> Generator[Batch]:
    """Cuts `rows`, each at its place, into batches of `shapes` (number of images, height, width); they are prepared a
    few batches ahead in threads, in order. Closes `rows`."""
    waiting: deque[tuple[Tensor, list[Future[list[DecodedSample]]]]] = deque()
    items = zip(rows, places, strict=True)
    largest = max((number for number, _, _ in shapes), default=1)
    most = max(1, _BATCHES_AHEAD * largest // threads)  # or some thread would find nothing to do

    def work(part: Sequence[tuple[StoredRow, int]], images_NHW3: Tensor) -> list[DecodedSample]:
        part_rows, part_places = zip(*part, strict=True)
        return [laid(*each) for each in zip(prepare(part_rows, part_places), images_NHW3, strict=True)]

    with ThreadPoolExecutor(threads, thread_name_prefix="segpipe-loader") as pool:
        try:
            for shape in shapes:
                with torch.inference_mode(False):  # which may be on here, and is off in the threads that fill it
                    images_NHW3 = torch.empty((*shape, 3), dtype=torch.uint8)
                parts = _parts(list(islice(items, shape[0])), min(_TOGETHER, most))
                shares = torch.split(images_NHW3, [len(part) for part in parts])
                waiting.append((images_NHW3, [pool.submit(work, *each) for each in zip(parts, shares, strict=True)]))
                if len(waiting) > _BATCHES_AHEAD:
                    yield _collected(*waiting.popleft())
            while waiting:
                yield _collected(*waiting.popleft())
        finally:
            for future in (f for _, batch in waiting for f in batch):
                future.cancel()
            rows.close()


def _collected(images_NHW3: Tensor, parts: Sequence[Future[list[DecodedSample]]]) -> Batch:
    samples = [sample for part in parts for sample in part.result()]
    return collate(samples, images_N3HW=images_NHW3.permute(0, 3, 1, 2))


def _parts(batch: Sequence[tuple[StoredRow, int]], most: int) -> list[list[tuple[StoredRow, int]]]:
    """A batch in parts of at most `most` images and `_PIXELS_TOGETHER`, but of one image at the least."""
    parts: list[list[tuple[StoredRow, int]]] = []
    pixels = 0
    for item in batch:
        pixels += item[0].pixels
        if not parts or len(parts[-1]) == most or pixels > _PIXELS_TOGETHER:
            parts.append([])
            pixels = item[0].pixels
        parts[-1].append(item)
    return parts
