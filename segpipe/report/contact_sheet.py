"""A dataset at a glance: rows of image, labels and both laid over each other, split by split, with the legend.

What a wrong class map, a shifted mask or an inverted polarity looks like, nobody overlooks here. Objects are drawn from
large to small with a bright edge; crowds that have run lengths of their own are hatched. Images that nobody has
labelled stand side by side, with nothing beside them that would look like an empty label.

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
    edges,
    fit,
    font,
    hatch,
    legend_rows,
    legible,
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
_COLUMNS = 3
NO_OBJECTS = "no objects"


class _Row(NamedTuple):
    """Image, labels and overlay of one sample, or the images of several (each hw3, each below its caption if it has
    one); `heading` is that of a split, above its first row, else empty."""

    heading: str
    captions: list[str]
    panels: list[Pixels]


def draw_sheet(
    splits: Mapping[str, Sequence[Sample]],
    *,
    classes: Sequence[ClassInfo],
    ignore_index: int,
    title: str,
    label_maps: bool = True,
) -> bytes:
    """A PNG with one row a sample, a split below the other under its heading, the key of `splits`.

    Where the dataset has `label_maps`, a sample without one and without objects is one that nobody has labelled: such
    images are drawn alone, three a row. The legend has every class: it also names those that none of these samples
    shows. Raises BadSampleError where an image does not decode, CorruptError where maps or run lengths do not.
    """
    rows, seen = list[_Row](), set[int]()
    for heading, samples in splits.items():
        bare = [each for each in samples if label_maps and _is_bare(each)]
        found = [_row(each, classes, ignore_index) for each in samples if not (label_maps and _is_bare(each))]
        seen.update(*(ids for _, ids in found))
        below = [row for row, _ in found] + [_images(bare[at : at + _COLUMNS]) for at in range(0, len(bare), _COLUMNS)]
        rows += [row._replace(heading=heading if place == 0 else "") for place, row in enumerate(below)]
    return png(_compose(rows, _legend(classes, seen), title))


def _legend(classes: Sequence[ClassInfo], seen: set[int]) -> list[Entry]:
    """Every class, or of many those that are shown; none where nothing is."""
    entries: list[Entry] = [
        (info.name if k in seen else f"{info.name} (not in these)", info.colour) for k, info in enumerate(classes)
    ]
    if len(classes) > _MOST_NAMED or not seen:
        entries = [entry for k, entry in enumerate(entries) if k in seen]
    hatched = [name for k, name in ((_NOTHING, "not labelled"), (_CROWD, "a crowd")) if k in seen]
    return entries + ([(", or ".join(hatched), None)] if hatched else [])


def _is_bare(sample: Sample) -> bool:
    return sample.label_map is None and not sample.segments


def _images(samples: Sequence[Sample]) -> _Row:
    return _Row("", [each.sample_id for each in samples], [_image(each) for each in samples])


def _image(sample: Sample) -> Pixels:
    """The image (hw3) at the size of a panel."""
    size = panel_size(sample.width, sample.height, PANEL_WIDTH)
    photograph = Image.fromarray(masks.read_rgb(sample.image, file=sample.sample_id))
    enlarged = size[0] > sample.width
    return np.asarray(photograph.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS))


def _row(sample: Sample, classes: Sequence[ClassInfo], ignore_index: int) -> tuple[_Row, set[int]]:
    """Image, labels and overlay (each hw3) of a sample, and the class ids that occur."""
    image_hw3 = _image(sample)
    size = image_hw3.shape[1], image_hw3.shape[0]
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
    edge_hw = edges(resize_ids(_object_map(sample), size))
    for picture in (labels_hw3, overlay_hw3):
        picture[edge_hw] = EDGE
    overlay_hw3 = _named(overlay_hw3, classes_hw, classes)
    if _is_bare(sample):
        labels_hw3 = _saying(NO_OBJECTS, labels_hw3)
    hatched = {_CROWD} if sample.label_map is None else {_CROWD, _NOTHING}
    row = _Row("", [sample.sample_id], [image_hw3, labels_hw3, overlay_hw3])
    return row, {k for k in np.unique(classes_hw).tolist() if k >= 0 or k in hatched}


def _saying(text: str, panel_hw3: Pixels) -> Pixels:
    """The panel with a text in its middle."""
    drawn = Image.fromarray(panel_hw3)
    middle = (drawn.width // 2, drawn.height // 2)
    ImageDraw.Draw(drawn).text(middle, text, FAINT_INK, font(TEXT_SIZE), anchor="mm")
    return np.asarray(drawn)


def _named(picture_hw3: Pixels, classes_hw: Labels, classes: Sequence[ClassInfo]) -> Pixels:
    """The picture with the name of each class written into the widest part of it, where there is room: that the sky is
    called building is read at once, and overlooked between the colours of a legend."""
    drawn = Image.fromarray(picture_hw3)
    pen = ImageDraw.Draw(drawn)
    for k in np.unique(classes_hw[classes_hw >= 0]).tolist():
        x, y, room = _widest_part(classes_hw == k)
        name = legible(classes[k].name)
        if font(TEXT_SIZE).getlength(name) <= 2 * room:
            pen.text((x, y), name, PAPER, font(TEXT_SIZE), anchor="mm", stroke_width=2, stroke_fill=INK)
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
            inside_HW = masks.mask_of(segment, sample) > 0
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
            objects_HW[masks.mask_of(segment, sample) > 0] = segment.segment_id
    return objects_HW


def _compose(rows: Sequence[_Row], entries: Sequence[Entry], title: str) -> Image.Image:
    room = max([sum(p.shape[1] + GAP for p in row.panels) - GAP for row in rows], default=_COLUMNS * PANEL_WIDTH)
    legend = legend_rows(entries, room)
    step, heading = TEXT_SIZE + 10, TITLE_SIZE + 6
    heights = [max(p.shape[0] for p in row.panels) + step + GAP + (heading if row.heading else 0) for row in rows]
    top = MARGIN + TITLE_SIZE + 10
    legend_top = top + sum(heights)
    sheet = Image.new("RGB", (room + 2 * MARGIN, legend_top + len(legend) * step + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fit(title, room, TITLE_SIZE), INK, font(TITLE_SIZE), anchor="lt")
    for row, height in zip(rows, heights, strict=True):
        below = top + height
        if row.heading:
            pen.text((MARGIN, top), fit(row.heading, room, TITLE_SIZE), INK, font(TITLE_SIZE), anchor="lt")
            top += heading
        _draw_row(sheet, row, top, room)
        top = below
    for line, named in enumerate(legend):
        draw_legend_row(sheet, named, legend_top + line * step)
    return sheet


def _draw_row(sheet: Image.Image, row: _Row, top: int, room: int) -> None:
    """The panels of a row beside each other with their upper captions at `top`; one caption may take all of `room`."""
    pen, left = ImageDraw.Draw(sheet), MARGIN
    for place, panel in enumerate(row.panels):
        if place < len(row.captions):
            caption = fit(row.captions[place], room if len(row.captions) == 1 else panel.shape[1], TEXT_SIZE)
            pen.text((left, top + TEXT_SIZE), caption, FAINT_INK, font(TEXT_SIZE), anchor="ld")
        sheet.paste(Image.fromarray(panel), (left, top + TEXT_SIZE + 4))
        left += panel.shape[1] + GAP
