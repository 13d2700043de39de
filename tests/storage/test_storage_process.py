"""Who is at work: a process is told from every other, and what it writes down of itself is what is read later."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from segpipe import storage
from segpipe.storage import process

SIGNED = {"who", "host", "place", "pid", "life", "at", "token"}


def mine() -> process.Signed:
    return process.Signed(**process.signature("ann"))


def test_a_process_signs_as_itself_anew_each_time() -> None:
    first, second = mine(), mine()
    assert replace(first, token=second.token, at=second.at) == second
    assert first.token != second.token
    assert (first.who, first.pid, first.place) == ("ann", os.getpid(), process.host_tag())
    assert re.fullmatch(r"[0-9a-f]{8}", first.place)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first.at)


def test_leases_and_claims_are_written_down_with_these_fields(root: str) -> None:
    """As they always were: another host may run an older segpipe."""
    with storage.lease(storage.join(root, "drivers"), what="the run", who="ann"):
        assert storage.read_json(storage.record_uri(storage.join(root, "drivers"), 1)).keys() == {"state", *SIGNED}
    with storage.claim(storage.join(root, "claims"), kind="read", about="v1", who="ann") as claim:
        found = storage.read_json(storage.join(root, "claims", f"{claim.token}-000000.json"))
    assert found.keys() == {"kind", "about", *SIGNED}
    assert (found["kind"], found["about"], found["who"]) == ("read", "v1", "ann")


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    parent = os.getppid()
    assert process.is_running(mine())
    assert process.is_running(replace(mine(), pid=parent, life=process.life_of(parent)))
    assert not process.is_running(replace(mine(), pid=parent, life="boot/1"))
    assert not process.is_running(replace(mine(), pid=parent))


def test_a_process_that_ended_and_that_nobody_waited_for_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        signed = replace(mine(), pid=child.pid, life=process.life_of(child.pid))
        assert process.is_running(signed)
        child.stdin.close()
        while process.is_alive(child.pid):
            time.sleep(0.01)
        os.kill(child.pid, 0)  # its entry is still there
        assert process.life_of(child.pid) == "ended"
        assert not process.is_running(signed)
    assert not process.is_alive(child.pid)
    assert process.is_alive(os.getpid())


def test_where_the_system_tells_nothing_of_processes_an_id_is_all_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = mine()
    monkeypatch.setattr(process, "_state", lambda pid: [])
    assert process.life_of(os.getpid()) == ""
    assert process.is_running(signed)
