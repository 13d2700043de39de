"""`segpipe promote --force` and `segpipe rollback`: a person's word, in the ledger and on the terminal."""

from pathlib import Path

import pytest

from segpipe import promotion
from segpipe.stages import layout
from segpipe.stages import promote as promote_stage
from tests.fixtures.command_line import document, segpipe
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import promote

FIRST, SECOND = scored(0.5, "first"), scored(0.4, "second")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> promotion.Verdict:
    """A challenger that lost to the champion of the experiment `tiny`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ledger = Path(layout.ledger_uri("tiny"))
    promote(ledger, FIRST, name="tiny")
    verdict = promote(ledger, SECOND, FIRST, name="tiny")
    monkeypatch.setattr(promote_stage, "judge_again", lambda recipe, *, runtime: verdict)
    return verdict


def test_force_and_rollback_move_the_champion_and_say_why(recipe: str, kept: promotion.Verdict) -> None:
    forced = document(segpipe("promote", recipe, "--force", "--why", "nights matter more", "--json"))
    assert (forced["outcome"], forced["champion"]["label"]) == ("forced", "second")
    assert "nights matter more. The gate had said: first (miou 0.5000) stays" in forced["reason"]
    back = segpipe("rollback", "--why", "halos around poles")
    assert back.exit_code == 0
    assert "second was taken back to first (record 1)" in " ".join(back.stdout.split())
    log = document(segpipe("history", "tiny", "--json"))
    assert [record["kind"] for record in log] == ["promoted", "kept", "forced", "rollback"]
    assert log[-1]["champion"]["label"] == "first"


@pytest.mark.parametrize("options", [["--force"], ["--why", "because"], ["--force", "--why", " "]])
def test_force_and_its_reason_go_together(recipe: str, kept: promotion.Verdict, options: list[str]) -> None:
    result = segpipe("promote", recipe, *options)
    assert result.exit_code == 2
    assert "--force and --why TEXT go together" in result.stderr


def test_a_rollback_needs_a_reason_and_somebody_to_go_back_to(kept: promotion.Verdict) -> None:
    assert segpipe("rollback", "tiny").exit_code == 2
    result = segpipe("rollback", "tiny", "--why", "halos")
    assert result.exit_code == 2
    assert "nobody was champion before" in result.stderr
