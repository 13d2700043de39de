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


def test_what_is_legible_stays_itself() -> None:
    entry = QuarantineEntry(file="a.png", item="ä b", reason="truncated", detail="ends early")
    assert legible(entry) is entry
