"""What is too small to be said, for every kind of output of the panoptic task alike."""

from __future__ import annotations

# Cityscapes' published 2048 pixels of 2048 x 1024, as a share: the same number would be a third of a 96 x 128 image.
STUFF_AREA_SHARE = 1 / 1024


def stuff_area_limit(size: tuple[int, int]) -> int:
    """Pixels that stuff needs in an image of `size` (height, width), or it becomes void."""
    return round(size[0] * size[1] * STUFF_AREA_SHARE)
