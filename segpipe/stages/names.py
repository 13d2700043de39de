"""Names from data that no line of text can hold: control characters, bytes that are no UTF-8. Called by `ingest.py`.

A file may be called anything. Its name becomes a sample id, a line of a list of bad files, a message in a terminal, so
one that holds such signs is refused as the sample that it belongs to, and shown with them escaped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from segpipe.types import QuarantineEntry, SampleRef


def checked(
    refs: Sequence[SampleRef], refused: Sequence[QuarantineEntry]
) -> tuple[list[SampleRef], list[QuarantineEntry]]:
    """What `Source.index` gave, without the samples of illegible names, which are refused with the rest."""
    kept, more = list[SampleRef](), list[QuarantineEntry]()
    for ref in refs:
        if all(map(_is_legible, (ref.sample_id, ref.group, *ref.files))):
            kept.append(ref)
            continue
        detail = "its name holds control characters or is no UTF-8: rename the file"
        file = ref.files[0] if ref.files else ref.sample_id
        more.append(legible(QuarantineEntry(file=file, item=ref.sample_id, reason="bad_name", detail=detail)))
    return kept, [*map(legible, refused), *more]


def legible(entry: QuarantineEntry) -> QuarantineEntry:
    """The entry with every such sign escaped as Python does; itself where there is none."""
    if all(map(_is_legible, (entry.file, entry.item, entry.detail))):
        return entry
    return replace(entry, file=escaped(entry.file), item=escaped(entry.item), detail=escaped(entry.detail))


def _is_legible(text: str) -> bool:
    """No control character, half of a pair, or end of a line or paragraph: Unicode has two of its own."""
    return text.isprintable() or not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in text)


def escaped(text: str) -> str:
    """The text with every such sign as Python writes it."""
    return "".join(sign if _is_legible(sign) else sign.encode("unicode_escape").decode() for sign in text)
