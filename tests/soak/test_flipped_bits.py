"""Row A6: a flipped bit anywhere in a version's shards, manifest or log is found before its sample reaches training."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segpipe.errors import CorruptError
from segpipe.shards import epoch_order, open_dataset
from segpipe.stages.ingest import ingest
from segpipe.types import Sample
from tests.fixtures.ingest_worker import streets
from tests.fixtures.trials import Trials

WHOLE = 2000


@contextmanager
def flipped(file: Path, chance: random.Random) -> Iterator[str]:
    """`file` with one other bit for the block; gives which."""
    original = file.read_bytes()
    place, bit = chance.randrange(len(original)), chance.randrange(8)
    file.write_bytes(original[:place] + bytes([original[place] ^ 1 << bit]) + original[place + 1 :])
    try:
        yield f"bit {bit} of byte {place} of {file}"
    finally:
        file.write_bytes(original)


@pytest.mark.usefixtures("one_core")
def test_a_flipped_bit_is_found_before_its_sample_is_read(trials: Trials, source: Path, tmp_path: Path) -> None:
    """Half of the trials in shards, the others in manifest and log; read in the order of an epoch, as training does.

    What came out before the fault was found is of whole shards, and so as it was written.
    """
    ingest(streets(source), to=str(tmp_path))
    whole = open_dataset(str(tmp_path))
    written = {split: list(whole.samples(split)) for split in whole.manifest.splits}
    folders = {name: sorted((tmp_path / name).iterdir()) for name in ("shards", "manifests", "log")}

    def trial(number: int) -> None:
        chance = random.Random(number)
        file = chance.choice(folders[("shards", "manifests", "shards", "log")[number % 4]])
        came_out: list[tuple[Sample, Sample]] = []

        def read_all() -> None:
            dataset = open_dataset(str(tmp_path))
            for split in dataset.manifest.splits:
                order = epoch_order(dataset.row_groups(split), seed=number, epoch=0, version=dataset.version)
                for row, sample in zip(order, dataset.read(split, order), strict=True):
                    came_out.append((sample, written[split][row]))

        with flipped(file, chance) as what, pytest.raises(CorruptError, match=r"\.json|\.parquet"):
            read_all()
        assert all(sample == original for sample, original in came_out), what

    trials.run("A6", WHOLE, trial)
    assert {split: list(open_dataset(str(tmp_path)).samples(split)) for split in written} == written
