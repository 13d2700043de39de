"""Few-shot episodes: pure, queries never among the support, and what cannot be drawn is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import shards
from segpipe.config import DatasetConfig
from segpipe.data.episodes import Episode, Episodes, _assign
from segpipe.errors import CorruptError, InputError
from segpipe.shards import Dataset, open_dataset
from segpipe.stages.ingest import ingest
from segpipe.types import Sample, Segment
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.samples import manifest_of

CLASSES = 6
RARE, LONELY = 4, 5  # in six images with one pixel, and in two


def image(number: int) -> Sample:
    """Background everywhere, class 1 + number % 3 in 9 pixels, perhaps others; some pixels ignored."""
    labels = np.zeros((6, 8), np.uint8)
    labels[:3, :3] = 1 + number % 3
    labels[5, 7] = RARE if number % 10 == 0 else 255
    labels[0, 7] = LONELY if number in (7, 33) else 0
    return Sample(
        sample_id=f"{number:04d}", image=b"x", height=6, width=8, group=str(number), label_map=labels.tobytes()
    )


def publish(uri: str, samples: list[Sample], *, num_classes: int = CLASSES) -> Dataset:
    result = shards.write_shard(samples, uri, "train", group_rows=16)
    shards.publish(uri, manifest_of([result], num_classes=num_classes))
    return open_dataset(uri)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return publish(str(tmp_path_factory.mktemp("episodes")), [image(number) for number in range(60)])


def rows_of(episode: Episode) -> list[int]:
    return [row for rows in (*episode.support, *episode.queries) for row in rows]


def test_the_classes_of_each_sample_are_counted_once_a_version(dataset: Dataset) -> None:
    counted = dataset.class_pixels("train")
    for number, sample in enumerate(dataset.samples("train")):
        ids, pixels = np.unique(np.frombuffer(sample.label_map or b"", np.uint8), return_counts=True)
        expected = {int(k): int(n) for k, n in zip(ids, pixels, strict=True) if k != 255}
        assert counted[number] == expected
    loads = dataset._row_groups.loads
    assert dataset.class_pixels("train") is counted
    assert dataset._row_groups.loads == loads


def test_without_a_label_map_the_segments_count(tmp_path: Path) -> None:
    def sample(name: str, segments: tuple[Segment, ...]) -> Sample:
        return Sample(sample_id=name, image=b"x", height=2, width=3, group=name, segments=segments)

    def segment(number: int, k: int, area: float, *, crowd: bool = False) -> Segment:
        return Segment(segment_id=number, class_id=k, area=area, is_crowd=crowd, rle=b"05a0")

    several = (segment(1, 2, 3.4), segment(2, 2, 1), segment(3, 0, 1.5), segment(4, 1, 6, crowd=True))
    made = publish(str(tmp_path / "a"), [sample("a", several), sample("b", ())])
    assert made.class_pixels("train") == ({0: 2, 2: 4}, {})
    wrong = publish(str(tmp_path / "b"), [sample("a", (segment(1, 9, 3),))])
    with pytest.raises(CorruptError, match="sample 'a': holds class 9 of 6"):
        wrong.class_pixels("train")


@pytest.mark.parametrize(("ways", "shots", "queries"), [(1, 1, 1), (1, 5, 1), (2, 1, 3), (3, 5, 2), (3, 9, 11)])
def test_an_episode_is_n_ways_k_shots_and_queries_apart(dataset: Dataset, ways: int, shots: int, queries: int) -> None:
    episodes = Episodes(dataset, "train", class_ids=[3, 1, 2], ways=ways, shots=shots, queries=queries)
    held, classes, asked = dataset.class_pixels("train"), set(), set()
    for index in range(25):
        episode = episodes.draw(index, seed=1)
        assert len(set(episode.class_ids)) == len(episode.class_ids) == ways
        assert [len(rows) for rows in episode.support] == [shots] * ways
        assert [len(rows) for rows in episode.queries] == [queries] * ways
        assert len(set(rows_of(episode))) == ways * (shots + queries), "no row twice: no query among the support"
        for k, support, rows in zip(episode.class_ids, episode.support, episode.queries, strict=True):
            assert all(k in held[row] for row in (*support, *rows))
        classes |= set(episode.class_ids)
        asked |= {row for rows in episode.queries for row in rows}
    assert classes == {1, 2, 3}
    assert len(asked) > 10, "queries go around"


def test_an_episode_is_a_function_of_seed_epoch_index_and_version_alone(dataset: Dataset, tmp_path: Path) -> None:
    def all_of(made: Dataset, classes: list[int]) -> list[Episode]:
        episodes = Episodes(made, "train", class_ids=classes, ways=2, shots=2)
        return [episodes.draw(i, seed=s, epoch=e) for i in range(3) for s in range(3) for e in range(3)]

    first = all_of(dataset, [1, 2, 3])
    assert all_of(open_dataset(dataset.uri), [3, 2, 1]) == first
    assert len({tuple(rows_of(episode)) for episode in first}) == 27
    other = publish(str(tmp_path), [image(number) for number in range(61)])
    assert all_of(other, [1, 2, 3]) != first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"class_ids": [LONELY], "shots": 2},
            r"class 5 \(class-5\) is in 2 images of 'train' .* needs 2 to learn from",
        ),
        ({"class_ids": [RARE], "least_pixels": 2}, r"class 4 \(class-4\) is in 0 images .* at least 2 pixels"),
        ({"class_ids": [1, 6]}, r"class ids \[1, 6\]; expected each once, from 0 to 5"),
        ({"class_ids": [1, 1]}, r"class ids \[1, 1\]; expected each once"),
        ({"class_ids": [1], "ways": 2}, "2 ways from 1 classes"),
        ({"class_ids": [1], "shots": 0}, "shots of 0; expected at least 1"),
        ({"class_ids": [1], "queries": 0}, "queries of 0"),
    ],
)
def test_what_makes_no_episode_is_refused(dataset: Dataset, settings: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"ways": 1, "shots": 1, **settings}
    with pytest.raises(InputError, match=message):
        Episodes(dataset, "train", **arguments)  # type: ignore[arg-type]


def test_classes_that_only_come_together_are_refused_when_drawn(tmp_path: Path) -> None:
    both = np.zeros((2, 2), np.uint8)
    both[0] = 1
    samples = [
        Sample(sample_id=str(n), image=b"x", height=2, width=2, group=str(n), label_map=both.tobytes())
        for n in range(4)
    ]
    made = publish(str(tmp_path), samples, num_classes=2)
    assert sorted(rows_of(Episodes(made, "train", class_ids=[0, 1], ways=2, shots=1).draw(0, seed=0))) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"mostly in the same images: 3 for each, none twice"):
        Episodes(made, "train", class_ids=[0, 1], ways=2, shots=2).draw(0, seed=0)


@given(st.lists(st.lists(st.integers(0, 7), unique=True), min_size=1, max_size=4), st.integers(1, 3))
def test_rows_are_assigned_whenever_that_can_be(wanted: list[list[int]], needed: int) -> None:
    found = _assign(dict(enumerate(wanted)), needed)
    # Hall's theorem: every group of classes has to have enough rows in common.
    groups = [[k for k in range(len(wanted)) if bits >> k & 1] for bits in range(1, 2 ** len(wanted))]
    possible = all(len(set().union(*(wanted[k] for k in group))) >= needed * len(group) for group in groups)
    assert (found is not None) == possible
    if found is not None:
        rows = [row for taken in found.values() for row in taken]
        assert len(set(rows)) == len(rows) == needed * len(wanted)
        assert all(row in wanted[k] for k, taken in found.items() for row in taken)


@pytest.mark.usefixtures("one_core")
def test_over_pascal_voc(tmp_path: Path) -> None:
    WRITERS["voc"](tmp_path / "root")
    config = DatasetConfig(name="voc", format="voc", root=str(tmp_path / "root"))
    dataset = open_dataset(ingest(config, to=str(tmp_path / "to")).uri)
    episode = Episodes(dataset, "train", class_ids=[15, 3], ways=1, shots=1).draw(0, seed=0)
    assert episode.class_ids[0] in (3, 15)
    assert sorted(rows_of(episode)) == [0, 1]
    with pytest.raises(InputError, match=r"class 1 \(aeroplane\) is in 0 images of 'train'"):
        Episodes(dataset, "train", class_ids=[15, 1], ways=1, shots=1)
