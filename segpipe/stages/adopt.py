"""A torchvision dataset at hand -> the config that `ingest` takes. For scripts and notebooks: doors take recipes."""

from __future__ import annotations

from typing import Any

from segpipe.config import DatasetConfig, validate
from segpipe.sources.torchvision_objects import describe_all, from_torchvision


def config_of(
    name: str, *datasets: Any, max_quarantine: float = 0.01, **options: str | int | float | bool
) -> DatasetConfig:
    """The config of the dataset that torchvision's objects are splits of, called `name`; see `from_torchvision`.

    Ingest of it gives the version that the folder gives. Raises InputError.
    """
    from_torchvision(*datasets, **options)  # compares objects and files
    described = describe_all(*datasets, **options)
    document = {
        "name": name,
        "format": described.format,
        "root": described.root,
        "options": dict(described.options),
        "max_quarantine": max_quarantine,
    }
    return validate(DatasetConfig, document, "config_of")
