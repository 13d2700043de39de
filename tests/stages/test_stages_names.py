"""Names that no text can hold are refused with the sample, and shown escaped."""

from segpipe.stages.names import checked, legible
from segpipe.types import QuarantineEntry, SampleRef


def ref(name: str) -> SampleRef:
    return SampleRef(sample_id=name, split="train", group="g", files=(f"{name}.png",), extra={})


def test_illegible_names_are_refused_and_escaped() -> None:
    fault = QuarantineEntry(file="a\x07.png", item="a", reason="truncated", detail="'a\x07.png' ends early")
    kept, refused = checked([ref("fine ä‮"), ref("two\nlines"), ref("no utf-8 \udcff")], [fault])
    assert [sample.sample_id for sample in kept] == ["fine ä‮"]
    assert [(entry.file, entry.reason) for entry in refused] == [
        ("a\\x07.png", "truncated"),
        ("two\\nlines.png", "bad_name"),
        ("no utf-8 \\udcff.png", "bad_name"),
    ]
    assert refused[0].detail == "'a\\x07.png' ends early"


def test_odd_names_are_kept_and_what_breaks_a_line_is_not() -> None:
    odd = [" ", "\u00a0\u3000", "\u0301\u0308", "\U0001f469\u200d\U0001f52c", "a\u202eb", "\ufeff", "\ue000"]
    assert [sample.sample_id for sample in checked([ref(name) for name in odd], [])[0]] == odd
    broken = ["\0", "\t", "\r", "\x1b[2J", "\x7f", "\x85", "\x9b2J", "\u2028", "\u2029", "\ud800"]
    kept, refused = checked([ref(f"img{name}") for name in broken], [])
    assert (kept, [entry.reason for entry in refused]) == ([], ["bad_name"] * len(broken))
    assert all(entry.file.isascii() and entry.file.isprintable() for entry in refused)


def test_what_is_legible_stays_itself() -> None:
    entry = QuarantineEntry(file="a.png", item="ä b", reason="truncated", detail="ends early")
    assert legible(entry) is entry
