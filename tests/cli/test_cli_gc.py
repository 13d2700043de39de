"""`segpipe data gc`: looks only, unless it is told to delete; says what and why."""

from pathlib import Path

import pytest

from segpipe.stages import at_work, layout
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.pictures import photograph


@pytest.mark.usefixtures("one_core")
def test_what_would_go_is_told_and_goes_when_asked(tmp_path: Path) -> None:
    root = write_folder_mini(tmp_path / "root", lists=True)
    ingest = ("ingest", "folder", str(root), "--name", "roofs", "--json")
    old = document(segpipe(*ingest))["version"]
    (root / "images" / "img_000.jpg").write_bytes(photograph(24, 30, number=77))
    new = document(segpipe(*ingest))["version"]
    asked = ("data", "gc", "--keep", "1", "--min-age", "0")
    shown = segpipe(*asked)
    assert shown.exit_code == 0
    assert "would go; nothing was changed: add --delete" in shown.stdout
    assert "1 old version" in shown.stdout
    in_full = segpipe(*asked, "--verbose").stdout
    assert f"version {old[:12]} goes" in in_full
    assert "the current one" in in_full
    assert segpipe(*asked, "--keep", "9").stdout.endswith("nothing to remove; what stays, and why: --verbose\n")
    uri = layout.dataset_uri("roofs")
    with at_work.ingesting(uri):
        later = segpipe(*asked, "--delete")
    assert later.exit_code == 1
    assert "is at work there since" in later.stdout
    told = document(segpipe(*asked, "--delete", "--json"))
    assert told["deleted"]
    assert {each["path"].partition("/")[0] for each in told["places"][0]["going"]} == {
        "receipts",
        "manifests",
        "fingerprints",
        "shards",
    }
    assert [path.stem for path in Path(uri, "manifests").iterdir()] == [new]
    first, second = document(segpipe("data", "log", "roofs", "--json"))
    assert (first["version"], first["splits"], first["state"][:11]) == (old, {}, "was removed")
    assert (second["version"], second["splits"], second["state"]) == (new, {"train": 16, "val": 4}, "current")
    listed = segpipe("data", "log", "roofs").stdout
    assert all(words in listed for words in (old[:12], new[:12], "train 16, val 4", "by `segpipe data gc` of"))
    assert "0 bytes removed" in segpipe(*asked, "--delete").stdout
    assert document(segpipe("data", "inspect", uri, "--json"))["version"] == new
