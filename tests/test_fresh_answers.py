"""segpipe/fresh_answers.py: a process that loads a bundle and answers, and touches nothing else that lies there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segpipe.checkpoint import load_model
from segpipe.fresh_answers import ANSWERS, MODEL, answer, image_name, plain, write_request
from segpipe.serving import Predictor
from tests.fixtures.mlflow_store import make_bundle


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A folder with a model and two images of different sizes."""
    folder = tmp_path / "asked"
    folder.mkdir()
    uri, _ = make_bundle(tmp_path / "run")
    (folder / MODEL).symlink_to(uri)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 40), (40, 32))]
    write_request(folder, [(image_HW3, {}) for image_HW3 in images])
    return folder


def test_each_image_is_answered_as_the_served_model_does(asked: Path) -> None:
    answer(asked)
    predictor = Predictor(*load_model(str(asked / MODEL)))
    expected = [predictor.predict(np.load(asked / image_name(at))[None])[0].tolist() for at in range(2)]
    assert json.loads((asked / ANSWERS).read_text()) == expected


def test_a_pickled_image_is_not_opened(asked: Path) -> None:
    np.save(asked / image_name(1), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        answer(asked)
    assert not (asked / ANSWERS).exists()


def test_as_a_process_it_runs_nothing_that_lies_beside_the_weights(asked: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    evil = f"open({str(mark)!r}, 'w').close()"
    for name in ("sitecustomize.py", "segpipe.py", "loader.py", "__init__.py"):
        (asked / MODEL / name).write_text(evil)
    (asked / MODEL / "MLmodel").write_text("flavors: {python_function: {loader_module: loader, code: .}}")
    done = subprocess.run([sys.executable, "-m", "segpipe.fresh_answers", str(asked)], check=True, timeout=300)
    assert done.returncode == 0
    assert (asked / ANSWERS).exists()
    assert not mark.exists()


def test_answers_of_objects_become_plain_data() -> None:
    found = {"scores": np.array([0.5]), "masks": [{"size": [2, 2], "counts": "04"}], "map": np.zeros((1, 2), np.int32)}
    assert plain(found) == {"scores": [0.5], "masks": [{"size": [2, 2], "counts": "04"}], "map": [[0, 0]]}
