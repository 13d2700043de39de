"""Row A2: eight processes publish to one dataset at once; each number of the log has one winner, the losers know."""

import itertools
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from segpipe import shards
from segpipe.errors import SegpipeError
from tests.fixtures import check_dataset
from tests.fixtures.publish_worker import CONTEXT
from tests.fixtures.samples import manifest_of, semantic_sample
from tests.fixtures.trials import Trials

PUBLISHERS = 8
WHOLE = 400
ANSWERS = {"published", "already_published", "ConflictError"}


def publisher(orders: Connection, start: Barrier) -> None:
    """Publishes again and again, each time as soon as all others are ready to."""
    while (order := orders.recv()) is not None:
        uri, first = order
        result = shards.write_shard([semantic_sample(first)], uri, "train")
        manifest = manifest_of([result])
        start.wait(60)
        try:
            answer = shards.publish(uri, manifest)
        except SegpipeError as error:
            answer = (type(error).__name__, str(error))
        orders.send(answer)


@contextmanager
def publishers() -> Iterator[list[Connection]]:
    """The ends by which eight processes are told (uri, first sample) and answer."""
    start, pairs = CONTEXT.Barrier(PUBLISHERS), [CONTEXT.Pipe() for _ in range(PUBLISHERS)]
    children: list[multiprocessing.process.BaseProcess] = [
        CONTEXT.Process(target=publisher, args=(theirs, start)) for _, theirs in pairs
    ]
    for child in children:
        child.start()
    try:
        yield [ours for ours, _ in pairs]
    finally:
        for ours, _ in pairs:
            ours.send(None)
        for child in children:
            child.join(30)
            child.kill()


def test_of_eight_publishers_at_once_one_wins_each_number(trials: Trials, tmp_path: Path) -> None:
    """In turn: all the same version; eight different ones; two versions by four processes each."""
    with publishers() as ends:

        def trial(number: int) -> None:
            to, kinds = tmp_path / f"to{number}", (1, PUBLISHERS, 2)[number % 3]
            for place, end in enumerate(ends):
                end.send((str(to), place % kinds))
            answers = [end.recv() for end in ends]
            said = [answer[1] if answer[1] in ANSWERS else answer[0] for answer in answers]
            assert set(said) <= ANSWERS, answers
            published = check_dataset.judge(to, allowed=[check_dataset.versions(to)])
            winners = [answer[0] for answer, word in zip(answers, said, strict=True) if word == "published"]
            assert sorted(winners) == sorted(published), "each record of the log has the one process that wrote it"
            assert len(published) == len(set(published)) or kinds == 2, "a version comes again only over another one"
            assert all(one != next_one for one, next_one in itertools.pairwise(published))
            for answer, word in zip(answers, said, strict=True):
                assert word == "ConflictError" or answer[0] in published
            if kinds == 1:
                assert sorted(said) == ["already_published"] * (PUBLISHERS - 1) + ["published"]

        trials.run("A2", WHOLE, trial)
