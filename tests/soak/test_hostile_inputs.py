"""Row A8: hostile inputs of every kind, each in a process of its own: the right action, in 10 s and 300 MiB."""

import unicodedata
from pathlib import Path
from typing import Any

from tests.fixtures import check_dataset, hostile_worker
from tests.fixtures.folder_mini import write_folder_mini
from tests.fixtures.hostile_cases import CASES
from tests.fixtures.hostile_sources import COUNT, REFUSED
from tests.fixtures.mini_datasets import WRITERS
from tests.fixtures.publish_worker import run_child
from tests.fixtures.trials import Trials

SECONDS, MEBIBYTES = 10.0, 300.0


def test_hostile_inputs_end_as_they_should_and_soon(trials: Trials, tmp_path: Path) -> None:
    """The neighbours of a bad sample are published; texts that tell of it hold no control characters."""
    run_child(hostile_worker.examine, config_of("folder", write_folder_mini(tmp_path / "warm")), str(tmp_path / "up"))

    def trial(number: int) -> None:
        case, root, to = CASES[number], tmp_path / f"root{number}", tmp_path / f"to{number}"
        write_folder_mini(root, count=COUNT) if case.format == "folder" else WRITERS[case.format](root)
        case.spoil(root)
        status, answer = run_child(hostile_worker.examine, config_of(case.format, root), str(to))
        assert status == 0, f"{case.name}: the process ended with {status}"
        assert answer["seconds"] <= SECONDS, (case.name, answer)
        assert answer["mebibytes"] <= MEBIBYTES, (case.name, answer)
        for text in (*answer["texts"], answer["message"]):
            assert not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text.replace("\n", " ")), text
        if case.action == REFUSED:
            assert answer["error"] in ("InputError", "TooLargeError"), (case.name, answer)
            assert case.words in answer["message"], (case.name, answer)
            check_dataset.judge(to, allowed=([],))
            return
        assert answer["error"] == "", (case.name, answer)
        assert set(answer["reasons"]) == ({case.action} if case.action else set()), (case.name, answer)
        check_dataset.judge(to, allowed=([answer["version"]],))
        if case.format == "folder" and "list" not in case.name:
            extra = case.spoil.__qualname__.startswith("named") and not case.action
            lost = bool(case.action) and not case.spoil.__qualname__.startswith("named")
            samples = sum(check_dataset.samples(to, answer["version"]).values())
            assert samples == COUNT + extra - lost, (case.name, samples)

    chosen = range(len(CASES)) if trials.soak else range(0, len(CASES), 10)
    trials.run("A8", chosen, trial)


def config_of(source: str, root: Path) -> dict[str, Any]:
    return {"name": "hostile", "format": source, "root": str(root), "max_quarantine": 1.0}
