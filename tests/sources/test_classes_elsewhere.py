"""The option `classes` of a user's own data: below the root, or anywhere by an absolute path or a URI."""

import json
import os
from pathlib import Path

import fsspec
import pytest

from segpipe.errors import InputError
from segpipe.sources import open_source
from tests.fixtures.mini_datasets import WRITERS

# What to write for each source, from the names that its mini dataset has.
SPELLINGS = {"folder": "json", "labelme": "txt", "hf": "json"}


def _classes(name: str, root: Path) -> str:
    """The text of a classes file that says what the mini dataset says, with the last class called `other`."""
    names = [info.name for info in open_source(name, str(root)).classes]
    if name == "labelme":
        return "\n".join([*names[1:], "other"])
    if name == "hf":
        return json.dumps({str(raw): text for raw, text in enumerate([*names[:-1], "other"])})
    return json.dumps([{"name": text, "id": raw} for raw, text in enumerate([*names[:-1], "other"])])


@pytest.mark.parametrize("name", sorted(SPELLINGS))
@pytest.mark.parametrize("where", ["path", "home", "uri", "link"])
def test_a_classes_file_may_lie_outside_of_the_root(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, file = tmp_path / "root", f"names.{SPELLINGS[name]}"
    WRITERS[name](root)
    text = _classes(name, root)
    (tmp_path / file).write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    os.symlink(tmp_path / file, tmp_path / f"linked.{SPELLINGS[name]}")
    fsspec.filesystem("memory").pipe(f"/elsewhere/{name}/{file}", text.encode())
    place = {
        "path": str(tmp_path / file),
        "home": f"~/{file}",
        "uri": f"memory://elsewhere/{name}/{file}",
        "link": str(tmp_path / f"linked.{SPELLINGS[name]}"),
    }
    found = open_source(name, str(root), {"classes": place[where]})
    assert found.classes[-1].name == "other"
    assert found.index().refs


@pytest.mark.parametrize("name", sorted(SPELLINGS))
def test_a_relative_path_stays_below_the_root(name: str, tmp_path: Path) -> None:
    root, file = tmp_path / "root", f"names.{SPELLINGS[name]}"
    WRITERS[name](root)
    (tmp_path / file).write_text(_classes(name, root))
    with pytest.raises(InputError, match=rf"'../{file}' leads out of .*root: give a path below it, or an absolute one"):
        open_source(name, str(root), {"classes": f"../{file}"})
    os.symlink(tmp_path / file, root / file)
    with pytest.raises(InputError, match=r"is a link out of the root"):
        open_source(name, str(root), {"classes": file})
    absent = str(tmp_path / f"absent.{SPELLINGS[name]}")
    with pytest.raises(InputError, match=absent):
        open_source(name, str(root), {"classes": absent})
