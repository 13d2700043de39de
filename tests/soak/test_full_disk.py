"""Row A3: the disk gets full at four steps of ingest, with forty sizes of room left: said with the bytes needed."""

import re
from pathlib import Path

import pytest

from segpipe.stages.ingest import ingest
from tests.fixtures import check_dataset
from tests.fixtures.ingest_worker import streets, write_pair, write_streets
from tests.fixtures.small_disk import disk
from tests.fixtures.trials import Trials

# Where room ends: before anything is written, or at a failpoint (a shard begun, all shards there, the manifest there).
PLACES = ("", "shard.group", "publish.begin", "publish.manifest")
SIZES, PAGE = 40, 4096
CLASSES = 1200  # a manifest as long as that of a large vocabulary takes dozens of pages


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and classes enough to fill the sizes, two shards, and one quarantined sample."""
    root = write_streets(tmp_path_factory.mktemp("large") / "root", splits={"train": 34, "val": 2})
    for number in range(34):
        write_pair(root, f"train_{number:03d}", size=(40, 60))
    (root / "images" / "val_001.png").write_bytes(b"")
    names = ("ground", "car", "tree", *(f"class {number} of a vocabulary" for number in range(3, CLASSES)))
    (root / "classes.txt").write_text("\n".join(names))
    return root


@pytest.mark.usefixtures("one_core")
def test_a_full_disk_is_said_with_the_bytes_needed(trials: Trials, large: Path, tmp_path: Path) -> None:
    config = streets(large, max_quarantine=0.1)
    earlier = ingest(streets(write_streets(tmp_path / "other", splits={"test": 1})), to=str(tmp_path / "earlier"))
    expected = ingest(config, to=str(tmp_path / "expected")).version
    (tmp_path / "disk").mkdir()
    refused: dict[str, int] = dict.fromkeys(PLACES, 0)
    with disk(tmp_path / "disk") as ask:

        def trial(number: int) -> None:
            place, free, copies = PLACES[number % len(PLACES)], number // len(PLACES) * PAGE, tmp_path / str(number)
            answer = ask(
                config=config.model_dump(),
                earlier=str(tmp_path / "earlier"),
                place=place,
                free=free,
                copies=str(copies),
            )
            kind, said = answer["full"]
            before, after = [earlier.version], [earlier.version, expected]
            if kind == "StorageFullError":
                refused[place] += 1
                found = re.search(r"no room .*: ([0-9,]+) bytes are needed, [0-9,]+ are free in ", said)
                assert found, said
                assert int(found[1].replace(",", "")) > 0, said
            else:
                assert answer["full"] == ["published", expected], answer
            # A receipt or the reply may be what finds no room: then the version stands already.
            check_dataset.judge(copies / "full", allowed=(before, after))
            assert answer["again"][1] == expected, answer
            check_dataset.judge(copies / "again", allowed=(after,))

        step = 1 if trials.soak else 10
        trials.run("A3", [n for n in range(SIZES * len(PLACES)) if n // len(PLACES) % step == 0], trial)
    assert trials.only is not None or all(refused.values()), f"never full at a place: {refused}"
