"""segpipe/cli/portable.py: `segpipe models export` reaches its stage, and shows what came of it."""

from pathlib import Path
from typing import Any

import pytest

from segpipe.portable import Agreement, Latency
from segpipe.stages import model_export
from segpipe.stages.model_export import ExportedFile, ExportedModel
from tests.fixtures.command_line import document, segpipe

EXPORTED = ExportedModel(
    to="/out",
    arch="unet",
    options={},
    weights_sha256="ab",
    dataset="roofs",
    dataset_version="cd",
    code_version="x",
    classes=("ground", "roof"),
    input={"shape": ["any", 3, 360, 480]},
    output={"shape": ["any", 2, 360, 480]},
    free_axes=("batch",),
    why_fixed="batch and height and width free: Guard failed",
    around={},
    opset=20,
    torch="2",
    logits_epsilon=1e-4,
    miou_epsilon=1e-3,
    compared_on="roofs cd val",
    files=(
        ExportedFile(
            format="onnx",
            file="model.onnx",
            bytes=1000,
            sha256="ef",
            agreement=Agreement(images=3, logits=2e-7, miou=0.5, exported_miou=0.5),
        ),
    ),
    latency_size=(360, 480),
    latency=(
        Latency(way="eager", seconds=0.25, runs=5),
        Latency(way="compiled", seconds=None, runs=0, note="InductorError: no compiler"),
    ),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def export_model(model: str, **arguments: Any) -> ExportedModel:
        found.update(arguments, model=model)
        return EXPORTED

    monkeypatch.setattr(model_export, "export_model", export_model)
    return found


def test_the_arguments_reach_the_stage(asked: dict[str, Any]) -> None:
    words = ["--data", "roofs", "--to", "out", "--format", "onnx", "--images", "3", "--fixed", "--runs", "0"]
    found = document(segpipe("models", "export", "models:/roofs@champion", *words, "--json"))
    assert asked["model"] == "models:/roofs@champion"
    assert (asked["formats"], asked["images"], asked["dynamic"], asked["runs"]) == (("onnx",), 3, False, 0)
    assert (asked["logits_epsilon"], asked["miou_epsilon"]) == (1e-4, 1e-3)
    assert found["files"][0]["agreement"]["logits"] == 2e-7
    assert found["free_axes"] == ["batch"]


def test_people_see_how_well_the_files_agree_and_what_a_pass_costs(asked: dict[str, Any], tmp_path: Path) -> None:
    shown = segpipe("models", "export", "models:/roofs/3", "--data", "roofs", "--to", str(tmp_path)).stdout
    for word in ("2e-07", "any x 3 x 360 x 480", "Guard failed", "250 ms", "no compiler", "/out"):
        assert word in shown, word
    assert asked["formats"] == ("pt2", "onnx")
