"""A registered model asked with files of images: PNG and run lengths, classes, areas and confidences come back."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from PIL import Image, ImageOps

from segpipe import masks, serving
from segpipe.checkpoint import load_model
from segpipe.data.batch import normalise
from segpipe.masks import decode_rle
from segpipe.predictions import PanopticMap
from segpipe.serving.replies import reply_of
from segpipe.types import Segment
from tests.fixtures import regions
from tests.fixtures.cells import CELL_CLASSES
from tests.fixtures.mlflow_store import CLASSES, make_bundle
from tests.fixtures.pictures import photograph
from tests.fixtures.sent import encoded, png


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_bundle(tmp_path_factory.mktemp("run"))[0]


def images(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("mask", ["png", "rle"])
def test_a_picture_is_answered_with_masks_classes_areas_and_confidences(bundle_uri: str, mask: str) -> None:
    predictor, (image,) = serving._load_pyfunc(bundle_uri), images(1, 31, 17)
    (said,) = predictor.predict(encoded(image), {"mask": "auto" if mask == "png" else mask})
    network, bundle = load_model(bundle_uri)
    with torch.inference_mode():
        entering = normalise(torch.from_numpy(image[None]).permute(0, 3, 1, 2), bundle.mean, bundle.std)
        sure_HW, ids_HW = network(entering).logits_NKHW.softmax(1)[0].max(0)
    assert (said["height"], said["width"]) == (31, 17)
    assert ("mask" in said) == (mask == "png")
    if mask == "png":
        np.testing.assert_array_equal(png(said["mask"]), ids_HW)
    found = ids_HW.unique().tolist()
    assert [each["class_id"] for each in said["classes"]] == found
    assert [each["class"] for each in said["classes"]] == [CLASSES[k].name for k in found]
    for each in said["classes"]:
        inside_HW = ids_HW == each["class_id"]
        assert each["area"] == int(inside_HW.sum())
        assert each["confidence"] == pytest.approx(float(sure_HW[inside_HW].mean()), abs=1e-5)
        if mask == "rle":
            np.testing.assert_array_equal(decode_rle(each["mask"], 31, 17), inside_HW)
    json.dumps(said)
    np.testing.assert_array_equal(predictor.predict([encoded(image)], {"mask": "ids"})[0], ids_HW)
    (of_array,) = predictor.predict(image[None], {"mask": mask})
    assert of_array == said


def test_a_photograph_is_answered_as_it_is_shown(bundle_uri: str) -> None:
    """On its side by EXIF, in lines and as a browser sends it."""
    predictor, data = serving._load_pyfunc(bundle_uri), photograph(12, 20, orientation=6)
    lines = base64.encodebytes(data).decode()
    (said,) = predictor.predict(f"data:image/jpeg;base64,{lines}")
    assert (said["height"], said["width"]) == (20, 12)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(png(said["mask"]), predictor.predict(upright[None])[0])


def test_files_are_decoded_when_their_turn_comes(bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of kilobytes may hold gigabytes of pixels, and one that is refused decodes none."""
    predictor, coming = serving._load_pyfunc(bundle_uri), [encoded(images(1, 9, 9)[0])] * 3
    events: list[str] = []
    read = masks.read_upright
    monkeypatch.setattr(masks, "read_upright", lambda data, file: events.append(file) or read(data, file=file))
    predictor._model.register_forward_hook(lambda *_: events.append("pass"))
    assert len(predictor.predict(coming)) == 3
    assert events == ["image 0", "pass", "image 1", "pass", "image 2", "pass"]
    events.clear()
    with pytest.raises(MlflowException, match="image 3"):
        predictor.predict([*coming, encoded(images(1, 9, 9)[0])[:40]])
    assert events == []


def test_other_tasks_answer_in_the_same_words() -> None:
    """Objects of a model of regions, and segments, each with the pixels that its mask has."""
    torch.manual_seed(0)
    predictor = serving.Predictor(regions.OneOfEach(3), regions.bundle(CELL_CLASSES[:3], arch="mask_rcnn"))
    (plain,) = predictor.predict(images(1, 32, 32))
    for mask in ("png", "rle"):
        (said,) = predictor.predict(images(1, 32, 32), {"mask": mask})
        assert [each["class_id"] for each in said["objects"]] == plain["class_ids"]
        assert [each["confidence"] for each in said["objects"]] == plain["scores"]
        assert [each["box"] for each in said["objects"]] == plain["boxes"]
        for each, rle in zip(said["objects"], plain["masks"], strict=True):
            found = png(each["mask"]) > 0 if mask == "png" else decode_rle(each["mask"], 32, 32)
            np.testing.assert_array_equal(found, decode_rle(rle, 32, 32))
            assert each["area"] == found.sum() > 0
    segments = PanopticMap(
        ids_HW=np.eye(3, 4, dtype=np.int32) * 5, segments=(Segment(segment_id=5, class_id=1, area=3.0),)
    )
    said = reply_of(segments, CLASSES, "png")
    assert png(said["mask"]).tolist() == segments.ids_HW.tolist()
    assert said["segments"] == [{"id": 5, "class_id": 1, "class": "road", "area": 3.0}]
    (segment,) = reply_of(segments, CLASSES, "rle")["segments"]
    np.testing.assert_array_equal(decode_rle(segment["mask"], 3, 4), np.eye(3, 4))
