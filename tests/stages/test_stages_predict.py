"""What a model says of files, folders and dataset versions: masks, pictures, COCO; what is kept, what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segpipe import masks, palettes
from segpipe.checkpoint import load_bundle, load_model
from segpipe.data.batch import Batch
from segpipe.errors import InputError
from segpipe.predict import loop
from segpipe.stages import predict as stage
from segpipe.stages.images import Reader, Request, chosen_model
from segpipe.stages.predict import Predicted, predict
from segpipe.tasks.views import look
from segpipe.types import ClassInfo, Inference, ModelBundle, Task, Window
from tests.fixtures.nearest_colour import NearestColour
from tests.fixtures.pictures import photograph
from tests.fixtures.small import CLASSES, small_samples
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
NUMBER = 5


def nearest(uri: str, **_: object) -> tuple[nn.Module, ModelBundle]:
    """A model that makes no mistake, in the place of one that has learnt for seconds."""
    return NearestColour(), load_bundle(uri)


def said(
    model_uri: str, image: bytes, *, window: tuple[int, int] | None = None, load: Callable[..., Any] = nearest
) -> np.ndarray[Any, Any]:
    """The class ids that the task's own door gives for one image."""
    model, bundle = load(model_uri)
    if window:
        seen = Inference(scales=(1.0,), mirror=False, window=Window(size=window, overlap=0.5))
        bundle = dataclasses.replace(bundle, inference=seen)
    pixels = torch.from_numpy(masks.read_rgb(image, file="x")).permute(2, 0, 1)[None]
    batch = Batch(images_N3HW=pixels, labels_NHW=None, sample_ids=("x",), original_sizes=(tuple(pixels.shape[2:]),))  # type: ignore[arg-type]
    with torch.inference_mode():
        return look(model, batch, bundle)[0][0].numpy()


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(opened(path))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, sample in enumerate(small_samples("test", NUMBER)):
        path = folder / f"day{number % 2}" / f"{number}.{'jpg' if number % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.image)
    return folder


@pytest.fixture
def run(shapes: Shapes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Predicted]:
    monkeypatch.setattr(loop, "load_model", nearest)

    def call(**changes: Any) -> Predicted:
        return predict(shapes.result.model_uri, **{"source": str(photos), "to": str(tmp_path / "out"), **changes})

    return call


def test_masks_hold_ids_in_the_colours_of_the_classes(
    shapes: Shapes, photos: Path, run: Callable[..., Predicted]
) -> None:
    done = run()
    assert (done.images, done.made, done.kept, done.quarantined) == (NUMBER, NUMBER, 0, ())
    for path in photos.rglob("*.*"):
        made = Path(done.outputs["masks"]) / path.relative_to(photos).with_suffix(".png")
        mask = opened(made)
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), said(shapes.result.model_uri, path.read_bytes()))
        colours = np.array([info.colour for info in CLASSES], dtype=np.uint8)
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), colours[np.asarray(mask)])
        record = json.loads((Path(done.to) / "records" / path.relative_to(photos).with_suffix(".json")).read_text())
        assert sum(record["found"].values()) == np.asarray(mask).size
    voc = run(palette="voc")
    assert voc.to != done.to, "another palette is another result"
    palette = opened(Path(voc.outputs["masks"]) / "day0" / "0.png").getpalette() or []
    assert palette[:9] == [part for colour in palettes.PALETTES["voc"].colours[:3] for part in colour]
    grey = run(palette="grey")
    assert opened(Path(grey.outputs["masks"]) / "day0" / "0.png").mode == "L"


def test_every_kind_of_output(photos: Path, run: Callable[..., Predicted]) -> None:
    done = run(outputs=("masks", "overlays", "coco"), cutout="disc")
    assert list(done.outputs) == ["masks", "overlays", "coco", "cutouts"]
    document = json.loads(Path(done.outputs["coco"]).read_text())
    assert [image["file_name"] for image in document["images"]] == sorted(
        path.relative_to(photos).as_posix() for path in photos.rglob("*.*")
    )
    assert [category["name"] for category in document["categories"]] == ["ground", "box", "disc"]
    by_image = {image["id"]: image for image in document["images"]}
    painted = {number: np.full((i["height"], i["width"]), 255, dtype=np.uint8) for number, i in by_image.items()}
    for entry in document["annotations"]:
        image = by_image[entry["image_id"]]
        inside = masks.decode_rle(entry["segmentation"], image["height"], image["width"]) > 0
        assert entry["area"] == inside.sum()
        painted[entry["image_id"]][inside] = entry["category_id"] - 1
    cut = 0
    for number, image in by_image.items():
        stem = Path(image["file_name"]).with_suffix("")
        ids = pixels_of(Path(done.to) / "masks" / f"{stem}.png")
        np.testing.assert_array_equal(painted[number], ids)
        photo = masks.read_rgb((photos / image["file_name"]).read_bytes(), file="x")
        colours = np.array([info.colour for info in CLASSES])
        mixed = (photo.astype(float) + colours[ids]) / 2
        assert np.abs(pixels_of(Path(done.to) / "overlays" / f"{stem}.png") - mixed).max() <= 0.5
        record = json.loads((Path(done.to) / "records" / f"{stem}.json").read_text())
        if not (ids == 2).any():
            assert record["cutout_box"] is None
            continue
        cut += 1
        x0, y0, x1, y1 = record["cutout_box"]
        inside = ids[y0:y1, x0:x1] == 2
        assert inside.sum() == (ids == 2).sum()
        piece = pixels_of(Path(done.to) / "cutouts" / f"{stem}.png")
        np.testing.assert_array_equal(piece[..., 3], np.where(inside, 255, 0))
        np.testing.assert_array_equal(piece[..., :3], photo[y0:y1, x0:x1] * inside[..., None])
    assert cut, "the model finds no disc anywhere: this test shows nothing"


def test_what_is_there_is_not_made_again(
    run: Callable[..., Predicted], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(outputs=("masks", "coco"))
    before = {path: path.read_bytes() for path in Path(first.to).rglob("*.*")}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "load_model", refuse)
        again = run(outputs=("masks", "coco"))
    assert (again.to, again.made, again.kept) == (first.to, 0, NUMBER)
    (Path(first.to) / "masks" / "day0" / "0.png").write_bytes(b"torn")
    (Path(first.to) / "records" / "day1" / "1.json").write_text("{")
    (Path(first.to) / "masks" / "day0" / "2.png").unlink()
    shutil.copy(photos / "day1" / "3.jpg", photos / "day0" / "4.png")  # the image itself was changed
    mended = run(outputs=("masks", "coco"))
    assert (mended.made, mended.kept) == (4, 1)
    after = {path: path.read_bytes() for path in Path(first.to).rglob("*.*")}
    changed = {path.relative_to(first.to).as_posix() for path in before if before[path] != after[path]}
    assert changed == {"masks/day0/4.png", "records/day0/4.json", "coco/day0/4.json", "coco.json"}
    (photos / "day0" / "4.png").write_text("no image any more")
    fewer = run(outputs=("masks", "coco"))
    assert (fewer.to, fewer.kept, [entry.file for entry in fewer.quarantined]) == (first.to, 4, ["day0/4.png"])
    listed = [image["file_name"] for image in json.loads(Path(fewer.outputs["coco"]).read_text())["images"]]
    assert listed == ["day0/0.png", "day0/2.png", "day1/1.jpg", "day1/3.jpg"], "what was said of it is of another image"


def test_a_run_that_was_stopped_goes_on(run: Callable[..., Predicted]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(batch_size=1, on_progress=stop)
    told: list[tuple[int, int]] = []
    rest = run(batch_size=1, on_progress=lambda done, total: told.append((done, total)))
    assert rest.made + rest.kept == NUMBER
    assert rest.kept == 3, "what was asked about was written"
    assert told == [(n, NUMBER) for n in range(NUMBER + 1)]


def test_bad_files_are_set_aside_and_their_neighbours_go_on(run: Callable[..., Predicted], photos: Path) -> None:
    (photos / "torn.jpg").write_bytes((photos / "day1" / "1.jpg").read_bytes()[:200])
    (photos / "text.png").write_text("no image")
    (photos / "notes.txt").write_text("no image, and not called one")
    done = run()
    assert {(entry.file, entry.reason) for entry in done.quarantined} == {
        ("text.png", "format_not_allowed"),
        ("torn.jpg", "truncated"),
    }
    assert done.made == NUMBER
    assert done.quarantine is not None
    assert len(json.loads(Path(done.quarantine).read_text())) == 2
    assert done.notes == (
        "passed over: 1 file that are no JPEG or PNG by name: notes.txt; images are read in these two formats",
    )


def test_a_photograph_on_its_side_is_answered_as_it_is_shown(run: Callable[..., Predicted], tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(photograph(20, 30, orientation=6))
    done = run(source=str(turned), outputs=("masks", "overlays", "coco"))
    assert [opened(Path(done.outputs[kind]) / "turned.png").size for kind in ("masks", "overlays")] == [(20, 30)] * 2
    (image,) = json.loads(Path(done.outputs["coco"]).read_text())["images"]
    assert (image["height"], image["width"]) == (30, 20)


def test_one_file_and_a_split_of_a_dataset(
    shapes: Shapes, run: Callable[..., Predicted], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(source=str(photos / "day1" / "1.jpg"))
    assert (one.images, Path(one.outputs["masks"], "1.png").is_file()) == (1, True)
    monkeypatch.undo()  # and by the network itself
    split = run(source=shapes.data, split="test")
    samples = list(small_samples("test", 6))
    assert split.made == len(samples)
    for sample in samples:
        ids = pixels_of(Path(split.outputs["masks"]) / f"{sample.sample_id}.png")
        np.testing.assert_array_equal(ids, said(shapes.result.model_uri, sample.image, load=load_model))


def test_images_of_a_dataset_are_not_read_again_to_learn_that_they_are_known(
    shapes: Shapes, run: Callable[..., Predicted], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(source=shapes.data, split="test")

    def refuse(self: Reader, request: Request) -> None:
        raise AssertionError(f"{request.file} was read")

    monkeypatch.setattr(Reader, "picture", refuse)
    again = run(source=shapes.data, split="test")
    assert (again.to, again.made, again.kept) == (first.to, 0, first.made)


def test_files_that_differ_in_their_endings_alone(run: Callable[..., Predicted], photos: Path) -> None:
    shutil.copy(photos / "day0" / "0.png", photos / "day1" / "1.png")
    done = run()
    names = {path.relative_to(done.outputs["masks"]).as_posix() for path in Path(done.outputs["masks"]).rglob("*.png")}
    assert {"day1/1.jpg.png", "day0/0.png"} < names
    assert len(names) == NUMBER + 1


def test_large_images_go_through_windows(shapes: Shapes, run: Callable[..., Predicted], tmp_path: Path) -> None:
    tile = masks.read_rgb(next(iter(small_samples("test", 1))).image, file="x")
    large = masks.encode_png(np.tile(tile, (4, 5, 1)))
    (tmp_path / "large.png").write_bytes(large)
    done = run(source=str(tmp_path / "large.png"), window=(64, 64))
    ids = pixels_of(Path(done.outputs["masks"]) / "large.png")
    np.testing.assert_array_equal(ids, said(shapes.result.model_uri, large, window=(64, 64)))
    assert done.to != run(source=str(tmp_path / "large.png")).to


def test_an_image_beyond_memory_is_set_aside_with_the_remedy(
    run: Callable[..., Predicted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_numbers_there", lambda device: 1000.0)
    done = run()
    assert done.made == 0
    assert {entry.reason for entry in done.quarantined} == {"too_large"}
    assert "--window 1024x1024" in done.quarantined[0].detail


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ("mask",)}, "output 'mask': expected some of masks, overlays"),
        ({"outputs": ("instances",)}, "instances cannot be made .* it gives: masks, overlays, coco, cutouts"),
        ({"outputs": ("cutouts",)}, "name it .*one of: ground, box, disc"),
        ({"cutout": "dics"}, "cut-outs of 'dics': expected one class .* ground, box, disc"),
        ({"palette": "voc", "outputs": ("coco",)}, "palette 'voc' colours masks and overlays, and coco alone would be"),
        ({"palette": "vok"}, "unknown palette 'vok'; did you mean 'voc'"),
        ({"source": "photos/absent"}, "there is no such file, folder or dataset"),
        ({"split": "test"}, "holds no dataset"),
        ({"source": "DATA"}, "has the splits test, train, val; say which"),
        ({"source": "DATA", "split": "tset"}, "no split 'tset'"),
        ({"source": "EMPTY"}, "holds no image among 0 files"),
    ],
)
def test_what_cannot_be_asked(
    changes: dict[str, Any], message: str, shapes: Shapes, run: Callable[..., Predicted], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"DATA": shapes.data, "EMPTY": str(tmp_path / "empty")}
    given = changes | ({"source": places.get(changes["source"], changes["source"])} if "source" in changes else {})
    with pytest.raises(InputError, match=message):
        run(**given)
    assert not (tmp_path / "out").exists()


def told_as(monkeypatch: pytest.MonkeyPatch, model_uri: str, num_classes: int, task: Task = Task.SEMANTIC) -> None:
    """Makes the model one of so many classes and this task, as far as is looked at before it is asked."""
    chosen = chosen_model(model_uri)
    classes = tuple(ClassInfo(name=f"c{k}", colour=(k % 256, 1, 2)) for k in range(num_classes))
    bundle = dataclasses.replace(chosen.bundle, classes=classes, task=task)
    monkeypatch.setattr(stage, "chosen_model", lambda name: dataclasses.replace(chosen, bundle=bundle))


@pytest.mark.parametrize(
    ("num_classes", "task", "outputs", "palette", "message"),
    [
        (300, Task.SEMANTIC, "masks", "classes", "300 classes are more than the palette of a PNG holds.*choose 'grey'"),
        (256, Task.INSTANCE, "masks", "classes", "256 classes and nothing are more"),
        (12, Task.SEMANTIC, "overlays", "camvid", "'camvid' has 11 colours, the model 12 classes"),
        (2, Task.KEYPOINTS, "overlays", "voc", "'voc' is seen in no overlay of .* of task keypoints"),
        (1, Task.DETECTION, "overlays", "voc", "'voc' is seen in no overlay of .* of task detection"),
        (3, Task.SEMANTIC, "overlays", "grey", "'grey' is of masks"),
    ],
)
def test_colours_that_cannot_be_had(
    num_classes: int,
    task: Task,
    outputs: str,
    palette: str,
    message: str,
    shapes: Shapes,
    run: Callable[..., Predicted],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    told_as(monkeypatch, shapes.result.model_uri, num_classes, task)
    with pytest.raises(InputError, match=message):
        run(outputs=(outputs,), palette=palette)
    assert not (tmp_path / "out").exists(), "told before a model is asked"


def test_more_classes_than_a_palette_of_png(
    shapes: Shapes, run: Callable[..., Predicted], monkeypatch: pytest.MonkeyPatch
) -> None:
    told_as(monkeypatch, shapes.result.model_uri, 300)
    done = run(outputs=("overlays", "coco"))
    assert (done.made, list(done.outputs)) == (NUMBER, ["overlays", "coco"])
    mask = opened(Path(run(palette="grey").outputs["masks"]) / "day0" / "0.png")
    assert mask.mode == "I;16"


def test_a_model_that_is_not_there(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a model bundle"):
        predict(str(tmp_path), str(photos))
    with pytest.raises(InputError, match="expected models:/NAME@champion"):
        predict("models:/shapes", str(photos))
