"""A dataset at a glance: rows of image, labels and both laid over each other, split by split, with the legend.

What a wrong class map, a shifted mask or an inverted polarity looks like, nobody overlooks here. Objects are drawn from
large to small with a bright edge; crowds that have run lengths of their own are hatched.

Legend: H W size of an image in pixels, h w size of a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from segpipe import masks
from segpipe.report.drawing import (
    FAINT_INK,
    GAP,
    INK,
    MARGIN,
    PAPER,
    TEXT_SIZE,
    TITLE_SIZE,
    Entry,
    Labels,
    Pixels,
    draw_legend_row,
    fit,
    font,
    hatch,
    legend_rows,
    panel_size,
    png,
    resize_ids,
)
from segpipe.types import ClassInfo, Sample

PANEL_WIDTH = 360  # and the greatest height of one
EDGE = (255, 255, 255)
_NOTHING, _CROWD = -1, -2
_PAPER_GREY = 238
_MOST_NAMED = 40  # classes in a legend, whether they occur or not; of more only those that do


class _Row(NamedTuple):
    """One sample: image, labels and overlay (each hw3); `split` is named above the first of its split, else empty."""

    split: str
    sample_id: str
    panels: list[Pixels]


def draw_sheet(
    splits: Mapping[str, Sequence[Sample]], *, classes: Sequence[ClassInfo], ignore_index: int, title: str
) -> bytes:
    """A PNG with one row a sample, a split below the other. The legend has every class: it also names those that none
    of these samples shows. Raises BadSampleError where an image or run lengths do not decode."""
    rows, seen = [], set[int]()
    for split, samples in splits.items():
        for place, sample in enumerate(samples):
            panels, found = _row(sample, classes, ignore_index)
            rows.append(_Row(split if place == 0 else "", sample.sample_id, panels))
            seen |= found
    entries: list[Entry] = [
        (info.name if k in seen else f"{info.name} (not in these)", info.colour) for k, info in enumerate(classes)
    ]
    if len(classes) > _MOST_NAMED:
        entries = [entry for k, entry in enumerate(entries) if k in seen]
    entries += [("not labelled, or a crowd", None)] if seen & {_NOTHING, _CROWD} else []
    return png(_compose(rows, entries, title))


def _row(sample: Sample, classes: Sequence[ClassInfo], ignore_index: int) -> tuple[list[Pixels], set[int]]:
    """Image, labels and overlay (each hw3) of a sample, and the class ids that occur."""
    size = panel_size(sample.width, sample.height, PANEL_WIDTH)
    photograph = Image.fromarray(masks.read_rgb(sample.image, file=sample.sample_id))
    enlarged = size[0] > sample.width
    image_hw3 = np.asarray(photograph.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS))
    classes_hw = resize_ids(_class_map(sample, ignore_index), size)
    colours = np.array([info.colour for info in classes], dtype=np.uint8)
    flat_hw3 = np.where((classes_hw >= 0)[..., None], colours[np.maximum(classes_hw, 0)], np.uint8(_PAPER_GREY))
    marked_hw = np.where(classes_hw == _CROWD, _NOTHING, classes_hw)
    labels_hw3 = hatch(flat_hw3, marked_hw, _NOTHING) if sample.label_map is not None else flat_hw3
    labels_hw3 = hatch(labels_hw3, classes_hw, _CROWD)
    blend_hw3 = (0.45 * image_hw3 + 0.55 * flat_hw3).astype(np.uint8)
    tinted = np.array([not is_background(info) for info in classes])
    tinted_hw = (classes_hw >= 0) & tinted[np.maximum(classes_hw, 0)]
    overlay_hw3 = np.where(tinted_hw[..., None], blend_hw3, image_hw3)
    edge_hw = _edges(resize_ids(_object_map(sample), size))
    for picture in (labels_hw3, overlay_hw3):
        picture[edge_hw] = EDGE
    overlay_hw3 = _named(overlay_hw3, classes_hw, classes)
    hatched = {_CROWD} if sample.label_map is None else {_CROWD, _NOTHING}
    return [image_hw3, labels_hw3, overlay_hw3], {k for k in np.unique(classes_hw).tolist() if k >= 0 or k in hatched}


def _named(picture_hw3: Pixels, classes_hw: Labels, classes: Sequence[ClassInfo]) -> Pixels:
    """The picture with the name of each class written into the widest part of it, where there is room: that the sky is
    called building is read at once, and overlooked between the colours of a legend."""
    drawn = Image.fromarray(picture_hw3)
    pen = ImageDraw.Draw(drawn)
    for k in np.unique(classes_hw[classes_hw >= 0]).tolist():
        x, y, room = _widest_part(classes_hw == k)
        if font(TEXT_SIZE).getlength(classes[k].name) <= 2 * room:
            pen.text((x, y), classes[k].name, PAPER, font(TEXT_SIZE), anchor="mm", stroke_width=2, stroke_fill=INK)
    return np.asarray(drawn)


def _widest_part(inside_hw: NDArray[np.bool_]) -> tuple[int, int, int]:
    """(x, y, r): the middle of a part, with r more inside pixels left and right of it; r is 0 where no line of text
    fits in. Found by peeling every fourth pixel."""
    left_hw = innermost_hw = inside_hw[::4, ::4]
    peeled = 0
    while left_hw.any():
        innermost_hw, peeled = left_hw, peeled + 1
        around = np.pad(left_hw, 1)
        left_hw = left_hw & around[1:-1, :-2] & around[1:-1, 2:] & around[:-2, 1:-1] & around[2:, 1:-1]
    if 4 * peeled < TEXT_SIZE // 2 + 2:
        return 0, 0, 0
    rows, columns = np.nonzero(innermost_hw)
    y, x = 4 * int(rows[len(rows) // 2]), 4 * int(columns[len(rows) // 2])
    stops = np.flatnonzero(np.pad(~inside_hw[y], 1, constant_values=True)) - 1
    return x, y, int(min(x - stops[stops < x].max(), stops[stops > x].min() - x)) - 1


def is_background(info: ClassInfo) -> bool:
    """Whether a class is only what the others are not. Laid over an image it would hide what it is to be compared with;
    the ground of a street, class 0 as well, is not meant."""
    return not info.is_thing and info.name.strip("_ ").lower() in ("background", "bg")


def _class_map(sample: Sample, ignore_index: int) -> Labels:
    """Class ids (H, W); -1 where nothing is labelled, -2 in crowds. Objects over the label map, small over large."""
    shape = (sample.height, sample.width)
    classes_HW = np.full(shape, _NOTHING, dtype=np.int32)
    if sample.label_map is not None:
        labels_HW = masks.read_map(sample.label_map, sample).astype(np.int32)
        classes_HW = np.where(labels_HW == ignore_index, _NOTHING, labels_HW)
    for segment in sorted(sample.segments, key=lambda each: -each.area):
        if segment.rle is not None:
            inside_HW = masks.decode_rle(segment.rle, *shape, file=sample.sample_id) > 0
            classes_HW[inside_HW] = _CROWD if segment.is_crowd else segment.class_id
    return classes_HW


def _object_map(sample: Sample) -> Labels:
    """Segment ids (H, W), 0 where there is none; small objects over large ones."""
    shape = (sample.height, sample.width)
    if sample.segment_map is not None:
        return masks.read_map(sample.segment_map, sample).astype(np.int64)
    objects_HW = np.zeros(shape, dtype=np.int64)
    for segment in sorted(sample.segments, key=lambda each: -each.area):
        if segment.rle is not None:
            objects_HW[masks.decode_rle(segment.rle, *shape, file=sample.sample_id) > 0] = segment.segment_id
    return objects_HW


def _edges(objects_hw: Labels) -> Labels:
    """Where an object meets another one or nothing: a line of one pixel."""
    edge_hw = np.zeros(objects_hw.shape, dtype=bool)
    across, down = objects_hw[:, 1:] != objects_hw[:, :-1], objects_hw[1:] != objects_hw[:-1]
    edge_hw[:, 1:] |= across
    edge_hw[1:] |= down
    return edge_hw


def _compose(rows: Sequence[_Row], entries: Sequence[Entry], title: str) -> Image.Image:
    room = max([3 * row.panels[0].shape[1] + 2 * GAP for row in rows], default=3 * PANEL_WIDTH)
    legend = legend_rows(entries, room)
    step, heading = TEXT_SIZE + 10, TITLE_SIZE + 6
    heights = [row.panels[0].shape[0] + step + GAP + (heading if row.split else 0) for row in rows]
    top = MARGIN + TITLE_SIZE + 10
    legend_top = top + sum(heights)
    sheet = Image.new("RGB", (room + 2 * MARGIN, legend_top + len(legend) * step + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fit(title, room, TITLE_SIZE), INK, font(TITLE_SIZE), anchor="lt")
    for row, height in zip(rows, heights, strict=True):
        below = top + height
        if row.split:
            pen.text((MARGIN, top), fit(f"split {row.split}", room, TITLE_SIZE), INK, font(TITLE_SIZE), anchor="lt")
            top += heading
        caption = fit(row.sample_id, room, TEXT_SIZE)
        pen.text((MARGIN, top + TEXT_SIZE), caption, FAINT_INK, font(TEXT_SIZE), anchor="ld")
        for place, panel in enumerate(row.panels):
            sheet.paste(Image.fromarray(panel), (MARGIN + place * (panel.shape[1] + GAP), top + TEXT_SIZE + 4))
        top = below
    for line, named in enumerate(legend):
        draw_legend_row(sheet, named, legend_top + line * step)
    return sheet
