"""Dataset formats: one file each, bytes on disk -> Sample. `SOURCES` is the table; adding a format is one line here.

A source may read through `storage` only, so that its root may be a folder or an s3:// prefix.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources import (
    ade20k,
    bdd100k,
    camvid,
    cityscapes,
    coco,
    coco_20i,
    coco_panoptic,
    coco_stuff,
    davis,
    folder,
    frames,
    gta5,
    hf,
    isbi2012,
    label_studio,
    labelme,
    mapillary,
    nuclei,
    nyu_depth,
    oxford_pet,
    pascal_5i,
    pascal_context,
    pascal_part,
    scenes,
    synthia,
    virtual_kitti,
    voc,
    yolo,
)
from segpipe.sources.spec import Source, SourceInfo

SOURCES: dict[str, SourceInfo] = {
    "ade20k": ade20k.INFO,
    "bdd100k": bdd100k.INFO,
    "camvid": camvid.INFO,
    "cityscapes": cityscapes.INFO,
    "coco": coco.INFO,
    "coco_20i": coco_20i.INFO,
    "coco_panoptic": coco_panoptic.INFO,
    "coco_stuff": coco_stuff.INFO,
    "davis": davis.INFO,
    "folder": folder.INFO,
    "frames": frames.INFO,
    "gta5": gta5.INFO,
    "hf": hf.INFO,
    "isbi2012": isbi2012.INFO,
    "label_studio": label_studio.INFO,
    "labelme": labelme.INFO,
    "mapillary": mapillary.INFO,
    "nuclei": nuclei.INFO,
    "nyu_depth": nyu_depth.INFO,
    "oxford_pet": oxford_pet.INFO,
    "pascal_5i": pascal_5i.INFO,
    "pascal_context": pascal_context.INFO,
    "pascal_part": pascal_part.INFO,
    "scenes": scenes.INFO,
    "synthia": synthia.INFO,
    "virtual_kitti": virtual_kitti.INFO,
    "voc": voc.INFO,
    "yolo": yolo.INFO,
}

__all__ = ["SOURCES", "Source", "SourceInfo", "info_of", "names", "open_source"]


def names() -> list[str]:
    """The formats that `open_source` knows, sorted."""
    return sorted(SOURCES)


def info_of(format: str) -> SourceInfo:  # noqa: A002
    """The line of SOURCES that is called `format`. Raises InputError where there is none."""
    if format not in SOURCES:
        close = difflib.get_close_matches(format, SOURCES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown source format {format!r}; {hint}known are: {', '.join(names())}")
    return SOURCES[format]


def open_source(format: str, root: str, options: Mapping[str, str | int | float | bool] | None = None) -> Source:  # noqa: A002
    """The source `format` over the folder or URI `root`.

    Raises InputError on an unknown format, an unknown option, or an option of another type or value than documented.
    """
    info = info_of(format)
    given = dict(options or {})
    for key, value in given.items():
        if key not in info.options:
            known = ", ".join(f"{name}={option.default!r}" for name, option in info.options.items()) or "none"
            raise InputError(
                f"source {format!r} has no option {key!r} (value {value!r}); its options are: {known}; "
                f"`segpipe list sources {format}` explains them"
            )
        kind, default, _ = info.options[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            given[key] = float(value)
        elif type(value) is not kind:
            raise InputError(
                f"source {format!r}, option {key!r}: {value!r} is of type {type(value).__name__}; expected "
                f"{kind.__name__}, e.g. {default!r}"
            )
    if info.layout and not storage.exists(root):
        raise InputError(
            f"{root}: there is no such folder; expected one with {', '.join(info.layout[:2])}: mend the path"
        )
    return info.open(root, **given)
