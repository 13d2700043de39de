"""HRNet for keypoints: the paper's sizes and names, where crops are cut, and how released files fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segpipe import models
from segpipe.errors import InputError
from segpipe.models.hrnet_pose import regions_of, scaled
from segpipe.models.parts.hrnet import HRNet
from segpipe.models.spec import HeatmapOutput

BOX = torch.tensor([[10.0, 20.0, 40.0, 60.0]])


def tiny(**options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    usual: dict[str, Any] = {} if options.get("framing") == "image" else {"input_size": [64, 32]}
    return models.create("hrnet_pose_tiny", 3, **{"keypoints": 5, **usual, **options})


def images(batch: int = 1, size: tuple[int, int] = (70, 90)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize(("name", "millions"), [("hrnet_pose_w32", 28.5), ("hrnet_pose_w48", 63.6)])
def test_parameters_are_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = models.create(name, 1)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


RELEASED = {
    "conv2.weight": (64, 64, 3, 3),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer1.3.conv3.weight": (256, 64, 1, 1),
    "transition1.0.0.weight": (32, 256, 3, 3),
    "transition1.1.0.0.weight": (64, 256, 3, 3),
    "transition3.3.0.1.running_mean": (256,),
    "stage2.0.branches.1.3.bn2.weight": (64,),
    "stage3.3.fuse_layers.0.2.0.weight": (32, 128, 1, 1),
    "stage3.3.fuse_layers.2.0.0.0.weight": (32, 32, 3, 3),
    "stage3.3.fuse_layers.2.0.1.1.bias": (128,),
    "stage4.2.fuse_layers.0.3.0.weight": (32, 256, 1, 1),
}


def test_weights_have_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        state = models.create("hrnet_pose_w32", 1).state_dict()
    assert {key: tuple(state[f"backbone.{key}"].shape) for key in RELEASED} == RELEASED
    assert not any("stage4.2.fuse_layers.1" in name for name in state), "only the finest map is fused last"
    assert tuple(state["final_layer.weight"].shape) == (17, 32, 1, 1)


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (1, 1), (100, 31)])
def test_the_body_makes_four_maps_of_any_image(size: tuple[int, int]) -> None:
    body = HRNet("hrnet_w4", 4, stem=8, blocks=1, modules=(1, 1, 1)).eval()
    with torch.no_grad():
        maps = body(images(2, size))
    strides = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(found.shape) for found in maps] == [(2, 4 << n, *strides[n]) for n in range(4)]
    assert body.channels == (4, 8, 16, 32)


def test_every_branch_reaches_every_other_within_one_exchange() -> None:
    """A change of the coarsest map of the last unit changes the finest one, and the other way round."""
    torch.manual_seed(0)
    unit = HRNet("hrnet_w4", 4, stem=8, blocks=1, modules=(1, 1, 1)).eval().get_submodule("stage4.0")
    maps = [torch.rand(1, 4 << n, 16 >> n, 16 >> n) for n in range(4)]
    with torch.no_grad():
        before = unit(tuple(maps))
        for changed in range(4):
            others = [each + (place == changed) for place, each in enumerate(maps)]
            assert all(not torch.equal(new, old) for new, old in zip(unit(tuple(others)), before, strict=True))


def test_a_region_has_the_inputs_aspect_and_a_margin() -> None:
    wide, tall = torch.tensor([[0.0, 0.0, 60.0, 20.0]]), torch.tensor([[10.0, 0.0, 20.0, 80.0]])
    assert regions_of(wide, aspect=0.75, padding=1.0).tolist() == [[0.0, -30.0, 60.0, 50.0]]
    assert regions_of(tall, aspect=0.75, padding=1.25).tolist() == [[-22.5, -10.0, 52.5, 90.0]]
    point = regions_of(torch.tensor([[5.0, 5.0, 5.0, 5.0]]), aspect=1.0, padding=1.0)
    assert point.tolist() == [[4.5, 4.5, 5.5, 5.5]]
    assert scaled(tall, torch.tensor([[2.0]])).tolist() == [[5.0, -40.0, 25.0, 120.0]]


class Looking(torch.nn.Module):
    """Stands in for the body: the crop itself, one pixel in four, as its finest map."""

    channels = (3,)

    def forward(self, crops_NCHW: Tensor) -> tuple[Tensor]:
        return (torch.nn.functional.avg_pool2d(crops_NCHW, 4),)


def test_a_cell_shows_the_pixels_that_its_region_says() -> None:
    """An image whose values are its coordinates: each cell holds the middle of its part of the region."""
    network = tiny(keypoints=3, padding=1.0).eval()
    network.backbone = Looking()
    network.final_layer = torch.nn.Identity()
    rows, columns = torch.meshgrid(torch.arange(70.0), torch.arange(90.0), indexing="ij")
    picture = torch.stack([columns, rows, torch.zeros_like(rows)])[None]
    output = network(picture, [torch.tensor([[10.0, 4.0, 40.0, 64.0], [20.0, 30.0, 28.0, 40.0]])])
    assert output.regions_N4.tolist() == [[10, 4, 40, 64], [20, 27, 28, 43]]
    for maps, region in zip(output.heatmaps_NPhw, output.regions_N4.tolist(), strict=True):
        x0, y0, x1, y1 = region
        middles_x = x0 + (torch.arange(8) + 0.5) * (x1 - x0) / 8 - 0.5
        middles_y = y0 + (torch.arange(16) + 0.5) * (y1 - y0) / 16 - 0.5
        torch.testing.assert_close(maps[0], middles_x.expand(16, 8), atol=1e-4, rtol=0)
        torch.testing.assert_close(maps[1], middles_y[:, None].expand(16, 8), atol=1e-4, rtol=0)


def test_boxes_come_back_in_the_order_of_the_images() -> None:
    network, pictures = tiny().eval(), images(3)
    boxes = [BOX, torch.zeros(0, 4), torch.cat([BOX + 5, BOX])]
    with torch.no_grad():
        output = network(pictures, boxes)
        alone = network(pictures[2:], [BOX + 5])
    assert type(output) is HeatmapOutput
    assert output.heatmaps_NPhw.shape == (3, 5, 16, 8)
    torch.testing.assert_close(output.heatmaps_NPhw[1:2], alone.heatmaps_NPhw, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(output.regions_N4[1:2], alone.regions_N4)


@pytest.mark.parametrize("framing", ["objects", "image"])
def test_a_batch_without_an_object_reaches_every_parameter_all_the_same(framing: str) -> None:
    network = tiny(framing=framing).train()
    output = network(images(2), [torch.zeros(0, 4)] * 2)
    assert output.heatmaps_NPhw.shape == (1, 5, 18, 23)
    output.heatmaps_NPhw.square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_whole_images_are_regions_that_end_with_their_last_cell() -> None:
    network = tiny().eval()
    with torch.no_grad():
        output = network(images(2, (70, 90)))
    assert output.heatmaps_NPhw.shape == (2, 5, 18, 23)
    assert output.regions_N4.tolist() == [[0, 0, 92, 72]] * 2


def test_framing_image_takes_one_object_an_image() -> None:
    network = tiny(framing="image").eval()
    with torch.no_grad():
        output = network(images(3), [BOX, torch.zeros(0, 4), BOX])
        both = network(images(3)[[0, 2]])
    assert torch.equal(output.heatmaps_NPhw, both.heatmaps_NPhw)
    with pytest.raises(InputError, match=r"has 2 objects with keypoints; use framing objects"):
        network(images(1), [torch.cat([BOX, BOX])])


def test_scale_jitter_is_training_alone_and_follows_the_seed() -> None:
    network = tiny(jitter=0.3)
    regions = []
    for training, seed in ((False, 0), (True, 0), (True, 0), (True, 1)):
        torch.manual_seed(seed)
        with torch.no_grad():
            regions.append(network.train(training)(images(1), [BOX]).regions_N4)
    still, first, again, other = regions
    assert torch.equal(still, regions_of(BOX, aspect=0.5, padding=1.25))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    width = (first[0, 2] - first[0, 0]) / (still[0, 2] - still[0, 0])
    assert 0.7 <= float(width) <= 1.3 != 1.0


def released(name: str) -> dict[str, Tensor]:
    """Weights of the tiny form under the names of other people's files."""
    state = tiny().state_dict()
    body = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    head = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    if name == "authors":
        return {**body, **head}
    if name == "mmpose":
        return {**{f"backbone.{k}": v for k, v in body.items()}, **{f"keypoint_head.{k}": v for k, v in head.items()}}
    return {**body, "incre_modules.0.0.conv1.weight": torch.zeros(1), "classifier.weight": torch.zeros(1, 1)}


@pytest.mark.parametrize("name", ["authors", "mmpose", "classifier"])
def test_released_files_load(name: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(released(name), file)
    torch.manual_seed(9)
    options: dict[str, Any] = {"keypoints": 5, "input_size": [64, 32]}
    model = models.create("hrnet_pose_tiny", 3, pretrained=str(file), **options)
    models.check("hrnet_pose_tiny", options, pretrained=str(file))
    for key, value in tiny().state_dict().items():
        same = torch.equal(model.state_dict()[key], value)
        assert same or (name == "classifier" and key == "final_layer.weight"), key


def test_the_head_of_other_keypoints_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(released("authors"), file)
    model = models.create("hrnet_pose_tiny", 3, pretrained=str(file), keypoints=8, input_size=[64, 32])
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], tiny().state_dict()["backbone.conv1.weight"])
    assert "not loaded from" in caplog.text
    assert "final_layer.weight, final_layer.bias" in caplog.text or "final_layer.bias, final_layer.w" in caplog.text


def test_a_file_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({k: v for k, v in released("authors").items() if k != "stage2.0.branches.0.0.conv1.weight"}, file)
    with pytest.raises(InputError, match=r"1 missing \(backbone.stage2.0.branches.0.0.conv1.weight\)"):
        models.check("hrnet_pose_tiny", {"keypoints": 5}, pretrained=str(file))


def test_there_are_no_weights_by_name() -> None:
    with pytest.raises(InputError, match=r"'DEFAULT' is not known .* expected a local .safetensors, .pth, .pt file"):
        models.check("hrnet_pose_w32", {}, pretrained="DEFAULT")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keypoints": 0}, "keypoints: 0; expected 1 or more"),
        ({"input_size": [256]}, r"input_size: \[256\]; expected \[height, width\] in multiples of 32"),
        ({"input_size": [256, 190]}, r"input_size: \[256, 190\]"),
        ({"padding": 0.5}, "padding: 0.5; expected 1 or more"),
        ({"jitter": 1.0}, "jitter: 1.0; expected 0 or more, below 1"),
        ({"framing": "boxes"}, "framing: 'boxes' is not one of objects, image"),
        ({"keypoint_pairs": [[1, 17]]}, r"keypoint_pairs: \[\[1, 17\]\]; expected pairs of places, each once, from 0"),
        ({"keypoint_pairs": [[1, 2], [2, 3]]}, "keypoint_pairs: "),
        ({"most_objects": 0}, "most_objects: 0; expected 1 or more"),
        ({"tile": 512}, "tile: 512; a model of framing objects makes no use of it: leave it out"),
        ({"framing": "image", "jitter": 0.1}, "jitter: 0.1; a model of framing image makes no use of it: leave it out"),
        (
            {"framing": "image", "input_size": [64, 64]},
            r"input_size: \[64, 64\]; a model of framing image makes no use",
        ),
        ({"tile": 100}, r"tile: 100; expected a multiple of 32"),
        ({"tile": 128, "overlap": 96}, r"overlap: 96; expected a multiple of 32, at most half of tile"),
    ],
    ids=str,
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.check("hrnet_pose_tiny", options)
