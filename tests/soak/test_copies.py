"""Row A11: the same image or the same group in two splits is found and reported, and so are copies encoded again."""

import io
import itertools
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.stages.ingest import ingest
from tests.fixtures.ingest_worker import CLASS_NAMES, streets
from tests.fixtures.pictures import label_blocks, png
from tests.fixtures.trials import Trials

WHOLE, COPIES, FOUND = 200, 100, 0.95
SIZE = (96, 128)


@pytest.mark.usefixtures("one_core")
def test_the_same_bytes_or_the_same_group_in_two_splits_are_reported(trials: Trials, tmp_path: Path) -> None:
    names = {split: [f"{split}_{number}" for number in range(4)] for split in ("test", "train", "val")}
    source = tmp_path / "source"
    write(source, {name: picture(n) for n, name in enumerate(itertools.chain(*names.values()))}, names)

    def trial(number: int) -> None:
        chance = random.Random(number)
        root = Path(shutil.copytree(source, tmp_path / f"root{number}"))
        first, second = sorted(chance.sample(sorted(names), 2))
        here, there = chance.choice(names[first]), chance.choice(names[second])
        if number % 2:
            shutil.copy(root / "images" / f"{here}.png", root / "images" / f"{there}.png")
            config = streets(root)
            said = (
                rf"the same image is in several splits: {'='.join(sorted((f'{first}/{here}', f'{second}/{there}')))};"
            )
        else:
            for tree in ("images", "masks"):
                shutil.move(root / tree / f"{there}.png", root / tree / f"{there}_of_{here}.png")
            listed = root / "splits" / f"{second}.txt"
            listed.write_text(listed.read_text().replace(there, f"{there}_of_{here}"))
            # Each name is a group of its own, but for these two.
            config = streets(root, options={"group_pattern": rf"({here}$|(?!.*{here}).*)"})
            said = rf"the same group is in several splits: {here} \({first} 1, {second} 1\)"
        warnings = ingest(config, to=str(tmp_path / f"to{number}")).warnings
        assert [text for text in warnings if re.match(said, text)], (said, warnings)

    trials.run("A11", WHOLE, trial)


@pytest.mark.usefixtures("one_core")
def test_copies_that_were_encoded_again_or_scaled_are_reported(trials: Trials, tmp_path: Path) -> None:
    """Of all copies in one dataset at least 95 of 100, and no pair of images that are no copies."""
    count = trials.share(COPIES)
    root = tmp_path / "root"
    images: dict[str, Image.Image] = {}
    for number in range(count):
        chance, image = random.Random(number), picture(number)
        size = [round(side * chance.uniform(0.5, 1.5)) for side in image.size] if number % 2 else image.size
        copy = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        data = encoded(copy, "JPEG", quality=chance.randint(40, 95))
        images |= {f"a_{number:03d}": image, f"b_{number:03d}": Image.open(io.BytesIO(data))}
    write(
        root,
        images,
        {split: [n for n in images if n[0] == letter] for split, letter in (("train", "a"), ("test", "b"))},
    )

    def trial(_: int) -> None:
        warnings = ingest(streets(root), to=str(tmp_path / "to")).warnings
        (warning,) = (text for text in warnings if "look like one of another split" in text)
        assert FOUND * count <= int(warning.split()[0]) <= count, warning
        assert all(pair[0][-3:] == pair[1][-3:] for pair in re.findall(r"test/b_(\d+)~train/a_(\d+)", warning))

    trials.run("A11", [0], trial, each=count)


def write(root: Path, images: Mapping[str, Image.Image], splits: Mapping[str, Sequence[str]]) -> None:
    """A folder dataset of these images by name, as PNG, with masks of stripes and split lists."""
    for folder in ("images", "masks", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES))
    for name, image in images.items():
        (root / "images" / f"{name}.png").write_bytes(encoded(image, "PNG"))
        labels = label_blocks(image.height, image.width, len(CLASS_NAMES))
        (root / "masks" / f"{name}.png").write_bytes(png(labels))
    for split, listed in splits.items():
        (root / "splits" / f"{split}.txt").write_text("\n".join(listed))


def picture(number: int) -> Image.Image:
    """Blobs of colour and shade, different for each number, with the noise of a camera."""
    chance = np.random.default_rng(number)
    coarse = Image.fromarray(chance.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + chance.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
