"""What a dataset version is like: sizes, colours, classes, objects; and what that proposes for a recipe.

Written by `ingest.py` beside the manifest, read by `inspect.py`. It is not part of the version: another decoder may see
other colours in the same JPEG. All stored numbers are sums, so that shards add up in any order.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segpipe import drift, reports, storage
from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.stages.numbers import counted
from segpipe.stages.parts import Written
from segpipe.types import Fingerprint, Manifest, SplitFingerprint

# DeepLabv3's crop and batch (arXiv 1706.05587, section 4) to the nearest multiple of the stride; smaller crops, more.
_CROP_SIDE, _BATCH_PIXELS = 512, 16 * 512 * 512
_STRIDE = 32
_MOST, _STEPS = 32, 8  # images in a batch, where there are enough of them to make so many steps an epoch
_RARE = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Keys of a recipe's `train` as the data suggests them, with the reason of each. A person may know better."""

    values: Mapping[str, Any]
    reasons: Mapping[str, str]


def uri_of(dataset_uri: str, version: str) -> str:
    """Where the fingerprint of a version lies."""
    return storage.join(dataset_uri, "fingerprints", f"{version}.json")


def make(version: str, written: Sequence[Written], num_classes: int) -> Fingerprint:
    """The fingerprint of a version from what its parts counted, still without warnings."""
    names = sorted({part.split for part in written})
    splits = {name: _split([part for part in written if part.split == name], num_classes) for name in names}
    return Fingerprint(dataset_version=version, splits=splits, warnings=())


def keep(fingerprint: Fingerprint, dataset_uri: str) -> None:
    """Writes it down, unless a whole one is there: another host's, whose decoder may have seen other colours."""
    if not is_whole(dataset_uri, fingerprint.dataset_version):
        with contextlib.suppress(ConflictError):
            uri = uri_of(dataset_uri, fingerprint.dataset_version)
            storage.write_json_once(uri, reports.to_plain(fingerprint))


def load(dataset_uri: str, version: str) -> Fingerprint:
    """The fingerprint of a version. Raises InputError where there is none, CorruptError where it is damaged."""
    uri = uri_of(dataset_uri, version)
    if not storage.exists(uri):
        raise InputError(f"{uri}: this version has no fingerprint beside it; ingest its source again to write one")
    found = reports.from_plain(Fingerprint, storage.read_json(uri), origin=uri)
    if found.dataset_version != version:
        raise CorruptError(f"{uri}: is that of version {found.dataset_version[:12]}; remove it and ingest again")
    return found


def is_whole(dataset_uri: str, version: str) -> bool:
    """Whether `load` would give one with all that is counted today; any other is removed, so that it can be written
    again."""
    try:
        found = load(dataset_uri, version)
    except InputError:
        return False
    except CorruptError:
        found = None
    if found is None or any(None in (split.looks, split.looks_by_group) for split in found.splits.values()):
        storage.delete(uri_of(dataset_uri, version))
        return False
    return True


def usual_size(sizes: Mapping[str, int]) -> str:
    """The most frequent of some sizes "WIDTHxHEIGHT"."""
    return max(sizes, key=lambda size: (sizes[size], size))


def mean_and_std(split: SplitFingerprint) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue in 0..1, over all pixels."""
    means = [total / split.pixels for total in split.rgb_sum]
    squares = [total / split.pixels for total in split.rgb_square_sum]
    spread = [math.sqrt(max(0.0, square - mean**2)) for mean, square in zip(means, squares, strict=True)]
    return tuple(mean / 255 for mean in means), tuple(each / 255 for each in spread)


def propose(manifest: Manifest, fingerprint: Fingerprint) -> Proposal:
    """Crop, batch and class weights from the training split (the largest one where none is called train)."""
    name = "train" if "train" in manifest.splits else max(manifest.splits, key=lambda n: manifest.splits[n].samples)
    split = fingerprint.splits[name]
    width, height = _typical_size(split.sizes)
    crop = (_crop_side(height), _crop_side(width))
    batch, why_batch = _batch(split.images, crop[0] * crop[1])
    values: dict[str, Any] = {"augment.crop": list(crop), "batch_size": batch, "class_weights": "none"}
    reasons = {
        "augment.crop": f"the typical image has {width}x{height} pixels; multiples of {_STRIDE}, at most {_CROP_SIDE}",
        "batch_size": why_batch,
        "class_weights": "no class is rare" if any(manifest.splits[name].class_pixels) else "no label map to count",
    }
    pixels = [count for count in manifest.splits[name].class_pixels if count]
    if pixels and max(pixels) / min(pixels) > _RARE:
        values |= {"class_weights": "enet", "class_weight_power": 0.5}
        why = f"the most common class has {max(pixels) / min(pixels):.0f} times the pixels of the rarest"
        reasons |= {"class_weights": why, "class_weight_power": "full weights trade common classes for rare ones"}
    return Proposal(values=values, reasons=reasons)


def _batch(images: int, crop_pixels: int) -> tuple[int, str]:
    """A power of two, which divides over any usual number of workers, and why it is this one.

    Of few images it takes small batches: one that holds most of them makes a step or two of an epoch, and leaves out
    whatever does not fill another.
    """
    by_pixels = max(2, min(_MOST, _power_of_two(_BATCH_PIXELS // crop_pixels)))
    by_images = max(2, _power_of_two(images // _STEPS))
    batch = min(by_pixels, by_images, max(1, images))
    if batch == by_pixels:
        return batch, f"a power of two, {batch * crop_pixels / 1e6:.1f} megapixels a step; less on a small GPU"
    steps = counted(images // batch, "step") if images else "no step"
    return batch, f"a power of two; {steps} in an epoch of {counted(images, 'training image')}"


def _power_of_two(number: int) -> int:
    """The largest one that is not above `number`, 1 at least."""
    return 1 << max(0, number.bit_length() - 1)


def _split(parts: Sequence[Written], num_classes: int) -> SplitFingerprint:
    sizes, images, objects = Counter[str](), Counter[int](), Counter[int]()
    for part in parts:
        sizes.update(part.result.sizes)
        images.update(dict(part.result.images_of_class))
        objects.update(dict(part.result.objects_of_class))
    looks = [look for part in parts for look in part.looks]
    groups = [group for part in parts for group in part.result.groups]
    levels = [drift.of_look(look) for look in looks]
    return SplitFingerprint(
        images=sizes.total(),
        pixels=sum(math.prod(map(int, size.split("x"))) * count for size, count in sizes.items()),
        sizes=dict(sorted(sizes.items())),
        rgb_sum=_added([look.rgb_sum for look in looks]),
        rgb_square_sum=_added([look.rgb_square_sum for look in looks]),
        images_of_class=tuple(images[k] for k in range(num_classes)),
        objects_of_class=tuple(objects[k] for k in range(num_classes)),
        objects_by_size=_added([part.result.objects_by_size for part in parts]),
        crowds=sum(part.result.crowds for part in parts),
        looks=drift.counted(levels),
        looks_by_group=drift.counted_by_group(zip(groups, levels, strict=True)),
    )


def _added(triples: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    return sum(t[0] for t in triples), sum(t[1] for t in triples), sum(t[2] for t in triples)


def _typical_size(sizes: Mapping[str, int]) -> tuple[int, int]:
    """The median width and the median height of the images."""
    found = [(*map(int, size.split("x")), count) for size, count in sizes.items()]
    return _median([(width, count) for width, _, count in found]), _median([(height, n) for _, height, n in found])


def _median(counted: Sequence[tuple[int, int]]) -> int:
    half, seen = sum(count for _, count in counted) / 2, 0
    for value, count in sorted(counted):
        seen += count
        if seen >= half:
            return value
    raise ValueError("a median of nothing")


def _crop_side(side: int) -> int:
    return max(_STRIDE, min(_CROP_SIDE, side // _STRIDE * _STRIDE))
