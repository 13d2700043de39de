"""The parallel half of ingest: parts of a listing -> shards, by a process a core or by tasks over a Ray cluster.

Called by `ingest.py`, which cuts the listing into parts and publishes what comes back. A worker process imports this
file alone, so nothing heavy stands here.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

from segpipe import masks, storage
from segpipe.cores import ray_address, usable_cores
from segpipe.errors import BadSampleError, ConflictError, CorruptError, SegpipeError
from segpipe.shards import ShardResult, write_shard
from segpipe.sources import open_source
from segpipe.types import Annotation, ImageLook, QuarantineEntry, Sample, SampleRef

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The samples of one shard: what a worker needs to write it, picklable. `keeps` are the annotations that all of the
    dataset's sources fill."""

    format: str
    root: str
    options: dict[str, Any]
    refs: tuple[SampleRef, ...]
    split: str
    to: str
    keeps: tuple[Annotation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a worker made of a part; `looks` are in row order."""

    split: str
    result: ShardResult
    looks: tuple[ImageLook, ...]
    refused: tuple[QuarantineEntry, ...]


def write_part(part: Part) -> Written:
    """Reads one part's samples and writes its shard. Runs in a worker process or on another node.

    Raises CorruptError when a damaged file stands in the shard's place.
    """
    source = open_source(part.format, part.root, part.options)
    refused: list[QuarantineEntry] = []
    looks: list[ImageLook] = []

    def samples() -> Iterator[Sample]:
        for ref in part.refs:
            try:
                sample = _with(part.keeps, source.read(ref))
                # The one full decode of an image, for every source alike.
                look = masks.check_image(sample.image, file=ref.files[0] if ref.files else ref.sample_id)
            except BadSampleError as error:
                item = error.item or ref.sample_id
                refused.append(QuarantineEntry(file=error.file, item=item, reason=error.reason, detail=error.detail))
                continue
            looks.append(look)
            yield sample

    try:
        result = write_shard(samples(), part.to, part.split)
    except ConflictError as error:
        raise _explained(error, part, samples()) from error
    return Written(split=part.split, result=result, looks=tuple(looks), refused=tuple(refused))


def _with(keeps: tuple[Annotation, ...], sample: Sample) -> Sample:
    """The sample without what the version does not say of each of its samples: to be without is not to have none."""
    if Annotation.LABEL_MAP not in keeps and sample.label_map is not None:
        sample = replace(sample, label_map=None)
    if Annotation.SEGMENTS not in keeps and (sample.segments or sample.segment_map is not None):
        sample = replace(sample, segments=(), segment_map=None)
    if Annotation.KEYPOINTS not in keeps and sample.keypoints:
        sample = replace(sample, keypoints=())
    return sample


def _explained(error: ConflictError, part: Part, samples: Iterator[Sample]) -> SegpipeError:
    """A shard is named by its content: what stands under its name with other bytes is damaged, and nobody's work.

    Which file that is, is learnt by writing the shard once more, elsewhere.
    """
    with storage.scratch() as folder:
        shard = write_shard(samples, str(folder), part.split).shard
    if shard is None:
        return error  # the source has lost its files meanwhile
    file = storage.join(part.to, shard.path)
    return CorruptError(
        f"{file}: is damaged: sha256 {storage.sha256_file(file)[:12]}, its name says {shard.sha256[:12]}. Delete this "
        "file and ingest again: it is written anew, and nothing else changes"
    )


def write_all(parts: Sequence[Part], on_progress: Progress | None) -> list[Written]:
    """All parts' shards, in the order of `parts`, whoever wrote them. Tells of progress from 0 on."""

    def advance(done: int) -> None:
        if on_progress is not None:
            on_progress(sum(len(part.refs) for part in parts[:done]), sum(len(part.refs) for part in parts))

    advance(0)  # the workers take seconds to start
    if ray_address() != "local":
        from segpipe.train import on_ray  # ray costs seconds to import, and one machine does not need it here

        on_ray.connect()
        return on_ray.fan_out(write_part, parts, on_done=advance)
    workers = min(len(parts), usable_cores())
    if workers == 1:
        written = []
        for part in parts:
            written.append(write_part(part))
            advance(len(written))
        return written
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
            futures = [pool.submit(write_part, part) for part in parts]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    advance(done)
            except BaseException:  # Ctrl-C, a full disk: what has not begun need not fail one by one
                pool.shutdown(cancel_futures=True)
                raise
            return [future.result() for future in futures]
    except BrokenProcessPool:
        raise SegpipeError(
            "a process that was writing shards died, and nothing was published: killed, out of memory, or started from "
            'a script without `if __name__ == "__main__":`. See to that and run the same again'
        ) from None


def end_with_parent() -> None:
    """In a worker process, first of all: ends this one when the one that started it is gone, however it went.

    A killed parent cannot tell its workers, and they would wait for their next piece of work for ever, each with its
    memory and a temporary folder that looks as if somebody was at work in it.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
