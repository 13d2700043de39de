"""The lines about a running training or ingest, as a log or a pipe shows them."""

import logging

import pytest

from segpipe.cli.answering import bars
from segpipe.cli.progress import ingest_lines, readable, training_lines
from segpipe.types import TrainProgress


def lines(caplog: pytest.LogCaptureFixture, news: list[TrainProgress], seconds_a_step: float = 0.6) -> list[str]:
    now = 0.0
    log = logging.getLogger("test.progress")
    tell = training_lines(log.info, "unet", clock=lambda: now)
    with caplog.at_level(logging.INFO, "test.progress"):
        for each in news:
            now = each.step * seconds_a_step
            tell(each)
    return [record.getMessage() for record in caplog.records]


def test_a_line_a_tenth_with_the_loss_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    told = lines(caplog, [TrainProgress({"train/loss": 1 / step}, step, 200) for step in range(2, 201, 2)])
    assert len(told) == 11
    assert told[0] == "unet: step 2 of 200, loss 0.500"
    assert told[1] == "unet: step 20 of 200, loss 0.050, about 2 min left"
    assert told[-1] == "unet: step 200 of 200, loss 0.005"


def test_a_resumed_training_counts_the_time_of_its_own_steps(caplog: pytest.LogCaptureFixture) -> None:
    news = [TrainProgress({}, 500, 1000, 480), TrainProgress({"val/miou": 0.5}, 600, 1000, 480)]
    told = lines(caplog, news)
    assert told == [
        "unet: continues at step 480 of 1000",
        "unet: step 500 of 1000",
        "unet: step 600 of 1000, about 4 min left",
    ]


def test_an_ingest_tells_every_tenth_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    tell = ingest_lines(logging.getLogger("test.progress").info, "roofs", clock=lambda: now)
    with caplog.at_level(logging.INFO, "test.progress"):
        for done in range(32, 961, 32):
            now = done * 0.25
            tell(done, 960)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 11
    assert told[:2] == ["roofs: 32 of 960 samples", "roofs: 96 of 960 samples, about 4 min left"]
    assert told[-1] == "roofs: 960 of 960 samples"


def test_what_is_over_in_seconds_says_that_it_began_and_ended(caplog: pytest.LogCaptureFixture) -> None:
    told = lines(caplog, [TrainProgress({}, step, 40) for step in range(1, 41)], seconds_a_step=0.1)
    assert told == ["unet: step 1 of 40", "unet: step 40 of 40"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (3 * 3600, "3.0 h")])
def test_durations_for_people(seconds: float, text: str) -> None:
    assert readable(seconds) == text


def test_a_command_whose_errors_are_piped_says_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    with bars() as shown:
        shown.note("ingesting roofs")
        for done in (1, 50, 99, 100):
            shown.ingest("roofs", done, 100)
        assert "roofs: 1 of 100 samples" in capfd.readouterr().err, "while it works, not when it has ended"
        for step in (31, 60):
            shown.training("unet", TrainProgress({"train/loss": 0.5}, step, 60, 30))
    told = [line.split("s  ", 1)[1] for line in capfd.readouterr().err.splitlines()]
    assert told == [
        "unet: continues at step 30 of 60",
        "unet: step 31 of 60, loss 0.500",
        "unet: step 60 of 60, loss 0.500",
    ]
