"""What is suspicious about a dataset that was ingested all the same, each in one line that says what to do.

Called by `ingest.py`, kept in the version's fingerprint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from segpipe import masks
from segpipe.stages.numbers import counted
from segpipe.stages.parts import Written
from segpipe.types import ClassInfo, Fingerprint, SampleRef

_NAMED = 3  # of those that a warning is about


def cautions(
    expected: Mapping[str, int] | None,
    classes: Sequence[ClassInfo],
    refs: Sequence[SampleRef],
    written: Sequence[Written],
    seen: Fingerprint,
    options: Collection[str],
) -> tuple[str, ...]:
    """Every warning about what was written; `expected` are the documented counts of samples by split, `options` what
    the source can be told, so that a remedy names none that it does not have."""
    labelled = dict.fromkeys(seen.splits, 0)  # pixels in label maps
    for part in written:
        labelled[part.split] += sum(dict(part.result.class_pixels).values()) + part.result.ignored_pixels
    any_labels = any(labelled.values())
    return (
        *_counts(expected, written),
        *_groups(refs, written),
        *_duplicates(written),
        *_near_copies(written),
        *_unlabelled(labelled, seen, options),
        *_absent_classes(classes, seen, [name for name, pixels in labelled.items() if pixels or not any_labels]),
    )


def _counts(documented: Mapping[str, int] | None, written: Sequence[Written]) -> Iterator[str]:
    """Where a dataset's documentation says how many samples a split has and another number was found."""
    for split, expected in (documented or {}).items():
        found = sum(w.result.shard.rows for w in written if w.split == split and w.result.shard)
        if found != expected:
            yield f"split {split!r} has {found} samples, its documentation says {expected}"


def _groups(refs: Sequence[SampleRef], written: Sequence[Written]) -> Iterator[str]:
    """Groups (a drive, a patient, a clip) that the splits cut through, in one line: what was trained on is tested on.

    A warning and no error: the official splits of CamVid and others do so, and papers report on them.
    """
    published = {(part.split, sample_id) for part in written for sample_id in part.result.sample_ids}
    groups: dict[str, Counter[str]] = {}
    for ref in refs:
        if (ref.split, ref.sample_id) in published:
            groups.setdefault(ref.group, Counter())[ref.split] += 1
    cut = {group: counts for group, counts in sorted(groups.items()) if len(counts) > 1}
    if cut:
        shown = [
            f"{group} ({', '.join(f'{split} {samples}' for split, samples in sorted(counts.items()))})"
            for group, counts in list(cut.items())[:_NAMED]
        ]
        more = f" and {len(cut) - len(shown)} more" if len(cut) > len(shown) else ""
        samples = sum(counts.total() for counts in cut.values())
        yield (
            f"the same group is in several splits: {', '.join(shown)}{more}; {samples} of {len(published)} samples. "
            "Scores on samples that are like those of training are too good: keep each group in one split, where the "
            "splits are yours to choose"
        )


def _duplicates(written: Sequence[Written]) -> Iterator[str]:
    """Images whose very bytes are there twice: across splits what is learnt from one copy leaks into the score of the
    other, within one split a copy counts again."""
    places: dict[str, list[tuple[str, str]]] = {}
    for part in written:
        for sample_id, image_sha256 in zip(part.result.sample_ids, part.result.image_hashes, strict=True):
            places.setdefault(image_sha256, []).append((part.split, sample_id))
    copies = [sorted(same) for same in places.values() if len(same) > 1]
    leaks = [same for same in copies if len({split for split, _ in same}) > 1]
    if leaks:
        yield f"the same image is in several splits: {_named(leaks)}; leave it in one of them"
    if again := [same for same in copies if len({split for split, _ in same}) < len(same)]:
        yield f"the same image is in one split more than once: {_named(again)}; each copy counts again: leave one"


def _named(copies: Sequence[Sequence[tuple[str, str]]]) -> str:
    shown = ["=".join(f"{split}/{sample_id}" for split, sample_id in same) for same in copies[:_NAMED]]
    return ", ".join(shown) + (f" and {len(copies) - len(shown)} more" if len(copies) > len(shown) else "")


def _near_copies(written: Sequence[Written]) -> Iterator[str]:
    """Images that look like one of another split, but are other bytes: scaled or encoded again, or the next frame."""
    found: list[str] = []
    for first, second in combinations(sorted({part.split for part in written}), 2):
        left, right = _looks(written, first), _looks(written, second)
        for i, j in masks.near_copies([look for _, _, look in left], [look for _, _, look in right]):
            if left[i][1] != right[j][1]:
                found.append(f"{first}/{left[i][0]}~{second}/{right[j][0]}")
    if found:
        shown = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        look = counted(len(found), "image looks", "images look")
        yield (
            f"{look} like one of another split: {shown}. Copies that were scaled or encoded again, "
            "or neighbours of a video: scores on them are too good; keep them in one split, where the choice is yours"
        )


def _looks(written: Sequence[Written], split: str) -> list[tuple[str, str, int]]:
    """(sample id, hash of the bytes, perceptual hash) of every sample of a split."""
    parts = [part for part in written if part.split == split]
    return [
        (sample_id, image_sha256, look.perceptual_hash)
        for part in parts
        for sample_id, image_sha256, look in zip(
            part.result.sample_ids, part.result.image_hashes, part.looks, strict=True
        )
    ]


def _unlabelled(pixels: Mapping[str, int], seen: Fingerprint, options: Collection[str]) -> Iterator[str]:
    """Where some samples have a label map and others none, such as the frames between two that were drawn, or a test
    set whose labels nobody has published."""
    how = " by the option unlabelled=false" if "unlabelled" in options else ""
    for name, labelled in pixels.items():
        split = seen.splits[name]
        if not labelled and any(pixels.values()):
            yield f"split {name!r} has no labels: none of its samples has a label map, and no model can be scored on it"
        elif 0 < labelled < split.pixels:
            yield (
                f"split {name!r}: {1 - labelled / split.pixels:.0%} of its pixels are in samples without a label map, "
                f"which training and evaluation of classes refuse; leave them out for that{how}"
            )


def _absent_classes(classes: Sequence[ClassInfo], seen: Fingerprint, splits: Sequence[str]) -> Iterator[str]:
    """Classes that nothing shows, for which the class map may be to blame, and those that one of `splits` does not."""
    names = [info.name for info in classes]
    shown = [sum(split.images_of_class[k] for split in seen.splits.values()) for k in range(len(names))]
    nowhere = [name for name, images in zip(names, shown, strict=True) if not images]
    if nowhere:
        occur = "occurs" if len(nowhere) == 1 else "occur"
        yield (
            f"{len(nowhere)} of {counted(len(names), 'class', 'classes')} {occur} "
            f"nowhere ({_few(nowhere)}): nothing can be learnt of them. Is the raw value of each the right one, and "
            "none of the others shifted with it? `segpipe data inspect` shows both"
        )
    for name in splits:
        absent = [
            named
            for named, images in zip(names, seen.splits[name].images_of_class, strict=True)
            if not images and named not in nowhere
        ]
        if absent:
            yield (
                f"split {name!r} shows none of {len(absent)} of {len(names)} classes ({_few(absent)}): they are not "
                "learnt or not scored there; see the class map and the splits"
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
