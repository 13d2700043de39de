"""How label maps are best stored: bytes a map, and the time to decode one, for the encodings in question.

    SEGPIPE_DATA=... python benchmarks/masks.py [--rounds 5] [--json]

On real masks: CamVid (12 values), ADE20K (up to 151), Cityscapes' instance ids (16 bits), COCO's panoptic ids (as the
32-bit segment maps that ingest makes of them). `zstd 9 of raw ids` is what shards hold. Everything is decoded to an
array; the clock is process CPU time of one thread, medians over rounds in which the encodings take turns.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

Ids = npt.NDArray[Any]
Encode = Callable[[Ids], bytes]
Decode = Callable[[bytes, Ids], Ids]  # the array tells shape and type alone


def png(ids: Ids) -> bytes:
    stream = io.BytesIO()
    if ids.dtype == np.uint32:  # as COCO does: three channels
        channels = [(ids >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)]
        Image.fromarray(np.stack(channels, axis=2)).save(stream, "PNG", optimize=True)
    else:
        Image.fromarray(ids).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def from_png(data: bytes, like: Ids) -> Ids:
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    if like.dtype == np.uint32:
        return pixels.astype(np.uint32) @ np.array([1, 256, 65536], dtype=np.uint32)
    return pixels.astype(like.dtype)


def packed(codec: str, level: int | None) -> tuple[Encode, Decode]:
    coder = pa.Codec(codec, compression_level=level) if level else pa.Codec(codec)

    def decode(data: bytes, like: Ids) -> Ids:
        raw = pa.decompress(data, decompressed_size=like.nbytes, codec=codec, asbytes=True)
        return np.frombuffer(raw, like.dtype).reshape(like.shape)

    return lambda ids: coder.compress(ids.tobytes(), asbytes=True), decode


def run_lengths(ids: Ids) -> bytes:
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(np.append(starts, flat.size)).astype(np.uint32)
    return lengths.size.to_bytes(4, "little") + lengths.tobytes() + flat[starts].tobytes()


def from_run_lengths(data: bytes, like: Ids) -> Ids:
    count = int.from_bytes(data[:4], "little")
    lengths = np.frombuffer(data, np.uint32, count, 4)
    return np.repeat(np.frombuffer(data, like.dtype, count, 4 + 4 * count), lengths).reshape(like.shape)


STORED = "zstd 9 of raw ids"
ENCODINGS: dict[str, tuple[Encode, Decode]] = {
    "PNG": (png, from_png),
    "zstd 1 of raw ids": packed("zstd", 1),
    "zstd 3 of raw ids": packed("zstd", 3),
    STORED: packed("zstd", 9),
    "lz4 of raw ids": packed("lz4", None),
    "gzip of raw ids": packed("gzip", None),
    "run lengths": (run_lengths, from_run_lengths),
    "raw ids": (lambda ids: ids.tobytes(), lambda data, like: np.frombuffer(data, like.dtype).reshape(like.shape)),
}


def real_masks(data: Path) -> dict[str, list[Ids]]:
    """Masks by data set, those that are there."""
    found = {
        "CamVid": sorted((data / "camvid" / "trainannot").glob("*.png"))[:64],
        "ADE20K": sorted((data / "ade20k_sample" / "annotations").glob("*.png")),
        "Cityscapes instances": sorted((data / "cityscapes_sample" / "gtFine").glob("*instanceIds.png")),
        "COCO panoptic": sorted((data / "coco_panoptic_sample" / "panoptic_examples").glob("*.png")),
    }
    return {name: [read(path) for path in paths] for name, paths in found.items() if paths}


def read(path: Path) -> Ids:
    pixels = np.asarray(Image.open(path))
    if pixels.ndim == 3:
        return pixels.astype(np.uint32) @ np.array([1, 256, 65536], dtype=np.uint32)
    return pixels.astype(np.uint16) if pixels.dtype != np.uint8 else pixels


def seconds_a_map(decode: Decode, encoded: list[bytes], maps: list[Ids]) -> float:
    repeats = max(1, 64 // len(maps))
    started = time.process_time()
    for _ in range(repeats):
        for data, like in zip(encoded, maps, strict=True):
            decode(data, like)
    return (time.process_time() - started) / (repeats * len(maps))


def measure(name: str, maps: list[Ids], rounds: int) -> list[dict[str, Any]]:
    encoded = {encoding: [encode(ids) for ids in maps] for encoding, (encode, _) in ENCODINGS.items()}
    for encoding, (_, decode) in ENCODINGS.items():
        for data, ids in zip(encoded[encoding], maps, strict=True):
            assert np.array_equal(decode(data, ids), ids), f"{encoding} loses ids of {name}"
    times: dict[str, list[float]] = {encoding: [] for encoding in ENCODINGS}
    for _ in range(rounds):
        for encoding, (_, decode) in ENCODINGS.items():
            times[encoding].append(seconds_a_map(decode, encoded[encoding], maps))
    bytes_of = {encoding: statistics.mean(len(data) for data in encoded[encoding]) for encoding in ENCODINGS}
    return [
        {
            "data": name,
            "maps": len(maps),
            "encoding": encoding,
            "bytes": round(bytes_of[encoding]),
            "bytes_of_png": round(bytes_of[encoding] / bytes_of["PNG"], 2),
            "microseconds": round(statistics.median(times[encoding]) * 1e6, 1),
            "times_as_fast_as_png": round(statistics.median(times["PNG"]) / statistics.median(times[encoding]), 1),
        }
        for encoding in ENCODINGS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    masks = real_masks(Path(os.environ.get("SEGPIPE_DATA", "data")))
    if not masks:
        parser.error("no masks found: set SEGPIPE_DATA to the folder that holds camvid/, ade20k_sample/, ...")
    report = [row for name, maps in masks.items() for row in measure(name, maps, options.rounds)]
    if options.json:
        json.dump(report, sys.stdout)
        return
    for row in report:
        if row["encoding"] == "PNG":
            print(f"{row['data']}, {row['maps']} maps")
        mark = "  <- what shards hold" if row["encoding"] == STORED else ""
        print(
            f"  {row['encoding']:18} {row['bytes'] / 1024:8.2f} KiB ({row['bytes_of_png']:6.2f} of PNG)   "
            f"{row['microseconds']:8.1f} us ({row['times_as_fast_as_png']:5.1f}x PNG){mark}"
        )


if __name__ == "__main__":
    main()
