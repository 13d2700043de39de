"""Training crops as the model sees them, with their labels beside them: a sheet for a person before a night.

Legend: N crops, H W crop size in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segpipe.report.drawing import Entry, Pixels, hatch, panel_size, png, resize_ids
from segpipe.report.panels import compose, photograph
from segpipe.types import ClassInfo

PANEL_WIDTH = 320


def draw_inputs(
    images_NHW3: bytes,
    labels_NHW: bytes | None,
    *,
    size: tuple[int, int],
    classes: Sequence[ClassInfo],
    ignore_index: int,
    title: str,
) -> bytes:
    """A PNG of crops of `size` (H, W): the bytes of uint8 RGB, and of int32 class ids where every pixel has one."""
    images = np.frombuffer(images_NHW3, np.uint8).reshape(-1, *size, 3)
    shown_size = panel_size(size[1], size[0], PANEL_WIDTH)
    labels = [None] * len(images) if labels_NHW is None else np.frombuffer(labels_NHW, np.int32).reshape(-1, *size)
    colours = np.array([info.colour for info in classes], dtype=np.uint8)
    panels: list[tuple[str, Pixels]] = []
    seen = set[int]()
    for number, (image_HW3, labels_HW) in enumerate(zip(images, labels, strict=True), start=1):
        panels.append((f"crop {number}", np.asarray(photograph(image_HW3, shown_size))))
        if labels_HW is None:
            continue
        seen |= set(np.unique(labels_HW).tolist())
        labels_hw = resize_ids(labels_HW, shown_size)
        known_hw = (labels_hw >= 0) & (labels_hw < len(classes))
        painted_hw3 = hatch(
            colours[np.where(known_hw, labels_hw, 0)], np.where(known_hw, 0, ignore_index), ignore_index
        )
        panels.append(("labels", painted_hw3))
    entries: list[Entry] = [(info.name, info.colour) for k, info in enumerate(classes) if k in seen]
    if any(not 0 <= k < len(classes) for k in seen):
        entries.append(("not labelled", None))
    return png(compose(panels, entries, title, columns=4))
