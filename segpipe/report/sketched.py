"""How cards and pages show a `Sketch`: its colours, its picture, what it says in words.

A map of classes has their colours. Objects and segments have shades of them, or strong ones where all are of one class;
what was found has the colour of the true object, so that the eye meets it again in every model's map.

Legend: h w size of a sketch in pixels, N objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpipe.report import embedding, mistakes, names
from segpipe.report.drawing import Labels, Pixels
from segpipe.report.objects import Colour, colours_of, one_class, patches_of_map, shade
from segpipe.report.overlay import WRONG, error_map
from segpipe.sketches import Objects, Sketch
from segpipe.types import ClassInfo, EvalReport, Task

_NOTHING, _UNKNOWN = 0, -1
_SEAM: Colour = (255, 255, 255)
_MOST_TOLD = 4


def is_whole(report: EvalReport) -> bool:
    """Whether its objects are segments, to one of which every pixel belongs."""
    return report.task is Task.PANOPTIC


def colours(
    found: Sketch, classes: Sequence[ClassInfo], *, whole: bool, truth: Sequence[Colour] | None = None
) -> list[Colour]:
    """Those of its ids: by class from 0, or by number from 1. `truth` are those of the truth's objects."""
    if found.objects is None:
        return [info.colour for info in classes]
    class_ids = found.objects.class_ids
    patches = patches_of_map(found.ids_hw, range(1, len(class_ids) + 1))
    own = colours_of(patches, class_ids, classes, by_object=one_class(classes) and not whole)
    if truth is not None:
        for t, p in found.objects.found:
            own[p - 1] = truth[t - 1]
    return own


def legend(classes: Sequence[ClassInfo], shown: Sequence[Sketch], *, whole: bool) -> list[tuple[str, Colour]]:
    """The classes that colours tell apart: of objects those that are there, of which they are shades."""
    if not any(each.objects for each in shown):
        return [(info.name, info.colour) for info in classes]
    if one_class(classes) and not whole:
        return []
    there = sorted({k for each in shown if each.objects for k in each.objects.class_ids})
    return [(classes[k].name, shade(classes[k].colour, 0) if classes[k].is_thing else classes[k].colour) for k in there]


def error_legend(*, objects: bool) -> list[tuple[str, Colour]]:
    """What the colours of `errors` mean."""
    return list(mistakes.NAMES.items()) if objects else [("wrong", WRONG)]


def flat(found: Sketch, of_ids: Sequence[Colour]) -> str:
    """Its map as a data URI, clear where there is nothing; a line between objects that touch."""
    if found.objects is None:
        return embedding.id_map(found.ids_hw, of_ids)
    numbers_hw = found.ids_hw.astype(np.int64)
    ids_hw = np.where(numbers_hw == _NOTHING, len(of_ids) + 1, numbers_hw - 1)
    ids_hw[_seams(numbers_hw)] = len(of_ids)
    return embedding.id_map(ids_hw, [*of_ids, _SEAM])


def errors(image_hw3: Pixels, found: Sketch, truth: Sketch, *, ignore_index: int, whole: bool) -> str:
    """The photograph in pale grey as a data URI: wrong pixels in red; of objects what `mistakes.paint` shows."""
    shown = Image.fromarray(image_hw3)
    if found.objects is None:
        return embedding.painted(error_map(shown, found.ids_hw, truth.ids_hw, ignore_index))
    return embedding.painted(mistakes.paint(shown, truth.ids_hw, found.ids_hw, found.objects, is_whole=whole))


def told_errors(found: Sketch, truth: Sketch, *, ignore_index: int, whole: bool) -> str:
    """What is wrong in words: the share of the pixels whose class is, and how many objects."""
    told = [_wrong(_classes(found), _classes(truth), ignore_index)] if whole or found.objects is None else []
    return ", ".join(told + ([counts(found.objects)] if found.objects else []))


def counts(objects: Objects) -> str:
    """How many were found, missed and are false."""
    return f"{len(objects.found)} found, {len(objects.missed)} missed, {len(objects.false)} false"


def told(found: Sketch, classes: Sequence[ClassInfo]) -> str:
    """The largest classes of a map in words; of objects the most frequent ones."""
    if found.objects is None:
        pixels_K = np.bincount(found.ids_hw[found.ids_hw < len(classes)].ravel(), minlength=len(classes))
        largest = [k for k in np.argsort(-pixels_K, kind="stable")[:_MOST_TOLD] if pixels_K[k]]
        return ", ".join(f"{classes[k].name} {names.percent(pixels_K[k] / found.ids_hw.size)}" for k in largest)
    frequent = Counter(found.objects.class_ids).most_common(_MOST_TOLD)
    return ", ".join(f"{n} {classes[k].name}" for k, n in frequent) or "nothing"


def _seams(numbers_hw: Labels) -> NDArray[np.bool_]:
    """Where an object meets another one to its left or above: a line of one pixel."""
    seam_hw = np.zeros(numbers_hw.shape, dtype=bool)
    for seam, here, there in (
        (seam_hw[:, 1:], numbers_hw[:, 1:], numbers_hw[:, :-1]),
        (seam_hw[1:], numbers_hw[1:], numbers_hw[:-1]),
    ):
        seam |= (here != there) & (here != _NOTHING) & (there != _NOTHING)
    return seam_hw


def _classes(found: Sketch) -> Labels:
    """The class of each pixel (h, w); `_UNKNOWN` where there is no segment."""
    if found.objects is None:
        return found.ids_hw
    classes_hw: Labels = np.array([_UNKNOWN, *found.objects.class_ids])[found.ids_hw]
    return classes_hw


def _wrong(said_hw: Labels, true_hw: Labels, ignore_index: int) -> str:
    valid_hw = (true_hw != ignore_index) & (true_hw != _UNKNOWN)
    if not valid_hw.any():
        return "nothing is labelled"
    return f"{names.percent(float((said_hw != true_hw)[valid_hw].mean()))} wrong"
