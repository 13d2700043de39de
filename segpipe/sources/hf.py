"""hf: a Hugging Face dataset on disk: Parquet files whose rows hold an encoded image and its encoded mask.

Source: huggingface.co/docs/datasets (`Image` features are {bytes, path}; `data/train-00000-of-00002.parquet`). Class
names stand in id2label.json, as the Hub's segmentation datasets have it, since the feature of a mask has no names. The
bytes of an image are kept as they are in the row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from segpipe import masks, storage
from segpipe.errors import BadSampleError, InputError
from segpipe.shards import TableInfo, TableRows, describe_table
from segpipe.sources.reading import (
    Listing,
    Photograph,
    below,
    check_size,
    chosen,
    class_colour,
    coding,
    document_of,
    files_by_stem,
    inside,
    sample_of,
    value_table,
    without_root,
)
from segpipe.sources.reading.files import MAX_FILE_BYTES
from segpipe.sources.spec import Index, Licence, SourceInfo
from segpipe.types import (
    Annotation,
    ClassInfo,
    LabelCoding,
    Sample,
    SampleRef,
    Task,
)

IMAGE_COLUMNS = ("image", "pixel_values", "img", "picture")
LABEL_COLUMNS = ("label", "annotation", "mask", "semantic_segmentation", "segmentation_mask", "labels", "labels_map")
NAMES_FILE = "id2label.json"
SPLITS = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
# `train-00000-of-00002.parquet`, with or without the digest that older versions of the Hub's client put behind.
_NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")
_ENCODED = re.compile(r"(large_)?binary|struct<.*\bbytes: (large_)?binary\b.*>")


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFace:
    """Tables of images and masks, opened by `open_hf`. `table` takes raw mask values to class ids."""

    root: str
    folder: str
    columns: tuple[str, str]
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    table: Mapping[int, int]
    licence: str
    name: str = "hf"
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)
    rows: TableRows = field(default_factory=TableRows, repr=False, compare=False)

    @property
    def coding(self) -> LabelCoding:
        """The values of id2label.json."""
        return coding(self.table)

    @property
    def expected(self) -> None:
        """The files do not say."""

    def index(self) -> Index:
        """Every row of every file. Raises InputError where a file is missing, damaged or of other columns."""
        listing = Listing()
        for path, split in _files(self.root, self.folder).items():
            info = describe_table(inside(self.root, path))
            for column in self.columns:
                if not _ENCODED.fullmatch(info.columns.get(column, "")):
                    raise InputError(f"{self.root}/{path}: {_no_column(column, info)}")
            stem = path.removesuffix(".parquet")
            for row in range(info.rows):
                sample_id = f"{stem}/{row:06d}"
                listing.add(sample_id, split=split, group=sample_id, files=(path,), listed=path, extra={"row": row})
        return listing.result()

    def read(self, ref: SampleRef) -> Sample:
        """One row with its label map. Raises BadSampleError."""
        path, row = ref.files[0], ref.extra["row"]
        try:
            cells = self.rows.row(inside(self.root, path), row, self.columns)
        except InputError as error:
            reason = "unreadable" if storage.exists(storage.join(self.root, path)) else "missing_image"
            raise BadSampleError(reason, path, without_root(error, self.root, path)) from error
        where = f"{path}, row {row}"
        data = _bytes(cells[self.columns[0]], f"{where}, {self.columns[0]}", "missing_image")
        header = masks.check_header(data, file=f"{where}, {self.columns[0]}")
        image = Photograph(data, header.height, header.width, where)
        mask_name = f"{where}, {self.columns[1]}"
        mask = _bytes(cells[self.columns[1]], mask_name, "missing_mask")
        check_size(mask, mask_name, image)
        raw = masks.read_label_image(mask, file=mask_name)
        return sample_of(
            ref, image, label_map=masks.stored(masks.map_labels(raw, self.table, file=mask_name, own=NAMES_FILE))
        )


def _bytes(cell: Any, where: str, missing: str) -> bytes:
    """The encoded file of a cell: bytes, or {bytes, path}."""
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(data, bytes):
        named = f", but the path {cell.get('path')!r:.80}" if isinstance(cell, Mapping) and cell.get("path") else ""
        raise BadSampleError(missing, where, f"the cell holds no bytes{named}: save the dataset with its images inside")
    if len(data) > MAX_FILE_BYTES:
        raise BadSampleError("too_large", where, f"{len(data)} bytes; allowed are {MAX_FILE_BYTES}: scale it down")
    return data


def _files(root: str, folder: str) -> dict[str, str]:
    """Path below the root -> split, of every Parquet file. Raises InputError where one of a numbered set is missing."""
    found: dict[str, str] = {}
    counts: dict[tuple[str, str], set[int]] = {}
    for stem, path in files_by_stem(root, folder, ".parquet").items():
        parent, _, name = below(folder, stem).rpartition("/")
        if numbered := _NUMBERED.fullmatch(name):
            split = numbered["split"]
            counts.setdefault((below(parent, split) if parent else split, numbered["count"]), set()).add(
                int(numbered["number"])
            )
        else:  # the Hub's own conversion: default/train/0000.parquet
            split = parent.rpartition("/")[2] if name.isdecimal() and parent else name
        found[path] = SPLITS.get(split, split)
    for (split, count), numbers in counts.items():
        if absent := sorted(set(range(int(count))) - numbers):
            raise InputError(
                f"{root}/{split}-{absent[0]:05d}-of-{count}.parquet: this and {len(absent) - 1} more of {int(count)} "
                "files are missing: fetch the rest"
            )
    if not found:
        raise InputError(
            f"{storage.join(root, folder) if folder else root}: no *.parquet here; expected Hugging Face's files, "
            "such as data/train-00000-of-00001.parquet: give the dataset's folder as root"
        )
    return found


def _no_column(column: str, info: TableInfo) -> str:
    columns = ", ".join(f"{name} ({kind})" for name, kind in info.columns.items())
    return (
        f"no column {column} of encoded files (binary, or a struct with bytes); it has: {columns:.400}: name the "
        "columns by the options image and label"
    )


def _column(asked: str, usual: tuple[str, ...], info: TableInfo) -> str:
    """The column to read: the one asked for, else the first of the usual names that holds encoded files."""
    fitting = (name for name in usual if _ENCODED.fullmatch(info.columns.get(name, "")))
    return asked or next(fitting, usual[0])


def _names(root: str, classes: str, info: TableInfo, column: str) -> dict[int, str]:
    """Raw value -> class name, by `classes`, else id2label.json, else the names that the mask's feature has."""
    uri = chosen(root, classes or NAMES_FILE)
    if not classes and not storage.exists(uri):
        try:
            features = json.loads(info.notes.get("huggingface", b"{}")).get("info", {}).get("features", {})
            names = features.get(column, {}).get("names", [])
        except (ValueError, AttributeError, RecursionError):
            names = []
        document: Any = dict(enumerate(names)) if isinstance(names, list) else {}
    else:
        document = document_of(uri)
    entries = list(document.items()) if isinstance(document, Mapping) else []
    numbered = {int(key): name for key, name in entries if str(key).isdecimal() and isinstance(name, str) and name}
    if not entries or len(numbered) != len(entries) or len(set(numbered.values())) != len(entries):
        raise InputError(
            f'{uri}: expected the class of each mask value, {{"0": "road", "1": "car", ...}}, '
            "each name once: write it, or name another file by the option classes"
        )
    return numbered


def open_hf(
    root: str,
    *,
    folder: Annotated[str, "where the Parquet files are; empty: anywhere below the root"] = "",
    image: Annotated[str, "column of the images; empty: by its usual names"] = "",
    label: Annotated[str, "column of the masks; empty: by its usual names"] = "",
    classes: Annotated[
        str,
        'JSON file of {"mask value": "name"}, below the root or anywhere; empty: id2label.json, or the feature',
    ] = "",
    ignore: Annotated[int, "a mask value that means void, besides 255; -1: none"] = -1,
    reduce_zero: Annotated[
        bool, "true: 0 is void and class k is written as k + 1 (Transformers' do_reduce_labels)"
    ] = False,
    licence: Licence = "not stated",
) -> HuggingFace:
    """Opens a dataset's folder. Raises InputError on a bad option, no table or no class names."""
    folder = folder.strip("/")
    info = describe_table(inside(root, next(iter(_files(root, folder)))))
    columns = (_column(image, IMAGE_COLUMNS, info), _column(label, LABEL_COLUMNS, info))
    listed = sorted(_names(root, classes, info, columns[1]).items())
    names = {raw: name for raw, name in listed if raw + int(reduce_zero) != ignore}
    table, ignore_index = value_table(root, names, ignore=ignore, reduce_zero=reduce_zero)
    infos = tuple(ClassInfo(name=name, colour=class_colour(k + 1)) for k, name in enumerate(names.values()))
    return HuggingFace(
        root=root,
        folder=folder,
        columns=columns,
        classes=infos,
        ignore_index=ignore_index,
        table=table,
        licence=licence,
    )


INFO = SourceInfo(
    name="hf",
    open=open_hf,
    summary="Hugging Face datasets on disk: Parquet files of images and masks, id2label.json",
    licence="as its owner states (option licence)",
    tasks=(Task.SEMANTIC,),
    layout=("data/{train,validation,test}-00000-of-00002.parquet", "id2label.json"),
)
