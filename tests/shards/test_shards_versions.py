"""Versions: published whole or not at all, and found by their beginning."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segpipe import shards, storage
from segpipe.errors import ConflictError, CorruptError, InputError
from tests.fixtures.publish_worker import make_and_publish
from tests.fixtures.samples import manifest_of, semantic_sample


def test_publishing_again_changes_nothing(root: str) -> None:
    version, news = make_and_publish(root)
    before = storage.list_tree(root)
    assert news == "published"
    assert make_and_publish(root) == (version, "already_published")
    assert storage.list_tree(root) == before
    assert storage.records(storage.join(root, "log")) == [(1, {"version": version})]


def test_an_older_version_can_become_current_again(root: str) -> None:
    first, _ = make_and_publish(root)
    second, _ = make_and_publish(root, 100)
    assert make_and_publish(root) == (first, "published")
    assert [record["version"] for _, record in storage.records(storage.join(root, "log"))] == [first, second, first]


def test_publishing_again_brings_back_a_manifest_that_was_lost(tmp_path: Path) -> None:
    version, _ = make_and_publish(str(tmp_path))
    (manifest,) = (tmp_path / "manifests").iterdir()
    content = manifest.read_bytes()
    manifest.unlink()
    assert make_and_publish(str(tmp_path)) == (version, "already_published")
    assert manifest.read_bytes() == content


def test_a_manifest_is_published_only_over_its_shards(tmp_path: Path) -> None:
    result = shards.write_shard([semantic_sample(0)], str(tmp_path), "train")
    with pytest.raises(InputError, match=r"shards/train-.* no such file"):
        shards.publish(str(tmp_path / "elsewhere"), manifest_of([result]))
    assert result.shard is not None
    with open(tmp_path / result.shard.path, "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="the manifest says"):
        shards.publish(str(tmp_path), manifest_of([result]))
    assert not (tmp_path / "log").exists()


def test_an_inconsistent_manifest_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be published: manifest: classes is"):
        shards.publish(str(tmp_path), manifest_of([], num_classes=0))


@pytest.mark.parametrize("same", [True, False])
def test_of_eight_publishers_at_once_one_wins(root: str, same: bool) -> None:
    """Threads, on both stores. Row A2 of the goal sheet."""
    results = [shards.write_shard([semantic_sample(0 if same else n)], root, "train") for n in range(8)]

    def publish(number: int) -> str:
        try:
            return shards.publish(root, manifest_of([results[number]]))[1]
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(publish, range(8)))
    count = len(storage.records(storage.join(root, "log")))
    assert answers.count("published") == count
    assert set(answers) <= {"published", "already_published" if same else "conflict"}
    assert count == 1 or not same, "a late thread may publish on top of the first; never two under one number"


def test_a_version_is_current_or_named_by_its_beginning(root: str) -> None:
    first, _ = make_and_publish(root)
    second, _ = make_and_publish(root, 100)
    assert shards.open_dataset(root).version == second
    assert shards.open_dataset(root, version=first).version == first
    assert shards.open_dataset(root, version=first[:8]).version == first
    assert next(shards.open_dataset(root, version=first[:12]).samples("train")) == semantic_sample(0)
    absent = "0" * 8 if not first.startswith("0") and not second.startswith("0") else "f" * 8
    with pytest.raises(InputError, match=f"version {absent} is not here; there are: .*{first[:12]}"):
        shards.open_dataset(root, version=absent)
    for wrong in (first[:7], first.upper()[:9] + "G", "../../etc", ""):
        with pytest.raises(InputError, match="expected 8 to 64 hex digits"):
            shards.open_dataset(root, version=wrong)


def test_an_ambiguous_beginning_is_refused(tmp_path: Path) -> None:
    for end in "ab":
        storage.write_once(str(tmp_path / "manifests" / f"{'0' * 63}{end}.json"), b"{}")
    with pytest.raises(InputError, match="fits 2 versions, give more digits"):
        shards.open_dataset(str(tmp_path), version="0" * 8)


def test_a_log_that_names_a_lost_version_is_corrupt(tmp_path: Path) -> None:
    version, _ = make_and_publish(str(tmp_path))
    (tmp_path / "manifests" / f"{version}.json").unlink()
    with pytest.raises(CorruptError, match=f"000001.json: names version {version[:12]}, whose manifest is missing"):
        shards.open_dataset(str(tmp_path))
