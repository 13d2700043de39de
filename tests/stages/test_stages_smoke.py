"""The smoke prediction: registered bytes, in a fresh process, say what was scored, or it is told why they do not."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import checkpoint, serving, storage
from segpipe.checkpoint import load_model, model_uri, save_model
from segpipe.shards import open_dataset
from segpipe.stages import smoke as stage
from segpipe.stages.smoke import SmokeError, smoke
from tests.fixtures.small import publish_small
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


def of(shapes: Shapes, registered: Path) -> stage.Answered:
    return smoke(shapes.result.model_uri, registered, open_dataset(shapes.data, version=shapes.version), "test")


def model_of(shapes: Shapes) -> Path:
    return Path(shapes.result.model_uri)


def test_the_same_bytes_say_the_same(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_REQUEST_GIB", "1e-9")  # the limit of who serves here is none of the bytes
    said: list[Any] = []
    fresh = stage._fresh_answers
    monkeypatch.setattr(stage, "_fresh_answers", lambda *given: said.extend(fresh(*given)) or said)
    answered = of(shapes, model_of(shapes))
    assert answered.images == ("test/0000", "test/0002", "test/0004"), "images of two sizes, over the whole split"
    assert [np.shape(each) for each in said] == [(32, 40), (40, 32), (32, 40)]
    assert answered.answers_sha256 == storage.sha256_bytes(storage.canonical_json(said))


def other_weights(shapes: Shapes, tmp_path: Path) -> Path:
    """A valid model of the same architecture that says something else."""
    model, bundle = load_model(shapes.result.model_uri)
    weights = {key: value.roll(1, 0) if key.startswith("head.") else value for key, value in model.state_dict().items()}
    save_model(str(tmp_path), weights, bundle)
    return Path(model_uri(str(tmp_path)))


def test_other_predictions_are_counted(shapes: Shapes, tmp_path: Path) -> None:
    expected = r"of test/test/0000 the registered bytes, .* say something else than .* scored in \d+ of 1280 pixels$"
    with pytest.raises(SmokeError, match=expected):
        of(shapes, other_weights(shapes, tmp_path))


def test_a_damaged_file_is_a_reason_without_the_names_of_this_moment(shapes: Shapes, tmp_path: Path) -> None:
    bundle = checkpoint.model_uri(str(shapes.copy_run(tmp_path)))
    weights = Path(bundle) / checkpoint.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    with pytest.raises(SmokeError, match=r"ended with status 1: .*CorruptError: .*SHA-256 is") as caught:
        of(shapes, Path(bundle))
    assert "the registered bundle/model/weights.safetensors: SHA-256" in str(caught.value), "and not a scratch folder"


def test_a_crash_without_a_word_is_a_reason(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, -11)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(SmokeError, match="ended with status -11: it said nothing"):
        of(shapes, model_of(shapes))


def test_one_that_ends_well_and_says_nothing_has_not_answered(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    with pytest.raises(SmokeError, match="ended with status 0: it said nothing"):
        of(shapes, model_of(shapes))


def test_one_that_hangs_is_ended_and_the_limit_is_said(shapes: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LIMIT_SECONDS", 0.2)  # Python alone takes longer to import torch
    with pytest.raises(SmokeError, match=r"did not answer about 3 images within 0\.2 s"):
        of(shapes, model_of(shapes))


def test_a_split_of_two_images_is_asked_about_both(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_small(str(tmp_path), test=2)
    monkeypatch.setattr(stage, "_fresh_answers", lambda _, asked: [each.expected for each in asked])
    found = smoke(shapes.result.model_uri, model_of(shapes), open_dataset(str(tmp_path), version=version), "test")
    assert found.images == ("test/0000", "test/0001")


def test_of_images_that_no_request_may_hold_the_first_lines_are_asked_about(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish_small(str(tmp_path), test=3, size=(32, 48))
    dataset = open_dataset(str(tmp_path), version=version)
    assert dataset.sizes("test")[2] == (40, 40)
    shown: list[tuple[int, ...]] = []

    def answers(_: Path, asked: list[stage.Asked]) -> list[Any]:
        shown.extend(each.image_HW3.shape[:2] for each in asked)
        assert all(np.shape(each.expected) == each.image_HW3.shape[:2] for each in asked)
        return [each.expected for each in asked]

    monkeypatch.setattr(stage, "_fresh_answers", answers)
    monkeypatch.setattr(serving, "MAX_IMAGE_PIXELS", 32 * 48)
    found = smoke(shapes.result.model_uri, model_of(shapes), dataset, "test")
    assert found.images == ("test/0000", "test/0001", "test/0002")
    assert shown == [(32, 48), (32, 48), (20, 40)]
