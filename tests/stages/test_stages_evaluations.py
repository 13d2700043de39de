"""What is read of an evaluation's folder."""

from pathlib import Path

import pytest

from segpipe import reports, storage
from segpipe.stages.evaluations import REPORT, finished_report
from tests.fixtures.example_reports import eval_report


def test_of_other_weights_no_report_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report, folder = eval_report(weights_sha256="ab"), str(tmp_path / "unet-1")
    assert finished_report(folder) is None
    storage.write_json_once(storage.join(folder, REPORT), reports.to_plain(report))
    assert finished_report(folder) == finished_report(folder, weights="ab") == report
    with monkeypatch.context() as patch:
        patch.setattr(reports, "from_plain", lambda *_, **__: pytest.fail("its counts were looked through"))
        assert finished_report(folder, weights="cd") is None
    for damage in ("[]", "{}", "{"):
        (tmp_path / "unet-1" / REPORT).write_text(damage)
        assert finished_report(folder, weights="ab") is None
    assert "cannot be used and is made again" in caplog.text
