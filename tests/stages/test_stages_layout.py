"""Where results lie."""

from pathlib import Path

import pytest

from segpipe.errors import InputError
from segpipe.stages import layout


@pytest.mark.parametrize(
    ("value", "home", "local"),
    [
        ("/data/home", "/data/home", "/data/home"),
        ("nights", "{here}/nights", "{here}/nights"),
        ("", "{here}/.segpipe", "{here}/.segpipe"),
        ("s3://bucket/key", "s3://bucket/key", "{here}/.segpipe"),
    ],
)
def test_the_home_is_absolute_or_a_uri(
    value: str, home: str, local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGPIPE_HOME", value)
    assert layout.home() == home.format(here=tmp_path)
    assert layout.local_home() == local.format(here=tmp_path)
    assert not list(tmp_path.iterdir()), "asking makes nothing"


def test_each_kind_of_result_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", "/home")
    assert layout.dataset_uri("camvid") == "/home/datasets/camvid"
    assert layout.runs_uri("camvid") == "/home/runs/camvid"
    assert layout.evaluations_uri("camvid") == "/home/evaluations/camvid"
    assert layout.ledger_uri("camvid") == "/home/ledger/camvid"
    assert layout.nights_uri("camvid") == "/home/nights/camvid"
    assert layout.pending_uri("camvid") == "/home/pending/camvid"


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "", "a\\b"])
def test_a_name_cannot_lead_out_of_the_home(name: str) -> None:
    for place in (layout.dataset_uri, layout.runs_uri, layout.ledger_uri, layout.nights_uri):
        with pytest.raises(InputError, match="not a relative path inside this folder"):
            place(name)


def test_a_key_tells_its_parts_apart() -> None:
    keys = [layout.key("a", "bc"), layout.key("ab", "c"), layout.key("abc"), layout.key("bc", "a"), layout.key()]
    assert len(set(keys)) == 5
    assert all(len(key) == 12 for key in keys)
    assert layout.run_key("config", "version", "code") == layout.key("config", "version", "code")
    assert layout.run_name("unet", "config", "version", "code") == f"unet-{layout.key('config', 'version', 'code')}"


@pytest.mark.parametrize(
    ("path", "label", "run"),
    [
        ("runs/camvid/unet_r18-0123456789ab/model", "unet_r18", "01234567"),
        ("s3://bucket/runs/fcn-a-0123456789ab/model/", "fcn-a", "01234567"),
        ("elsewhere/model", "model", ""),
        ("weights", "model", ""),
    ],
)
def test_label_and_run_are_read_from_the_path_of_a_run(path: str, label: str, run: str) -> None:
    assert (layout.label_of(path), layout.run_of(path)) == (label, run)
