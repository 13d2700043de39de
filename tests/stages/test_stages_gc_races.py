"""A collection beside an ingest that finds a shard there already: no version is published without its shards."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segpipe import storage
from segpipe.errors import InputError
from segpipe.shards import publish
from segpipe.stages import at_work
from segpipe.stages import ingest as stage
from segpipe.stages.gc import dataset
from segpipe.stages.gc.outcome import Going
from segpipe.stages.ingest import ingest
from tests.fixtures import check_dataset
from tests.fixtures.collect_worker import collect, ingest_in_turn
from tests.fixtures.ingest_worker import streets, write_streets
from tests.fixtures.publish_worker import finish_child, start_child

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two sources that share the shard of train."""
    return tuple(  # type: ignore[return-value]
        write_streets(tmp_path / name, splits={"train": 2, split: 1}) for name, split in (("a", "val"), ("b", "test"))
    )


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    came_to: list[Any] = []
    thread = threading.Thread(target=lambda: came_to.append(work()))
    thread.start()
    return thread, came_to


def orphan(to: Path, twins: tuple[Path, Path]) -> None:
    """A dataset whose shard of train no version names: what a killed ingest left beside another one's version."""
    ingest(streets(twins[0]), to=str(to / "whole"))
    ingest(streets(write_streets(twins[0].parent / "c", splits={"val": 2})), to=str(to))
    (file,) = (to / "whole" / "shards").glob("train-*")
    file.rename(to / "shards" / file.name)


def test_a_collection_does_not_begin_beside_an_ingest(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    orphan(to, twins)
    stored, go_on = threading.Event(), threading.Event()

    def publish_later(*arguments: Any) -> Any:
        stored.set()
        assert go_on.wait(60)
        return publish(*arguments)

    monkeypatch.setattr(stage, "publish", publish_later)
    thread, came_to = in_background(lambda: ingest(streets(twins[0]), to=str(to)).version)
    assert stored.wait(60)
    place = collect(str(to), keep=1)
    assert (place.going, place.deleted) == ((), False)
    assert f"(process {os.getpid()} on " in str(place.problem)
    assert "nothing was removed" in str(place.problem)
    go_on.set()
    thread.join(60)
    assert check_dataset.versions(to)[-1] == came_to[0]
    assert collect(str(to), keep=1).problem is None
    assert check_dataset.versions(to) == came_to


def test_an_ingest_waits_for_a_collection_and_stores_anew_what_it_removed(
    twins: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(at_work, "POLL_SECONDS", 0.02)
    to = tmp_path / "to"
    orphan(to, twins)
    looked, go_on = threading.Event(), threading.Event()

    def remove_later(*arguments: Any) -> Iterator[Going]:
        looked.set()
        assert go_on.wait(60)
        yield from remove(*arguments)

    remove = dataset.remove
    monkeypatch.setattr(dataset, "remove", remove_later)
    collection, place = in_background(lambda: collect(str(to), keep=1))
    assert looked.wait(60)
    thread, came_to = in_background(lambda: ingest(streets(twins[1]), to=str(to)).version)
    while "waiting for gc" not in caplog.text:
        thread.join(0.05)
    assert came_to == []
    go_on.set()
    collection.join(60)
    thread.join(60)
    assert [each.path.partition("-")[0] for each in place[0].going] == ["shards/train"]
    assert check_dataset.versions(to)[-1] == came_to[0]


def test_two_collections_at_once_do_no_harm(twins: tuple[Path, Path], tmp_path: Path) -> None:
    to = tmp_path / "to"
    orphan(to, twins)
    with at_work.collecting(str(to)):
        assert "gc of" in str(collect(str(to), keep=1).problem)
    assert collect(str(to), keep=1).problem is None


@pytest.fixture
def two_versions(twins: tuple[Path, Path], tmp_path: Path) -> tuple[str, list[str]]:
    to = str(tmp_path / "to")
    return to, [ingest(streets(twin), to=to).version for twin in twins]


def test_a_reader_that_waited_for_a_collector_looks_again(
    two_versions: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(at_work, "POLL_SECONDS", 0.02)
    to, (old, current) = two_versions

    def read(version: str) -> str:
        try:
            with at_work.reading(to, version):
                return "read"
        except InputError as error:
            return str(error)

    with at_work.collecting(to) as (now, _):
        plan = dataset.plan(to, keep=1, min_age=0, named={}, readers=(), now=now)
        assert plan.versions == (old,)
        assert read(current) == "read", "which no collector removes"
        assert caplog.text == ""
        thread, came_to = in_background(lambda: read(old[:12]))
        while "waiting for gc" not in caplog.text:
            thread.join(0.02)
        for _ in dataset.remove(to, plan):
            pass
    thread.join(60)
    assert re.search(rf"version {old} was removed on 20\d\d-.* by `segpipe data gc` of \S+; there are: ", came_to[0])


def test_a_reader_whose_version_goes_before_it_is_seen_is_told(
    two_versions: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    to, (old, _) = two_versions
    claim = storage.claim

    def claim_late(folder: str, **words: str) -> Any:
        if words["kind"] == at_work.READ:
            assert collect(to, keep=1).going
        return claim(folder, **words)

    monkeypatch.setattr(storage, "claim", claim_late)
    with pytest.raises(InputError, match=r"was removed on .* by `segpipe data gc`"), at_work.reading(to, old):
        pytest.fail("it is not there")


def test_any_mix_of_ingests_and_collections_leaves_whole_versions(twins: tuple[Path, Path], tmp_path: Path) -> None:
    """Everything is removed but the current version, over and over: what one ingest finds there, another may lose."""
    to = tmp_path / "to"
    ingest(streets(twins[0]), to=str(to))
    child = start_child(ingest_in_turn, [str(twin) for twin in twins], str(to), 1)
    removed = rounds = 0
    while child[0].is_alive() and not child[1].poll():
        removed += bool(collect(str(to), keep=1).going)
        rounds += 1
        time.sleep(0.1)
    status, news = finish_child(child)
    assert (status, news) == (0, 8)
    assert rounds > removed > 0
    collect(str(to), keep=1)
    assert len(set(check_dataset.versions(to))) == 1
    assert check_dataset.leftovers(to) == []
    assert storage.inventory(str(to / "claims")) == []
