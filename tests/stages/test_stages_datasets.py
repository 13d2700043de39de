"""Which dataset a person means: a name of the home, a folder, a URI."""

from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import InputError
from segpipe.stages import datasets, layout


def test_a_bare_name_is_one_of_the_home_unless_a_dataset_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("roofs", "streets"):
        storage.write_once(storage.join(layout.dataset_uri(name), "log", "000001.json"), b"{}")
    (tmp_path / "roofs" / "images").mkdir(parents=True)  # the files that it was made of
    storage.write_once(str(tmp_path / "streets" / "log" / "000001.json"), b"{}")
    assert datasets.names() == ["roofs", "streets"]
    assert datasets.found("roofs") == layout.dataset_uri("roofs")
    assert datasets.found("streets") == str(tmp_path / "streets")
    for place in ("./roofs", "some/where", "Roofs"):
        assert datasets.found(place) == str(tmp_path / place)
    assert datasets.found("s3://bucket/roofs") == "s3://bucket/roofs"


def test_a_name_that_nothing_has_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"'roof': no dataset here, .* there are: none\.") as caught:
        datasets.found("roof")
    looked = f"(looked for {Path('roof').absolute()} and {layout.dataset_uri('roof')})"
    assert looked in str(caught.value)
    assert "the folder or URI of a dataset that was ingested elsewhere (--to)" in str(caught.value)
    storage.write_once(storage.join(layout.dataset_uri("roofs"), "log", "000001.json"), b"{}")
    with pytest.raises(InputError, match=r"did you mean 'roofs'\? there are: roofs\."):
        datasets.found("roof")
