"""The contenders beside segpipe, for `input.py` and `ingest.py`: nothing here imports segpipe.

    python peers.py prepare NAME CAMVID STORE LIST...    prints process CPU seconds
    python peers.py read NAME CAMVID STORE WORKERS IMAGES COLOUR

Each is written as its documentation shows it. All of them read the same images as the same bytes, make the same random
crops with torchvision's decoders and v2 transforms, and are driven by a torch DataLoader: what differs is how bytes are
stored and found. `v2` ends in normalised float32, `v2, uint8` stops before that.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CROP, SCALE, FLIP, BATCH = (360, 480), (0.5, 2.0), 0.5, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHARD_BYTES = 64 << 20
LISTS = ["train"]  # what is written


def cpu_seconds() -> float:
    """Of this process, its threads, and its children, those that have ended and those that live (where /proc tells)."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) + _of_the_living(os.getpid())


def _of_the_living(pid: int) -> float:
    total = 0.0
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            try:
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended, and is counted among those
            ticks = sum(map(int, fields[11:15]))  # user and system, its own and its ended children's
            total += ticks / os.sysconf("SC_CLK_TCK") + _of_the_living(int(child))
    return total


def pairs(root: Path, name: str = "train") -> list[tuple[Path, Path]]:
    """(image, mask) of one of CamVid's lists, in the SegNet layout."""
    lines = (root / f"{name}.txt").read_text().splitlines()
    return [tuple(root / "/".join(path.split("/")[-2:]) for path in line.split()) for line in lines]  # type: ignore[misc]


def rows(root: Path) -> Iterator[dict[str, bytes]]:
    for image, mask in itertools.chain.from_iterable(pairs(root, name) for name in LISTS):
        yield {"image": image.read_bytes(), "mask": mask.read_bytes()}


def transforms(*, colour: float, uint8: bool) -> Callable[[bytes, bytes], tuple[Any, Any]]:
    """Encoded image and mask -> an augmented crop of each, by torchvision."""
    import torch
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    steps: list[Any] = [
        v2.ScaleJitter(CROP, scale_range=SCALE, antialias=True),
        v2.RandomCrop(CROP, pad_if_needed=True, fill={tv_tensors.Image: 124, tv_tensors.Mask: 255}),
        v2.RandomHorizontalFlip(FLIP),
    ]
    if colour:
        steps.append(v2.ColorJitter(colour, colour, colour))
    if not uint8:
        steps += [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose(steps)

    def apply(image: bytes, mask: bytes) -> tuple[Any, Any]:
        pixels = io.decode_image(torch.frombuffer(bytearray(image), dtype=torch.uint8), io.ImageReadMode.RGB)
        labels = io.decode_image(torch.frombuffer(bytearray(mask), dtype=torch.uint8))
        found: tuple[Any, Any] = transform(tv_tensors.Image(pixels), tv_tensors.Mask(labels))
        return found

    return apply


class Files:
    """A map-style dataset over single files: what every tutorial begins with."""

    def __init__(self, root: Path, apply: Callable[[bytes, bytes], tuple[Any, Any]]) -> None:
        self.pairs, self.apply = pairs(root), apply

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, mask = self.pairs[index]
        return self.apply(image.read_bytes(), mask.read_bytes())


def files(root: Path, store: Path, workers: int, colour: float, *, uint8: bool = False) -> Iterable[Any]:
    return loader(Files(root, transforms(colour=colour, uint8=uint8)), workers, shuffle=True)


def files_uint8(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    return files(root, store, workers, colour, uint8=True)


def loader(dataset: Any, workers: int, **options: Any) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    context = "fork" if workers else None
    return DataLoader(
        dataset,
        BATCH,
        num_workers=workers,
        drop_last=True,
        multiprocessing_context=context,
        persistent_workers=workers > 0,
        **options,
    )


def write_webdataset(root: Path, store: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(str(store / "%06d.tar"), maxsize=SHARD_BYTES, verbose=0) as writer:
        for number, row in enumerate(rows(root)):
            writer.write({"__key__": f"{number:06d}", "jpg": row["image"], "png": row["mask"]})


def read_webdataset(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    import webdataset

    apply = transforms(colour=colour, uint8=True)
    shards = sorted(str(path) for path in store.glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=False, workersplitter=lambda urls: urls, empty_check=False)
    return loader(dataset.shuffle(200).map(lambda row: apply(row["jpg"], row["png"])), workers)


def write_mosaic(root: Path, store: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(store), columns={"image": "bytes", "mask": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for row in rows(root):
            writer.write(row)


def read_mosaic(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    from streaming import StreamingDataset

    apply = transforms(colour=colour, uint8=True)

    class Crops(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return apply(row["image"], row["mask"])

    return loader(Crops(local=str(store), shuffle=True, batch_size=BATCH), workers)


def read_bytes_of(pair: tuple[Path, Path]) -> dict[str, bytes]:
    return {"image": pair[0].read_bytes(), "mask": pair[1].read_bytes()}


def write_litdata(root: Path, store: Path) -> None:
    import litdata

    inputs = [pair for name in LISTS for pair in pairs(root, name)]
    litdata.optimize(read_bytes_of, inputs, output_dir=str(store), chunk_bytes=SHARD_BYTES, num_workers=1)


def read_litdata(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    import litdata

    apply = transforms(colour=colour, uint8=True)

    class Crops(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return apply(row["image"], row["mask"])

    dataset = Crops(str(store), shuffle=True)
    return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, drop_last=True)  # type: ignore[no-any-return]


def write_huggingface(root: Path, store: Path) -> None:
    import datasets

    datasets.Dataset.from_list(list(rows(root))).save_to_disk(str(store), max_shard_size=SHARD_BYTES)


def read_huggingface(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    import datasets

    apply = transforms(colour=colour, uint8=True)

    def crops(batch: dict[str, list[bytes]]) -> dict[str, list[Any]]:
        made = [apply(image, mask) for image, mask in zip(batch["image"], batch["mask"], strict=True)]
        return {"image": [image for image, _ in made], "mask": [mask for _, mask in made]}

    dataset = datasets.load_from_disk(str(store)).with_transform(crops)
    return loader(dataset, workers, shuffle=True)


def read_nothing(root: Path, store: Path, workers: int, colour: float) -> Iterable[Any]:
    """libjpeg-turbo itself and nothing else: what no reader of JPEG can be faster than."""
    import simplejpeg

    encoded = [image.read_bytes() for image, _ in pairs(root)]
    for at in itertools.count(step=BATCH):
        for number in range(at, at + BATCH):
            simplejpeg.decode_jpeg(encoded[number % len(encoded)], colorspace="RGB")
        yield None


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "webdataset": write_webdataset,
    "mosaicml": write_mosaic,
    "litdata": write_litdata,
    "hugging face": write_huggingface,
}
READERS: dict[str, Callable[[Path, Path, int, float], Iterable[Any]]] = {
    "files, v2": files,
    "files, v2, uint8": files_uint8,
    "webdataset": read_webdataset,
    "mosaicml": read_mosaic,
    "litdata": read_litdata,
    "hugging face": read_huggingface,
    "decode only": read_nothing,
}


def batches(make: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Epoch after epoch of the same loader."""
    source = make()
    while True:
        yield from source


def measure(batches_of: Iterator[Any], images: int) -> float:
    """CPU seconds for `images`, of a loader that has made a third as many before: its start is not counted, and what it
    has ready at either end is the same."""
    import torch

    torch.set_num_threads(1)
    for _ in range(images // BATCH // 3):
        next(batches_of)
    started = cpu_seconds()
    for _ in range(images // BATCH):
        next(batches_of)
    return cpu_seconds() - started


def main() -> None:
    command, name, root, store = sys.argv[1:5]
    Path(store).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_HOME", tempfile.gettempdir())
    if command == "prepare":
        LISTS[:] = sys.argv[5:] or LISTS
        with tempfile.TemporaryDirectory() as warm:  # once in vain: importing a library is not writing
            WRITERS[name](Path(root), Path(warm))
        started = cpu_seconds()
        WRITERS[name](Path(root), Path(store))
        print(cpu_seconds() - started)
    else:
        workers, images, colour = int(sys.argv[5]), int(sys.argv[6]), float(sys.argv[7])
        print(measure(batches(lambda: READERS[name](Path(root), Path(store), workers, colour)), images))


if __name__ == "__main__":
    main()
