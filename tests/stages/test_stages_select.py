"""Which images are put before a person, in what form, and that the answers come back as they were given."""

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
from PIL import Image
from torch import nn

from segpipe import masks, storage
from segpipe.checkpoint import load_bundle
from segpipe.config import DatasetConfig
from segpipe.errors import ConflictError, InputError, NonFiniteError
from segpipe.predict import Picture, loop
from segpipe.shards import open_dataset
from segpipe.sources import open_source
from segpipe.stages import images as stage_images
from segpipe.stages import labelling
from segpipe.stages.ingest import ingest
from segpipe.stages.select import Selected, select
from segpipe.types import IMAGENET_STD, ModelBundle, Sample, Task
from tests.fixtures.mini_label_studio import EXPORT, answer
from tests.fixtures.nearest_colour import NearestColour
from tests.fixtures.pictures import photograph
from tests.fixtures.small import CLASSES, small_samples
from tests.fixtures.unsure_networks import Contrary, Diverged, Doubting
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
NUMBER, UNSURE = 6, ("day0/2", "day1/5")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photographs in two folders, PNG, two of them with a dark corner."""
    for number, sample in enumerate(small_samples("test", NUMBER)):
        name = f"day{number % 2}/{number}"
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.array(Image.open(io.BytesIO(sample.image)))
        if name in UNSURE:
            pixels[0, 0] = 0
        path.write_bytes(masks.encode_png(pixels))
    return tmp_path / "photos"


Run = Callable[..., Selected]


@pytest.fixture
def run(shapes: Shapes, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loop, "load_model", lambda uri, **_: (Doubting(), load_bundle(uri)))

    def call(**changes: Any) -> Selected:
        given = {"models": [shapes.result.model_uri], "count": 2, "to": str(tmp_path / "out"), "spread": 1}
        return select(**{"source": str(photos), **given, **changes})

    return call


def stems(done: Selected) -> list[str]:
    return sorted(each.file.removesuffix(".png") for each in done.chosen)


def committee(shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models: one that makes no mistake, and one of other weights that does."""
    uri = Path(shutil.copytree(shapes.result.model_uri, tmp_path / "contrary" / "model"))
    (document,) = [path for path in uri.glob("*.json") if "weights_sha256" in path.read_text()]
    told = json.loads(document.read_text())
    document.unlink()
    document.write_text(json.dumps({**told, "weights_sha256": "f" * 64}))

    def load(asked: str, **_: object) -> tuple[nn.Module, ModelBundle]:
        bundle = load_bundle(shapes.result.model_uri)
        return (Contrary() if asked == str(uri) else NearestColour()), bundle

    monkeypatch.setattr(loop, "load_model", load)
    return [shapes.result.model_uri, str(uri)]


# --- what is chosen


@pytest.mark.parametrize("strategy", [None, "margin", "least-confidence"])
def test_the_least_sure_images(strategy: str | None, run: Run) -> None:
    done = run(strategy=strategy)
    assert stems(done) == sorted(UNSURE)
    assert (done.images, done.asked, done.strategy) == (NUMBER, NUMBER, strategy or "entropy")
    assert [each.rank for each in done.chosen] == [1, 2]
    assert all(each.score > 0.9 for each in done.chosen)
    assert f"{done.strategy} {done.chosen[0].score:.3f}, place 1 of 6" in done.chosen[0].why


@pytest.mark.parametrize("strategy", [None, "pairwise-miou"])
def test_what_models_disagree_on(
    strategy: str | None, run: Run, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(models=committee(shapes, tmp_path, monkeypatch), strategy=strategy)
    assert stems(done) == sorted(UNSURE)
    assert (done.asked, done.strategy) == (2 * NUMBER, strategy or "vote-entropy")
    others = run(
        models=committee(shapes, tmp_path / "again", monkeypatch), strategy=strategy, count=6, to=str(tmp_path / "all")
    )
    assert [each.score for each in others.chosen[2:]] == [0] * 4


def test_another_strategy_or_number_asks_nobody_again(run: Run, tmp_path: Path) -> None:
    assert run().asked == NUMBER
    assert run(strategy="margin", count=3, to=str(tmp_path / "other")).asked == 0
    records = sorted((tmp_path / "home" / "scores").rglob("*.json"))
    votes = sorted((tmp_path / "home" / "scores").rglob("*.png"))
    records[0].write_text("{}")
    votes[-1].write_bytes(votes[-1].read_bytes()[:-9])
    assert run(to=str(tmp_path / "third")).asked == 2, "what is damaged is made again"
    assert run(to=str(tmp_path / "fourth")).asked == 0


def test_labelled_and_repeated_images_are_left_out(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labelled"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    shutil.copy(photos / "day0" / "2.png", folder / "images" / "known.png")
    pixels = masks.read_rgb((photos / "day0" / "2.png").read_bytes(), file="x")
    (folder / "masks" / "known.png").write_bytes(masks.encode_png(np.zeros_like(pixels[..., 0])))
    (folder / "classes.txt").write_text("ground\n")
    config = DatasetConfig(name="known", format="folder", root=str(folder), options={"shares": "1,0,0"})
    ingest(config)
    shutil.copy(photos / "day1" / "5.png", photos / "day1" / "copy of 5.png")
    done = run(labelled=["known"])
    assert "day0/2" not in stems(done)
    assert {"day1/5", "day1/copy of 5"} & set(stems(done))
    assert (done.left_out.labelled, done.left_out.repeated, done.images) == (1, 1, NUMBER + 1)
    for path in photos.rglob("*.png"):
        if path.name != "2.png":
            path.unlink()
    with pytest.raises(InputError, match="none of its 1 image is left to choose from: 1 labelled already, 0 unusable"):
        run(labelled=["known"], to=str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_one_of_each_folder(run: Run, photos: Path) -> None:
    done = run(count=4, per_group=1)
    assert {each.group for each in done.chosen} == {"day0", "day1"}
    assert (len(done.chosen), done.left_out.group_full) == (2, 4)
    assert "2 of the 4 images that were asked for" in done.notes[-1]


def test_a_bad_image_is_told_and_the_others_go_on(run: Run, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run()
    assert [entry.file for entry in done.quarantined] == ["bad.png"]
    assert stems(done) == sorted(UNSURE)


def test_a_photograph_that_its_camera_turned_is_told_before_anybody_labels_it(run: Run, photos: Path) -> None:
    (photos / "turned.jpg").write_bytes(photograph(20, 30, orientation=6))
    done = run(count=NUMBER + 1)
    assert [(entry.file, entry.reason) for entry in done.quarantined] == [("turned.jpg", "exif_rotated")]
    assert (len(done.chosen), done.asked) == (NUMBER, NUMBER)


def test_a_split_of_a_dataset(run: Run, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(source=shapes.data, split="train", count=3)
    dataset, read = open_dataset(shapes.data), list[str]()
    known = dict(zip(dataset.sample_ids("train"), dataset.groups("train"), strict=True))
    assert {each.file: each.group for each in done.chosen}.items() <= known.items()
    with pytest.raises(InputError, match="say which one is meant"):
        run(source=shapes.data)
    real = stage_images.Reader.picture

    def noted(self: stage_images.Reader, request: stage_images.Request) -> Picture:
        read.append(request.file)
        return real(self, request)

    monkeypatch.setattr(stage_images.Reader, "picture", noted)
    assert run(source=shapes.data, split="train", count=2, to=str(tmp_path / "two")).asked == 0
    assert len(read) == 2, "only those that are chosen"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "vote-entropy"}, "'vote-entropy' and 1 model: entropy, margin, least-confidence ask one model"),
        ({"strategy": "random"}, "strategy 'random'"),
        ({"format": "cvat"}, "format 'cvat': expected one of coco, label-studio"),
    ],
)
def test_wrong_use(changes: dict[str, Any], message: str, run: Run) -> None:
    with pytest.raises(InputError, match=message):
        run(**changes)


def test_the_same_model_twice_is_no_committee(run: Run, shapes: Shapes) -> None:
    with pytest.raises(InputError, match="never disagrees with itself"):
        run(models=[shapes.result.model_uri] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": Task.DETECTION}, "gives no pixel a class"),
        ({"task": Task.INSTANCE}, "several models"),
        ({"arch": "mask2former"}, "tells no probability"),
    ],
)
def test_a_model_that_cannot_be_asked(
    change: dict[str, Any], message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = stage_images.checkpoint.load_bundle
    monkeypatch.setattr(stage_images.checkpoint, "load_bundle", lambda uri: dataclasses.replace(load(uri), **change))
    with pytest.raises(InputError, match=message):
        run()


def test_a_committee_speaks_of_the_same_classes(
    run: Run, shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, load = committee(shapes, tmp_path, monkeypatch), stage_images.checkpoint.load_bundle

    def other(uri: str) -> ModelBundle:
        bundle = load(uri)
        return bundle if uri == models[0] else dataclasses.replace(bundle, classes=CLASSES[:2])

    monkeypatch.setattr(stage_images.checkpoint, "load_bundle", other)
    with pytest.raises(InputError, match="a committee votes on the same ones"):
        run(models=models)


def test_a_model_that_has_diverged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "load_model", lambda uri, **_: (Diverged(), load_bundle(uri)))
    with pytest.raises(NonFiniteError, match="no probability"):
        run()


# --- the folder


def test_the_same_again_changes_nothing_and_another_is_refused(run: Run, tmp_path: Path) -> None:
    first = run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = run()
    assert (again.chosen, again.asked) == (first.chosen, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    with pytest.raises(ConflictError, match="another export lies there"):
        run(count=3)


def test_a_folder_that_is_not_free_is_told_before_anybody_is_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(ConflictError, match=r"a\.txt among them"):
        run(to=str(tmp_path / "mine"))
    assert not (tmp_path / "home" / "scores").exists()


def test_a_killed_run_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "select.done":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "failpoint", die)
        with pytest.raises(Killed):
            run()
    assert not (tmp_path / "out" / labelling.DONE).exists()
    done = run()
    assert done.asked == 0
    told = json.loads((tmp_path / "out" / labelling.DONE).read_text())
    assert [each["file"] for each in told["chosen"]] == [each.file for each in done.chosen]


# --- what people make of it comes back


def truth(path: Path) -> np.ndarray:
    """What a model that makes no mistake says of a photograph."""
    pixels = np.array(Image.open(path).convert("RGB")).astype(int)
    colours = np.array([info.colour for info in CLASSES])
    return (((pixels[:, :, None] - colours) / np.array(IMAGENET_STD)) ** 2).sum(axis=3).argmin(axis=2)


def as_polygon(result: dict[str, Any]) -> dict[str, Any]:
    """What a person draws who follows the edges of the pixels."""
    height, width = result["original_height"], result["original_width"]
    corners = masks.polygon_of_mask(masks.decode_brush(result["value"]["rle"], height, width))
    points = (corners / (width, height) * 100).tolist()
    value = {"points": points, "closed": True, "polygonlabels": result["value"]["brushlabels"]}
    return {**result, "type": "polygonlabels", "from_name": "polygon", "value": value}


def check(samples: dict[str, Sample], done: Selected, photos: Path, said: Callable[[Path], np.ndarray]) -> None:
    assert sorted(samples) == stems(done)
    for name, sample in samples.items():
        path = photos / f"{name}.png"
        assert sample.image == path.read_bytes()
        found = np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)
        np.testing.assert_array_equal(found, said(path))


@pytest.mark.parametrize("tool", ["brush", "polygon"])
def test_answers_of_label_studio(
    tool: str, run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brushes to the pixel; polygons along the edges of pixels too, since COCO's rasteriser fills just these."""
    monkeypatch.setattr(loop, "load_model", lambda uri, **_: (NearestColour(), load_bundle(uri)))
    done = run(count=4)
    found = json.loads((tmp_path / "out" / "tasks.json").read_text())
    for number, task in enumerate(found, start=1):
        (prediction,) = task["predictions"]
        assert prediction["score"] == pytest.approx(1 - done.chosen[number - 1].score)
        assert task["data"]["image"].startswith("/data/local-files/?d=out/images/")
        regions = prediction["result"] if tool == "brush" else [as_polygon(each) for each in prediction["result"]]
        task |= {"id": number, "annotations": [answer(number, regions)]}
        task["predictions"][0]["result"] = []
    (tmp_path / "out" / EXPORT).write_text(json.dumps(found))
    source = open_source("label_studio", str(tmp_path / "out"))
    assert [(info.name, info.colour) for info in source.classes] == [(info.name, info.colour) for info in CLASSES]
    index = source.index()
    assert (index.refused, {ref.group for ref in index.refs}) == ([], {each.group for each in done.chosen})
    samples = {ref.sample_id: source.read(ref) for ref in index.refs}
    check(samples, done, photos, truth)


def test_answers_as_coco(run: Run, photos: Path, tmp_path: Path) -> None:
    done = run(format="coco")
    options = {"images": "images", "annotations": "proposals.json"}
    with pytest.raises(InputError, match="which nobody has looked at"):
        open_source("coco", str(tmp_path / "out"), options).index()
    document = json.loads((tmp_path / "out" / "proposals.json").read_text())
    (tmp_path / "out" / "answers.json").write_text(json.dumps({**document, "info": {"description": "by people"}}))
    source = open_source("coco", str(tmp_path / "out"), {**options, "annotations": "answers.json"})
    index = source.index()
    assert index.refused == []
    assert [info.name for info in source.classes] == [info.name for info in CLASSES]
    assert sorted(ref.sample_id for ref in index.refs) == [f"images/{name}" for name in stems(done)]
    for ref in index.refs:
        sample = source.read(ref)
        assert sample.image == (photos / f"{ref.sample_id.removeprefix('images/')}.png").read_bytes()
        covered = sum(masks.decode_rle(s.rle or b"", sample.height, sample.width).astype(int) for s in sample.segments)
        assert (np.asarray(covered) == 1).all()


def test_answers_join_the_dataset(run: Run, shapes: Shapes, photos: Path, tmp_path: Path) -> None:
    """select -> label -> ingest: the version has the new samples in train, and scores by the same ones."""
    done = run()
    found = json.loads((tmp_path / "out" / "tasks.json").read_text())
    for number, task in enumerate(found, start=1):
        task |= {"id": number, "annotations": [answer(number, task["predictions"][0]["result"])]}
    (tmp_path / "out" / EXPORT).write_text(json.dumps(found))
    folder = tmp_path / "own"
    for number, sample in enumerate(small_samples("train", 4)):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{number}.png").write_bytes(masks.encode_png(masks.read_rgb(sample.image, file="x")))
        ids = np.frombuffer(sample.label_map or b"", np.uint8).reshape(sample.height, sample.width)
        (folder / "masks" / f"{number}.png").write_bytes(masks.encode_png(ids))
    for split, names in (("train", "0 1"), ("val", "2"), ("test", "3")):
        (folder / f"{split}.txt").write_text(names.replace(" ", "\n"))
    (folder / "classes.txt").write_text("\n".join(info.name for info in CLASSES))
    addition = {"format": "label_studio", "root": str(tmp_path / "out")}
    plain = {"name": "own", "format": "folder", "root": str(folder)}
    before = ingest(DatasetConfig(**plain))
    after = ingest(DatasetConfig(**plain, additions=[addition]))
    assert (before.splits, after.splits) == ({"train": 2, "val": 1, "test": 1}, {"train": 4, "val": 1, "test": 1})
    old, new = (open_dataset(each.uri, version=each.version) for each in (before, after))
    assert new.sample_ids("test") == old.sample_ids("test")
    assert new.image_hashes("train") == old.image_hashes("train") + sorted(
        (each.image_sha256 for each in done.chosen),
        key=[e.image_sha256 for e in sorted(done.chosen, key=lambda e: e.file)].index,
    )
    assert new.manifest.annotations == old.manifest.annotations
    assert not any(sample.segments for sample in new.samples("train"))
    assert ingest(DatasetConfig(**plain, additions=[addition])).status == "already_published"
    assert run(labelled=["own"], to=str(tmp_path / "next")).left_out.labelled == 2
