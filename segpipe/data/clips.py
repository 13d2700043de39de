"""Short runs of frames from the clips of a split, for tasks over video. Beside `loader.py`, on the same reader.

What is drawn is a pure function of (seed, epoch, clip id): a resume, another worker or another order of the clips
changes nothing.

Legend: T frames of a drawn run.
"""

from __future__ import annotations

from collections.abc import Mapping

from segpipe.errors import InputError
from segpipe.shards import Dataset, generator, shuffled
from segpipe.types import Sample


class Clips:
    """The clips of a split, from which runs of `frames` (T) frames are drawn, `stride` frames apart.

    `rows` maps each clip id, in the stored order, to its rows of the split in frame order. The stride counts stored
    frames, so a set of which every fifth frame is annotated and stored moves five frames a step. `too_short` are the
    clips left out because they have fewer than (T - 1) * stride + 1 frames.

    Raises InputError for T or stride below 1, for a split in which no clip is long enough, and for a frame index that
    a clip has twice.
    """

    def __init__(self, dataset: Dataset, split: str, *, frames: int, stride: int = 1) -> None:
        if frames < 1 or stride < 1:
            raise InputError(f"clips of {frames} frames, {stride} apart; expected both to be at least 1")
        self.frames, self.stride = frames, stride
        self._dataset, self._split = dataset, split
        found = _rows_of_clips(dataset, split)
        self._span = (frames - 1) * stride + 1
        self.rows: Mapping[str, tuple[int, ...]] = {c: rows for c, rows in found.items() if len(rows) >= self._span}
        self.too_short = tuple(clip for clip in found if clip not in self.rows)
        if not self.rows:
            longest = max(map(len, found.values()), default=0)
            raise InputError(
                f"{dataset.uri}: {split!r} has {len(found)} clips, the longest of {longest} frames; {frames} frames "
                f"{stride} apart need {self._span}: ask for fewer, or ingest a source with clips"
            )

    def order(self, *, seed: int, epoch: int) -> list[str]:
        """Every clip that is long enough once, shuffled: a pure function of seed, epoch and dataset version."""
        return shuffled(self.rows, generator(f"segpipe clip|{seed}|{epoch}|order|{self._dataset.version}"))

    def draw(self, clip_id: str, *, seed: int, epoch: int) -> tuple[int, ...]:
        """The T rows of a run in frame order, its beginning drawn evenly. Raises InputError for an unknown clip."""
        if clip_id not in self.rows:
            why = "has too few frames" if clip_id in self.too_short else "is not there"
            raise InputError(f"{self._dataset.uri}: clip {clip_id!r} of {self._split!r} {why}; choose one of `rows`")
        rows = self.rows[clip_id]
        # `random()` keeps its sequence over the versions of Python, `randrange` does not promise to.
        first = int(generator(f"segpipe clip|{seed}|{epoch}|{clip_id}").random() * (len(rows) - self._span + 1))
        return rows[first : first + self._span : self.stride]

    def read(self, clip_id: str, *, seed: int, epoch: int) -> list[Sample]:
        """The samples of `draw`, in frame order. Raises as `Dataset.read`."""
        return list(self._dataset.read(self._split, self.draw(clip_id, seed=seed, epoch=epoch)))


def _rows_of_clips(dataset: Dataset, split: str) -> dict[str, tuple[int, ...]]:
    """The rows of each clip in frame order; frames without a number keep the stored order."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row, (clip, frame) in enumerate(dataset.frames(split)):
        if clip is not None:
            found.setdefault(clip, []).append((row if frame is None else frame, row))
    for clip, frames in found.items():
        numbers = [number for number, _ in frames]
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in sorted(numbers) if numbers.count(number) > 1)
            raise InputError(f"{dataset.uri}: clip {clip!r} of {split!r} has frame {twice} twice; mend the source")
    return {clip: tuple(row for _, row in sorted(frames)) for clip, frames in found.items()}
