"""What a dataset knows of an image beside its labels: depth, optical flow. Part of `reading`."""

from __future__ import annotations

from segpipe import masks
from segpipe.sources.reading.files import Photograph, read_file


def read_extra(root: str, path: str, image: Photograph) -> bytes:
    """The PNG `path` as shipped, decoded once to check it; it must have the image's size. Raises BadSampleError."""
    data = read_file(root, path, missing="missing_mask")
    masks.check_extra(data, file=path, height=image.height, width=image.width)
    return data
