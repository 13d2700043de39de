"""What nobody needs is told and removed; what somebody needs stays, whoever dies on the way."""

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from segpipe import storage
from segpipe.errors import ConflictError, CorruptError, InputError
from segpipe.shards import open_dataset
from segpipe.stages import at_work, gc, layout
from segpipe.stages.gc import dataset
from segpipe.stages.ingest import ingest
from segpipe.stages.quarantine import QuarantineLimitError
from tests.fixtures import check_dataset
from tests.fixtures.collect_worker import collect, collect_but_one, read_for_ever
from tests.fixtures.ingest_worker import streets, write_pair, write_streets
from tests.fixtures.object_store import root
from tests.fixtures.publish_worker import finish_child, make_and_publish, run_child, start_child

pytestmark = [pytest.mark.usefixtures("one_core"), pytest.mark.xdist_group("ingest")]
__all__ = ["root"]


def change(source: Path, number: int) -> None:
    """Gives the one picture of val other pixels; `train` stays, and so does its shard."""
    for file in (source / "images" / "val_000.png", source / "masks" / "val_000.png"):
        file.unlink()
        write_pair(source, f"other_{number}")
        (source / file.parent.name / f"other_{number}.png").rename(file)
    for folder in ("images", "masks"):
        (source / folder / f"other_{number}.png").unlink(missing_ok=True)


def versions(to: str, tmp_path: Path, count: int) -> tuple[Path, list[str]]:
    """A source, and the versions that it was published as, one after the other."""
    source, found = write_streets(tmp_path / "root", splits={"train": 2, "val": 1}), []
    for number in range(count):
        change(source, number)
        found.append(ingest(streets(source), to=to).version)
    assert len(set(found)) == count
    return source, found


def kinds(place: gc.Place) -> list[str]:
    return [each.path.partition("/")[0] for each in place.going]


def test_versions_before_the_last_go_and_the_others_stay_whole(root: str, tmp_path: Path) -> None:
    source, (first, second, third, fourth) = versions(root, tmp_path, 4)
    before = storage.inventory(root)
    told = collect(root, delete=False)
    assert storage.inventory(root) == before, "who only looks changes nothing"
    done = collect(root)
    assert (told.going, told.staying, told.deleted, done.deleted) == (done.going, done.staying, False, True)
    expected = [kind for kind in ("receipts", "manifests", "fingerprints", "shards") for _ in range(2)]
    assert kinds(done) == expected, "the one shard of train is in every version"
    assert done.bytes == sum(each.bytes for each in before if each.path in {going.path for going in done.going})
    assert [each.why for each in done.staying] == ["the current one", "one of the last 2"]
    for version in (third, fourth):
        dataset = open_dataset(root, version=version)
        assert [len(list(dataset.samples(split))) for split in ("train", "val")] == [2, 1]
    with pytest.raises(InputError, match=f"version {first[:8]} was removed on 20"):
        open_dataset(root, version=first[:8])
    assert collect(root).going == ()
    change(source, 1)
    assert ingest(streets(source), to=root).version == second, "what comes again is published again"
    assert open_dataset(root).version == second


def test_the_independent_checker_agrees(tmp_path: Path) -> None:
    to = tmp_path / "to"
    _, found = versions(str(to), tmp_path, 3)
    (to / "notes.txt").write_text("mine")
    assert collect(str(to), keep=1).problem is None
    assert check_dataset.versions(to) == found[2:]
    assert check_dataset.leftovers(to) == []
    assert (to / "notes.txt").read_text() == "mine"
    assert {path.stem for path in (to / "removed").iterdir()} == set(found[:2])


def test_a_removal_that_is_killed_at_any_step_goes_on(tmp_path: Path) -> None:
    step, status = 0, 137
    _, found = versions(str(tmp_path / "whole"), tmp_path, 2)
    while status:
        step += 1
        to = shutil.copytree(tmp_path / "whole", tmp_path / f"step{step}")
        status, _ = run_child(collect_but_one, str(to), environment={"SEGPIPE_FAILPOINT": f"*:{step}"})
        assert status in (0, 137)
        assert check_dataset.versions(to) in (found, found[1:])
        collect_but_one(str(to))
        assert check_dataset.versions(to) == found[1:]
        assert check_dataset.leftovers(to) == []
        assert len(list((to / "shards").iterdir())) == 2
        assert {path.stem for path in (to / "fingerprints").iterdir()} == {found[1]}
    assert step >= 12


@pytest.mark.parametrize(
    "place",
    [
        "ledger/night/000001.json",
        "nights/night/000001.json",
        "pending/night/run-1.json",
        "runs/night/unet-0/data.json",
        "runs/night/unet-0/train.json",
        "runs/night/unet-0/model/model.json",
        "evaluations/night/{version:.12}/unet-0/report.json",
    ],
)
def test_a_version_that_the_home_names_stays(place: str, tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    _, (first, second, _) = versions(to, tmp_path, 3)
    file = place.format(version=first)
    storage.write_json_once(storage.join(layout.home(), file), {"a": [{"dataset_version": first}], "version": second})
    staying = {each.name: each.why for each in collect(to, keep=1).staying}
    assert staying[f"version {first[:12]}"] == f"{file} names it"
    assert open_dataset(to, version=first)
    with pytest.raises(InputError, match="was removed on"):
        open_dataset(to, version=second)


def test_where_it_is_not_known_what_is_named_nothing_goes(tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    _, found = versions(to, tmp_path, 2)
    storage.write_once(storage.join(layout.home(), "runs/night/unet-0/train.json"), b"{")
    with pytest.raises(CorruptError, match=r"train\.json: .* none is removed"):
        collect(to, keep=1)
    assert check_dataset.versions(Path(to)) == found


def test_a_removal_that_ends_half_way_tells_what_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who does not claim the dataset publishes between its manifests and its shards."""
    to = str(tmp_path / "to")
    _, found = versions(to, tmp_path, 3)
    delete_each = storage.delete_each

    def publish_late(uris: Sequence[str]) -> Iterator[str]:
        yield from delete_each(uris)
        if "/manifests/" in "".join(uris):
            make_and_publish(to, 0)

    monkeypatch.setattr(storage, "delete_each", publish_late)
    place = collect(to, keep=1)
    assert "was published while this ran" in str(place.problem)
    assert (place.deleted, place.bytes > 0) == (True, True)
    assert kinds(place) == [kind for kind in ("receipts", "manifests", "fingerprints") for _ in range(2)]
    assert {each.path for each in place.going}.isdisjoint(each.path for each in storage.inventory(to))
    assert [each.name for each in place.staying] == [f"version {found[2][:12]}"]


@pytest.mark.parametrize("delete", [False, True])
def test_one_damaged_dataset_of_a_home_does_not_stop_the_others(delete: bool, tmp_path: Path) -> None:
    good, bad = (storage.join(layout.home(), "datasets", name) for name in ("good", "bad"))
    for name, to in (("one", good), ("two", bad)):
        _, found = versions(to, tmp_path / name, 2)
        (Path(to) / "notes.txt").write_text("mine")
    (Path(bad) / "manifests" / f"{found[1]}.json").write_text("{}")
    places = {place.uri: place for place in gc.collect(keep=1, min_age_hours=0, delete=delete).places}
    assert "differs from its name" in str(places[bad].problem)
    assert (places[bad].going, places[bad].deleted) == ((), False)
    assert (places[good].problem, places[good].deleted) == (None, delete)
    assert len(places[good].going) == 4
    assert len(list((Path(good) / "manifests").iterdir())) == (1 if delete else 2)


@pytest.mark.parametrize("delete", [False, True])
def test_what_the_home_names_is_read_once_to_look_and_anew_for_each_to_delete(
    delete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anew, since a training may have begun or ended meanwhile."""
    for name in ("one", "two", "three"):
        make_and_publish(layout.dataset_uri(name))
    named, reads = gc.named_versions, list[str]()
    monkeypatch.setattr(gc, "named_versions", lambda: reads.append("") or named())
    assert len(gc.collect(delete=delete).places) == 3 + len(("rehearsals", "runs"))
    assert len(reads) == (3 if delete else 1)


def test_a_damaged_manifest_that_stays_stops_everything(tmp_path: Path) -> None:
    to = tmp_path / "to"
    _, found = versions(str(to), tmp_path, 3)
    (to / "manifests" / f"{found[1]}.json").write_text("{}")
    before = sorted(to.glob("*/*"))
    with pytest.raises(CorruptError, match="differs from its name"):
        collect(str(to))
    assert sorted(to.glob("*/*")) == before


def test_what_is_young_stays_and_what_a_killed_ingest_left_goes_when_it_is_old(tmp_path: Path) -> None:
    to = tmp_path / "to"
    _, found = versions(str(to), tmp_path, 3)
    left = to / "shards" / f"train-{'0' * 20}.parquet"
    left.write_bytes(b"half of an ingest")
    young = collect(str(to), keep=1, min_age_hours=1)
    assert young.going == ()
    assert [each.why for each in young.staying][:2] == ["the current one; too young", "too young"]
    assert "1 file of no version, 17 bytes" in [each.name for each in young.staying]
    os.utime(left, (time.time() - 3700,) * 2)
    assert [each.path for each in collect(str(to), keep=1, min_age_hours=1).going] == [f"shards/{left.name}"]
    assert not left.exists()
    assert check_dataset.versions(to) == found


def test_what_a_first_ingest_left_that_published_nothing_goes(tmp_path: Path) -> None:
    """Refused, as here, or killed: there is no version and no log, and yet a folder full of shards."""
    source = write_streets(tmp_path / "root", splits={"train": 2, "val": 1})
    (source / "images" / "val_000.png").write_bytes(b"not a picture")
    uri = layout.dataset_uri("streets")
    with pytest.raises(QuarantineLimitError):
        ingest(streets(source), to=uri)
    young = next(place for place in gc.collect().places if place.uri == uri)
    assert (young.going, young.stays.split(",")[0]) == ((), "2 files of no version")
    told = next(place for place in gc.collect(min_age_hours=0).places if place.uri == uri)
    assert (kinds(told), told.reasons) == (["quarantine", "shards"], "left by an ingest that published nothing")
    assert (collect("streets").going, storage.inventory(uri)) == (told.going, [])
    with pytest.raises(InputError, match="'streets': no dataset here, and none of that name"):
        gc.collect("streets")


def test_a_version_that_is_read_stays_until_its_reader_is_killed(tmp_path: Path) -> None:
    to, sign = str(tmp_path / "to"), tmp_path / "ready"
    _, (first, *_) = versions(to, tmp_path, 3)
    started = start_child(read_for_ever, to, first[:8], str(sign))
    until = time.monotonic() + 60
    while not sign.exists() and time.monotonic() < until:
        time.sleep(0.02)
    staying = {each.name: each.why for each in collect(to, keep=1).staying}
    assert f"(process {started[0].pid} on " in staying[f"version {first[:12]}"]
    os.kill(started[0].pid, signal.SIGKILL)
    finish_child(started)
    assert f"manifests/{first}.json" in [each.path for each in collect(to, keep=1).going]


def test_a_dataset_that_may_not_be_written_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    to = str(tmp_path / "to")
    _, (version,) = versions(to, tmp_path, 1)

    def refuse(uri: str, data: bytes) -> bool:
        raise InputError(f"{uri}: cannot be written")

    monkeypatch.setattr("segpipe.storage.claims.write_once", refuse)
    with at_work.reading(to, version):
        assert "cannot see that version" in caplog.text
    with pytest.raises(InputError, match="is not here"), at_work.reading(str(tmp_path / "typo"), version):
        pytest.fail("there is none")
    assert not (tmp_path / "typo").exists()


def test_who_publishes_without_a_claim_keeps_its_shards(tmp_path: Path) -> None:
    """An older segpipe on another host, say: its version was not there when the plan was made."""
    to = tmp_path / "to"
    make_and_publish(str(to), 0)
    make_and_publish(str(to), 50)
    (to / "manifests" / f"{check_dataset.versions(to)[0]}.json").rename(tmp_path / "manifest")
    with at_work.collecting(str(to)) as (now, _):
        plan = dataset.plan(str(to), keep=1, min_age=0, named={}, readers=(), now=now)
        assert [each.path.partition("/")[0] for each in plan.going] == ["shards"] * 2
        make_and_publish(str(to), 0)
        with pytest.raises(ConflictError, match="was published while this ran"):
            list(dataset.remove(str(to), plan))
    assert len(check_dataset.versions(to)) == 3


def test_what_is_asked_wrongly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset here"):
        gc.collect(str(tmp_path / "typo"), delete=True)
    assert not (tmp_path / "typo").exists()
    with pytest.raises(InputError, match="at least one version"):
        gc.collect(keep=0)
    assert gc.collect().bytes == 0
