"""What is read ahead: no more than allowed, each error at its place, and work that two want is done once."""

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from segpipe.errors import UnreachableError
from segpipe.shards.ahead import Flights, ahead
from tests.fixtures.slow_store import readers


def counted(threads: int, most: int, most_bytes: int, sizes: list[int]) -> Iterator[tuple[int, int]]:
    """(item, how many later ones had begun when it came)."""
    begun: list[int] = []
    results = ahead(
        lambda n: begun.append(n) or n,  # type: ignore[func-returns-value]
        range(len(sizes)),
        threads=threads,
        most=most,
        most_bytes=most_bytes,
        weigh=sizes.__getitem__,
    )
    for number in results:
        yield number, sum(n > number for n in begun)


@pytest.mark.parametrize(
    ("most", "most_bytes", "expected"),
    [(3, 100, 3), (50, 25, 2), (50, 5, 1), (1, 100, 1)],
    ids=["count", "bytes", "one at least", "one"],
)
def test_no_more_is_begun_than_allowed(most: int, most_bytes: int, expected: int) -> None:
    for threads in (1, 4):
        seen = list(counted(threads, most, most_bytes, [10] * 20))
        assert [number for number, _ in seen] == list(range(20))
        assert max(begun for _, begun in seen) <= expected
    assert list(counted(2, 3, 100, [])) == []


def test_an_error_comes_at_its_place() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    results = ahead(work, itertools.count(), threads=2, most=4, most_bytes=1, weigh=lambda _: 0)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert readers() == []


def test_work_wanted_twice_is_done_once_and_a_failure_is_not_inherited() -> None:
    flights, begun, done = Flights(), threading.Event(), threading.Event()
    answers: list[object] = []

    def fails() -> str:
        begun.set()
        done.wait(10)
        raise UnreachableError("its own budget is spent")

    def fly(work: Callable[[], str]) -> None:
        try:
            answers.append(flights.run("key", work))
        except UnreachableError as error:
            answers.append(str(error))

    first = threading.Thread(target=fly, args=(fails,))
    first.start()
    begun.wait(10)
    second = threading.Thread(target=fly, args=(lambda: "landed",))
    second.start()
    done.set()
    first.join(10)
    second.join(10)
    assert sorted(map(str, answers)) == ["its own budget is spent", "landed"]
