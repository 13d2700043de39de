"""Pretrained weights: local files, torch hub's folder, and what each fault says. Nothing here leaves the machine."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from segpipe import models
from segpipe.errors import CorruptError, InputError, UnreachableError

RESNET18_FILE = Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub folder on a machine without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(url: str, *args: object, **options: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def save(state: object, path: Path) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_local_classifier_fills_the_backbone(suffix: str, resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / f"weights{suffix}")
    loaded = models.create("unet", 3, backbone="resnet18", pretrained=path).state_dict()
    kept = {key for key in resnet18 if not key.startswith("fc.")}
    assert len(kept) == 120
    assert all(torch.equal(loaded[f"backbone.{key}"], resnet18[key]) for key in kept)


def test_mobilenets_stages_are_found(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v3_large(weights=None).state_dict()
    path = save(theirs, tmp_path / "mobilenet.pth")
    loaded = models.create("fcn_mobilenet_v3_large", 3, pretrained=path).state_dict()
    kept = [key for key in theirs if key.startswith("features.")]
    assert kept
    assert all(torch.equal(loaded[key.replace("features.", "backbone.", 1)], theirs[key]) for key in kept)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "convnext_tiny", "swin_t"])
def test_a_classifiers_file_fills_all_but_the_norms_of_maps(backbone: str, tmp_path: Path) -> None:
    theirs = torchvision.models.get_model(backbone, weights=None).state_dict()
    path = save(theirs, tmp_path / "classifier.pth")
    loaded = models.create("unet", 3, backbone=backbone, pretrained=path).state_dict()
    kept = [key for key in theirs if key.startswith("features.")]
    assert len(kept) > 100
    assert all(torch.equal(loaded[key.replace("features.", "backbone.", 1)], theirs[key]) for key in kept)
    others = {key for key in loaded if key.startswith("backbone.")} - {
        key.replace("features", "backbone") for key in kept
    }
    assert all(key.startswith("backbone.norms.") for key in others)
    assert len(others) == (0 if backbone == "mobilenet_v2" else 8)


@pytest.mark.parametrize(
    ("backbone", "found"),
    [
        ("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V1"),
        ("mobilenet_v3_small", "MobileNet_V3_Small_Weights.IMAGENET1K_V1"),
        ("convnext_large", "ConvNeXt_Large_Weights.IMAGENET1K_V1"),
        ("swin_b", "Swin_B_Weights.IMAGENET1K_V1"),
    ],
)
def test_every_familys_imagenet_weights_are_known_by_name(backbone: str, found: str) -> None:
    assert models.weights_id("unet", {"backbone": backbone}, "IMAGENET1K_V1") == found


def test_a_whole_model_must_have_the_norms_of_its_maps(tmp_path: Path) -> None:
    state = models.create("unet", 3, backbone="convnext_tiny").state_dict()
    del state["backbone.norms.0.weight"]
    with pytest.raises(InputError, match=r"1 missing \(backbone.norms.0.weight\)"):
        models.create("unet", 3, backbone="convnext_tiny", pretrained=save(state, tmp_path / "unet.pth"))


def test_a_files_missing_batch_counters_are_no_fault(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    old = {key: value for key, value in resnet18.items() if not key.endswith("num_batches_tracked")}
    loaded = models.create("fcn_resnet18", 3, pretrained=save(old, tmp_path / "old.pth")).state_dict()
    assert torch.equal(loaded["backbone.conv1.weight"], resnet18["conv1.weight"])


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_is_averaged_over_rgb(
    channels: int, resnet18: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(resnet18, tmp_path / "rgb.pth")
    model = models.create("fcn_resnet18", 3, in_channels=channels, pretrained=path)
    found, rgb = model.state_dict()["backbone.conv1.weight"], resnet18["conv1.weight"]
    assert found.shape[1] == channels
    torch.testing.assert_close(found.sum(1), rgb.sum(1))
    assert f"averaged over RGB for {channels} input channels" in caplog.text


@pytest.mark.parametrize("name", ["unet", "fcn_resnet18", "fcn_mobilenet_v3_large", "deeplab_v3plus"])
def test_a_model_of_other_classes_keeps_all_but_the_classifier(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"backbone": "resnet18"} if "backbone" in models.spec(name).options else {}
    source = models.create(name, 5, **options).state_dict()
    with caplog.at_level(logging.WARNING, logger="segpipe"):
        found = models.create(name, 7, pretrained=save(source, tmp_path / "five.safetensors"), **options).state_dict()
    other = [key for key in source if found[key].shape != source[key].shape]
    assert len(other) == 2, "weight and bias of the last convolution"
    assert all(torch.equal(found[key], source[key]) for key in source if key not in other)
    assert all(key in caplog.text for key in other)
    assert "not loaded" in caplog.text


def test_an_auxiliary_head_that_is_not_built_is_dropped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(models.create("fcn_resnet18", 3, aux=True).state_dict(), tmp_path / "aux.pth")
    models.create("fcn_resnet18", 3, aux=False, pretrained=path)
    assert "aux_classifier.0.weight" in caplog.text
    plain = save(models.create("fcn_resnet18", 3).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(InputError, match=r"7 missing \(aux_classifier.0.weight"):
        models.create("fcn_resnet18", 3, aux=True, pretrained=plain)


def test_training_checkpoints_of_torchvisions_scripts_are_opened(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save({"model": resnet18, "epoch": 3}, tmp_path / "checkpoint.pth")
    loaded = models.create("fcn_resnet18", 3, pretrained=path).state_dict()
    assert torch.equal(loaded["backbone.conv1.weight"], resnet18["conv1.weight"])


def test_weights_by_name_come_from_hubs_folder(
    hub: Path, resnet18: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    save(resnet18, hub / RESNET18_FILE)
    for name in ("DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"):
        loaded = models.create("unet", 3, backbone="resnet18", pretrained=name).state_dict()
        assert torch.equal(loaded["backbone.conv1.weight"], resnet18["conv1.weight"])
    assert capsys.readouterr().out == ""


def test_released_segmentation_weights_come_by_name(hub: Path) -> None:
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    weights = torchvision.models.segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1
    save(theirs.state_dict(), hub / Path(weights.url).name)
    loaded = models.create("fcn_resnet50", 21, pretrained="COCO_WITH_VOC_LABELS_V1").state_dict()
    assert torch.equal(loaded["classifier.4.weight"], theirs.state_dict()["classifier.4.weight"])


def test_without_a_network_the_file_and_its_place_are_named(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreachableError, match="no route to host") as caught:
        models.create("unet", 3, backbone="resnet18", pretrained="DEFAULT")
    assert str(hub / RESNET18_FILE) in str(caught.value)
    assert f"path/to/{RESNET18_FILE}" in str(caught.value)
    assert capsys.readouterr().out == "", "standard output belongs to --json"


def test_a_broken_download_is_named(hub: Path) -> None:
    (hub / RESNET18_FILE).write_bytes(b"<html>sign in to this network</html>")
    with pytest.raises(CorruptError, match=f"{RESNET18_FILE} is not the file"):
        models.create("unet", 3, backbone="resnet18", pretrained="DEFAULT")


@pytest.mark.parametrize(
    ("arch", "pretrained", "message"),
    [
        (
            "fcn_resnet18",
            "IMAGENET1K_V2",
            r"'IMAGENET1K_V2' is not known for fcn_resnet18 with resnet18.*IMAGENET1K_V1",
        ),
        ("fcn_resnet18", "ResNet50_Weights.DEFAULT", r"not known for fcn_resnet18 with resnet18"),
        ("fcn_resnet18", "yes", r"'yes' is not known.*or a local .safetensors, .pth, .pt file"),
        ("fcn_resnet50", "COCO", r"expected one of COCO_WITH_VOC_LABELS_V1, DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"),
        ("fcn_resnet18", "nowhere/weights.pth", r"nowhere/weights.pth: no such file"),
    ],
)
def test_unknown_weights_are_refused(arch: str, pretrained: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.create(arch, 3, pretrained=pretrained)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("segpipe-payload-ran"),)


def test_a_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save({"conv1.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        models.create("fcn_resnet18", 3, pretrained=path)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(InputError, match="holds more than tensors"):
        models.create("fcn_resnet18", 3, pretrained=str(tmp_path / "bare.pth"))
    assert not (tmp_path / "segpipe-payload-ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unreadable_files_are_named(suffix: str, resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    save(resnet18, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"cut{suffix}: cannot be read as weights"):
        models.create("fcn_resnet18", 3, pretrained=str(path))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a mapping of names to tensors"):
        models.create("fcn_resnet18", 3, pretrained=save([torch.zeros(1)], tmp_path / "list.pth"))


def test_what_does_not_fit_is_counted_and_named(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    faulty = {key: value for key, value in resnet18.items() if key != "layer1.0.conv1.weight"}
    faulty |= {"layer9.weight": torch.zeros(1), "conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(InputError) as caught:
        models.create("fcn_resnet18", 3, pretrained=save(faulty, tmp_path / "faulty.pth"))
    message = str(caught.value)
    assert "1 missing (backbone.layer1.0.conv1.weight)" in message
    assert "1 unexpected (backbone.layer9.weight)" in message
    assert "backbone.conv1.weight: file (64, 3, 3, 3), model (64, 3, 7, 7)" in message


def test_another_backbones_file_is_refused(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match=r"for fcn_resnet34: the tensors do not fit: \d+ missing \(.*and \d+ more\)"):
        models.create("fcn_resnet34", 3, pretrained=path)


# --- before any work


def test_a_check_takes_what_would_load_and_downloads_nothing(
    hub: Path, resnet18: dict[str, Tensor], tmp_path: Path
) -> None:
    five = models.create("unet", 5, backbone="resnet18").state_dict()
    for pretrained in (
        "DEFAULT",
        "ResNet18_Weights.IMAGENET1K_V1",
        save(resnet18, tmp_path / "backbone.pth"),
        save(five, tmp_path / "five-classes.safetensors"),
    ):
        models.check("unet", {"backbone": "resnet18"}, pretrained=pretrained)
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        (
            "IMAGENET1K_V2",
            r"not known for unet with resnet18; expected one of IMAGENET1K_V1, DEFAULT, or a local",
        ),
        ("", r"'' is not known for unet"),
        ("absent.pth", r"absent\.pth: no such file in /.*; give a \.safetensors, \.pth, \.pt file or a weights name"),
        ("/absent/absent.pth", r"absent\.pth: no such file; give a"),
        ("nul\0.pth", r"no such file"),
        ("folder.pth", r"folder\.pth: no such file"),
        ("text.pth", r"text\.pth: holds more than tensors, or is no torch file"),
        ("text.safetensors", r"text\.safetensors: cannot be read as weights"),
    ],
)
def test_a_check_refuses_what_would_not_load(
    pretrained: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    with pytest.raises(InputError, match=message):
        models.check("unet", {"backbone": "resnet18"}, pretrained=pretrained)


def test_a_check_refuses_another_backbones_file(tmp_path: Path) -> None:
    path = save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    fault = r"resnet34\.pth' for unet: the tensors do not fit: .* unexpected \(backbone\.layer1\.2\."
    with pytest.raises(InputError, match=fault):
        models.check("unet", {"backbone": "resnet18"}, pretrained=path)


def test_weights_are_told_apart_by_their_bytes_and_not_by_their_place(tmp_path: Path) -> None:
    here, there = tmp_path / "here.pth", tmp_path / "there.safetensors"
    here.write_bytes(b"one")
    there.write_bytes(b"one")
    first = models.weights_id("unet", {}, str(here))
    assert first == f"sha256:{hashlib.sha256(b'one').hexdigest()}" == models.weights_id("fcn_resnet18", {}, str(there))
    here.write_bytes(b"two")
    assert models.weights_id("unet", {}, str(here)) != first
    with pytest.raises(InputError, match=r"absent\.pth: no such file"):
        models.weights_id("unet", {}, str(tmp_path / "absent.pth"))


def test_every_name_of_the_same_weights_is_the_same_weights(hub: Path) -> None:
    for name in ("DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"):
        assert models.weights_id("unet", {"backbone": "resnet18"}, name) == "ResNet18_Weights.IMAGENET1K_V1"
    assert models.weights_id("fcn_resnet50", {}, "DEFAULT") == "ResNet50_Weights.IMAGENET1K_V2"
    assert models.weights_id("fcn_resnet50", {}, "COCO_WITH_VOC_LABELS_V1").startswith("FCN_ResNet50_Weights.")
    with pytest.raises(InputError, match="'yes' is not known"):
        models.weights_id("unet", {}, "yes")
    assert list(hub.iterdir()) == []
