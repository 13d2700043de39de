"""What an evaluation left in its folder: `report.json`, card and pictures. Written by `evaluate.py`, read here.

Imports nothing heavy: a board must not wait for torch.
"""

from __future__ import annotations

import logging

from segpipe import reports, storage
from segpipe.errors import CorruptError, InputError
from segpipe.types import EvalReport

_log = logging.getLogger(__name__)
REPORT, CARD = "report.json", "card.html"


def load_report(folder: str) -> EvalReport:
    """The report of an evaluation folder. Raises InputError when there is none, CorruptError when it is damaged."""
    path = storage.join(folder, REPORT)
    try:
        return reports.from_plain(EvalReport, storage.read_json(path), origin=path)
    except CorruptError as error:
        raise CorruptError(
            f"{error}. Delete {path} and run the command that made it again (`segpipe retrain` "
            "or `segpipe evaluate`): the stored model is scored once more, and nothing else changes"
        ) from error


def load_reports(place: str) -> dict[str, EvalReport]:
    """The report of every evaluation folder at or below `place`, which may be a `report.json` itself, by that folder.
    Raises as `load_report`; InputError when there is none."""
    place = place.removesuffix(f"/{REPORT}")
    found = [f"{place}/{path}".removesuffix(f"/{REPORT}") for path in storage.list_tree(place, suffix=REPORT)]
    if not found:
        raise InputError(f"{place}: holds no {REPORT}; give a folder that `segpipe evaluate` or a retrain filled")
    return {folder: load_report(folder) for folder in found}


def finished_report(folder: str, *, weights: str | None = None) -> EvalReport | None:
    """The report of an evaluation folder; None when there is none, or one that cannot be read. Where `weights` are
    named, by their SHA-256, None of others, too: their counts of thousands of images are not even looked through."""
    path = storage.join(folder, REPORT)
    if not storage.exists(path):
        return None
    try:
        document = storage.read_json(path)
        if weights is not None and isinstance(document, dict) and document.get("weights_sha256") != weights:
            return None
        return reports.from_plain(EvalReport, document, origin=path)
    except CorruptError as error:
        _log.warning("an evaluation cannot be used and is made again: %s", error)
        return None


def load_pictures(folder: str, *, at_most: int | None = None) -> list[tuple[str, bytes]]:
    """(name, PNG bytes) of an evaluation folder's pictures, in the order of their names."""
    pictures = storage.join(folder, "pictures")
    names = storage.list_names(pictures, suffix=".png")[:at_most]
    return [(name, storage.read_bytes(storage.join(pictures, name))) for name in names]


def shown_name(picture: str) -> str:
    """What the file of a picture is of, for people: the sample's id as far as a file name has it, without the hash
    that keeps two of one beginning apart."""
    return picture.removesuffix(".png").rpartition("-")[0] or picture


def load_card(folder: str) -> bytes | None:
    """The model card of an evaluation folder; None where none could be made."""
    path = storage.join(folder, CARD)
    return storage.read_bytes(path) if storage.exists(path) else None
