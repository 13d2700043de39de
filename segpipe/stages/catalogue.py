"""What there is to choose from: architectures, dataset formats, tasks, and the versions of a dataset.

Behind `segpipe list` and `segpipe models show`, and for doors that need a dataset's newest version. Plain data, so that
a door need not know the rooms it comes from. Each function imports its own room: formats can be listed without waiting
seconds for torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segpipe.reports import to_plain
from segpipe.stages import datasets

if TYPE_CHECKING:
    from segpipe.models import ModelSpec


def models() -> list[dict[str, Any]]:
    """Every architecture: name, the task that it was made for and all that it answers, paper, its options with their
    defaults, and where it departs from the paper."""
    from segpipe import models as architectures

    return [_told(architectures.spec(name)) for name in architectures.names()]


def _told(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "task": str(spec.task),
        "tasks": [str(task) for task in (spec.task, *spec.also)],
        "paper": spec.paper,
        "options": to_plain(dict(spec.options)),
        "differs": list(spec.differs),
        "published": to_plain(spec.published),
    }


def model(
    name: str, options: Mapping[str, Any], *, num_classes: int, size: tuple[int, int], runs: int
) -> dict[str, Any]:
    """One architecture in full: as in `models`, its figure, what others count, and its profile with these options.

    `profile` is that of `segpipe.profiles.Profile`, for `num_classes` and an image of `size` (H, W); `runs` passes are
    timed, none with 0. Raises InputError as `profiles.profile`.
    """
    from segpipe import models as architectures
    from segpipe import profiles

    spec = architectures.spec(name)
    found: dict[str, Any] = to_plain(profiles.profile(name, num_classes, size=size, runs=runs, **options))
    figure = found.pop("drawing")
    return {**_told(spec), "counted": to_plain(spec.counted), "drawing": figure, "profile": found}


def sources() -> list[dict[str, Any]]:
    """Every dataset format: name, tasks, what it reads, licence, options with defaults, files, known-bad samples."""
    from segpipe.sources import SOURCES

    return [
        {
            "name": info.name,
            "tasks": [str(task) for task in info.tasks],
            "summary": info.summary,
            "licence": info.licence,
            "options": {name: option.default for name, option in info.options.items()},
            "layout": list(info.layout),
            "known_bad": dict(info.known_bad),
        }
        for info in SOURCES.values()
    ]


def source(name: str) -> dict[str, Any]:
    """One dataset format in full: as in `sources`, with type, default and meaning of each option, documented counts.

    Raises InputError where no format is called so.
    """
    from segpipe.sources import info_of

    info = info_of(name)
    return {
        "name": info.name,
        "tasks": [str(task) for task in info.tasks],
        "summary": info.summary,
        "licence": info.licence,
        "options": {
            name: {"type": option.kind.__name__, "default": option.default, "help": option.help}
            for name, option in info.options.items()
        },
        "layout": list(info.layout),
        "expected": dict(info.expected),
        "known_bad": dict(info.known_bad),
    }


def tasks() -> list[dict[str, Any]]:
    """Every task: name, the metric that ranks its models, the annotations that a dataset must fill, its models."""
    from segpipe import models as architectures
    from segpipe.tasks import TASKS

    return [
        {
            "name": str(task),
            "primary": operations.primary,
            "needs": [str(annotation) for annotation in operations.needs],
            "models": architectures.names(task),
        }
        for task, operations in TASKS.items()
    ]


def dataset_version(uri: str, version: str | None = None) -> str:
    """The full name of a version: the newest, or the one that `version` is the beginning of (8 digits at least).

    Raises InputError where there is no such dataset or version.
    """
    from segpipe.shards import open_dataset

    return open_dataset(datasets.found(uri), version=version).version
