"""Detection: every thing in a box. Ranked by COCO's box AP. Behind the task door of `tasks/__init__.py`; how it is done
stands in `objects.py`."""

from __future__ import annotations

from typing import ClassVar

from segpipe.tasks.objects import ObjectOps


class DetectionOps(ObjectOps):
    """The task's operations for one set of classes."""

    primary: ClassVar[str] = "ap/coco/bbox"
    measures: ClassVar[tuple[str, ...]] = ("bbox",)
