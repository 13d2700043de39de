"""The export of a trained model: files that say what the model says, or no files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segpipe import checkpoint, models, portable, storage
from segpipe.errors import ConflictError, InputError
from segpipe.models.spec import DenseOutput
from segpipe.stages import model_export
from segpipe.stages.model_export import ExportedModel, ExportRefusedError, export_model
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")


@pytest.fixture(scope="module")
def exported(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    to = tmp_path_factory.mktemp("exported") / "unet"
    return export_model(shapes.result.model_uri, to=str(to), data=shapes.data, images=4, runs=0)


def test_both_files_say_what_the_model_says(shapes: Shapes, exported: ExportedModel) -> None:
    """Asked here once more, from the files as they lie there."""
    network, _ = checkpoint.load_model(shapes.result.model_uri)
    height, width = exported.latency_size
    images_N3HW = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = network(images_N3HW).logits_NKHW
        for each in exported.files:
            found = portable.FORMATS[each.format].open(Path(exported.to, each.file))(images_N3HW)
            assert portable.largest_difference(expected, found) < 1e-4
    assert [each.format for each in exported.files] == ["pt2", "onnx"]


def test_the_sidecar_says_how_the_files_are_asked(shapes: Shapes, exported: ExportedModel) -> None:
    document = json.loads(Path(exported.to, "export.json").read_text())
    bundle = checkpoint.load_bundle(shapes.result.model_uri)
    assert document["classes"] == ["ground", "box", "disc"]
    assert (document["input"]["mean"], document["input"]["std"]) == (list(bundle.mean), list(bundle.std))
    assert document["input"]["shape"][1] == document["output"]["shape"][1] == 3
    assert document["weights_sha256"] == shapes.result.weights_sha256
    assert document["opset"] == portable.OPSET
    assert (document["logits_epsilon"], document["miou_epsilon"]) == (1e-4, 1e-3)
    for each in document["files"]:
        assert storage.sha256_file(f"{exported.to}/{each['file']}") == each["sha256"]
        assert each["agreement"]["logits"] <= 1e-4
        assert abs(each["agreement"]["miou"] - each["agreement"]["exported_miou"]) <= 1e-3


def test_what_is_not_free_is_said(exported: ExportedModel) -> None:
    """This U-Net's maps meet in sizes of which torch.export takes those of the traced image for granted."""
    assert exported.free_axes == ("batch",)
    assert exported.why_fixed.startswith("batch and height and width free: ")
    assert exported.input["shape"] == ["any", 3, *exported.latency_size]


def test_a_file_that_says_something_else_is_refused(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = portable.FORMATS["pt2"]

    class Off(nn.Module):
        def __init__(self, path: Path) -> None:
            super().__init__()
            self.asked = how.open(path)

        def forward(self, images_N3HW: Tensor) -> Tensor:
            logits_NKHW: Tensor = self.asked(images_N3HW)
            return logits_NKHW.roll(1, dims=1)

    off = portable.Format(file=how.file, needs=(), write=how.write, open=Off)
    monkeypatch.setattr(portable, "FORMATS", {"pt2": off})
    to = tmp_path / "refused"
    with pytest.raises(
        ExportRefusedError, match=r"pt2: not the model, on \d images: its logits differ by .*its mIoU is"
    ):
        export_model(
            shapes.result.model_uri, to=str(to), data=shapes.data, images=3, runs=0, dynamic=False, formats=["pt2"]
        )
    assert not to.exists()
    assert ExportRefusedError.exit_status == 1


def test_nan_agrees_with_nothing() -> None:
    agreement = portable.Agreement(images=1, logits=float("nan"), miou=0.5, exported_miou=0.5)
    with pytest.raises(ExportRefusedError, match="its logits differ by nan"):
        model_export._require_agreement("onnx", agreement, 1e-4, 1e-3)


def test_what_lies_there_is_not_overwritten(shapes: Shapes, exported: ExportedModel) -> None:
    with pytest.raises(ConflictError, match=r"holds 3 files already, .*nothing was written"):
        export_model(shapes.result.model_uri, to=exported.to, data=shapes.data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formats": ["tflite"]}, "unknown format 'tflite'; known are: pt2, onnx"),
        ({"split": "night"}, "--split 'night': .* has test, train, val"),
        ({"model": "models:/shapes@winner"}, "expected models:/NAME@champion"),
    ],
)
def test_wrong_use_is_told(shapes: Shapes, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    arguments = {"model": shapes.result.model_uri, "to": str(tmp_path / "to"), "data": shapes.data, **changes}
    with pytest.raises(InputError, match=message):
        export_model(**arguments)  # type: ignore[arg-type]


def test_a_missing_extra_is_named(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portable, "missing", lambda name: ["onnxruntime"] if name == "onnx" else [])
    with pytest.raises(InputError, match=r"--format onnx needs onnxruntime.*install the extra `onnx`"):
        export_model(shapes.result.model_uri, to=str(tmp_path / "to"), data=shapes.data)


def test_a_model_without_logits_of_every_pixel_is_refused(shapes: Shapes) -> None:
    bundle = checkpoint.load_bundle(shapes.result.model_uri)
    for arch, what in (("mask_rcnn", "answers with RegionOutput"), ("kmeans", "learns by")):
        assert arch in models.names()
        with pytest.raises(InputError, match=what):
            model_export._require_dense(replace(bundle, arch=arch))
    assert models.spec("unet").output is DenseOutput
