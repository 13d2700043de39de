"""Instance segmentation: every thing with a mask of its own; masks may overlap. Ranked by COCO's mask AP, with box AP
beside it. Behind the task door of `tasks/__init__.py`; how it is done stands in `objects.py`."""

from __future__ import annotations

from typing import ClassVar

from segpipe.tasks.objects import ObjectOps


class InstanceOps(ObjectOps):
    """The task's operations for one set of classes."""

    primary: ClassVar[str] = "ap/coco/segm"
    measures: ClassVar[tuple[str, ...]] = ("segm", "bbox")
