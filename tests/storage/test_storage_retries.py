"""What many reads at once lose to one fault of a store: each its own tries, all together the outage once."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from segpipe import storage
from segpipe.errors import UnreachableError
from segpipe.storage import object_store, ranges
from tests.fixtures.slow_store import SlowStore, slow_store

__all__ = ["slow_store"]
READERS = 32  # as many as a reader of a remote dataset has threads; eight requests at a time


def read_all(store: SlowStore, budget: storage.RetryBudget) -> list[bytes]:
    """Objects 0, 1, ..., each by a thread of its own."""

    def read(number: int) -> bytes:
        return ranges.read_range(f"{store.uri}/{number}", 0, 8, 8, budget=budget)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, range(READERS)))


@pytest.fixture
def objects(slow_store: SlowStore) -> list[bytes]:
    slow_store.folder.mkdir()
    made = [number.to_bytes(8, "big") for number in range(READERS)]
    for number, data in enumerate(made):
        (slow_store.folder / str(number)).write_bytes(data)
    return made


def stalls_once(seconds: float) -> Callable[[bytes], bytes]:
    """Each object's first read comes to nothing, after a while."""
    met: set[bytes] = set()

    def fault(data: bytes) -> bytes:
        if data not in met:
            met.add(data)
            time.sleep(seconds)
            raise TimeoutError("told to")
        return data

    return fault


def test_waiting_for_a_turn_is_no_retry(
    slow_store: SlowStore, objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four waves of eight, each of a stall that is 0.4 of an operation's budget: the last began after twice of it."""
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 1.0)
    slow_store.faults = [stalls_once(0.4)] * 2 * READERS
    budget = storage.RetryBudget()
    started = time.monotonic()
    assert read_all(slow_store, budget) == objects
    assert time.monotonic() - started > 1.0, "or nobody waited longer than the budget"
    assert budget.retries == READERS


def test_an_outage_costs_all_readers_together_its_length(slow_store: SlowStore, objects: list[bytes]) -> None:
    ends = time.monotonic() + 0.3

    def down(data: bytes) -> bytes:
        if time.monotonic() < ends:
            raise ConnectionError("503 SlowDown, told to")
        return data

    slow_store.faults = [down] * 100_000
    budget = storage.RetryBudget(3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_store, "LONGEST_PAUSE_SECONDS", 0.2)
        assert read_all(slow_store, budget) == objects
    assert budget.retries > READERS
    assert 0.2 < budget.spent < 3.0, "the outage and a pause, not those of 32 readers, which are 10 s"


def test_an_outage_without_end_says_what_was_waited_for(slow_store: SlowStore, objects: list[bytes]) -> None:
    def down(data: bytes) -> bytes:
        raise ConnectionError("503 SlowDown, told to")

    slow_store.faults = [down] * 100_000
    with pytest.raises(UnreachableError, match=r"waited \d s of at most 0 for the store .* run again; a training"):
        read_all(slow_store, storage.RetryBudget(0.1))


def test_the_time_in_which_any_read_fails_is_counted_once() -> None:
    budget = storage.RetryBudget(100)
    for began, until, expected in [
        (0, 4, 4),
        (1, 3, 4),
        (2, 6, 6),
        (10, 12, 8),
        (11, 11.5, 8),
        (5, 13, 13),
        (20, 21, 14),
    ]:
        assert budget.spend(began, until)
        assert budget.spent == expected
    assert not budget.spend(30, 117), "one more than is left"
    assert budget.spent == 14
    assert budget.spend(30, 116)
    budget.close()
    assert not budget.spend(116, 116)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_union_whatever_the_threads_do(seed: int) -> None:
    """Against a count of every tick."""
    chance, budget, ticks = random.Random(seed), storage.RetryBudget(10_000), set[int]()
    for now in range(0, 3000, 3):
        began, until = now - chance.randint(0, 40), now + chance.randint(0, 4)
        assert budget.spend(began, until)
        ticks |= set(range(began, until))
        assert budget.spent == len(ticks)


def test_threads_may_share_one() -> None:
    budget, start = storage.RetryBudget(1e9), threading.Barrier(8)

    def spend(_: int) -> None:
        start.wait()
        for _ in range(200):
            now = time.monotonic()
            assert budget.spend(now - 0.01, now + 0.01)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(spend, range(8)))
    assert budget.retries == 1600
    assert budget.spent <= time.monotonic() - began + 0.03
