"""What the published evaluators themselves printed on scenes drawn from a seed (`tests/fixtures/drawn_scenes.py`).

The programs were given these scenes as the files they read, and are no part of this repository:

* `QUALITY` without a ratio: `pq_compute` of github.com/cocodataset/panopticapi, evaluation.py at commit fb309bb; with a
  ratio: that of github.com/bowenc0221/boundary-iou-api at commit 8006aa9, iou_type="boundary". Both ran as one process,
  since several add in another order;
* `BOUNDARIES`: pixels of boundary-iou-api's `mask_to_boundary`, and their IoU by pycocotools 2.0.11;
* `STREETS`: `evaluateImgLists` of evalInstanceLevelSemanticLabeling.py of cityscapesScripts 2.3.0;
* `BOXES`: `voc_eval` of github.com/rbgirshick/py-faster-rcnn at commit 45e0da9, put into Python 3. It is a port of the
  development kit's VOCevaldet.m; where it departs from that, nothing was drawn: overlaps of exactly the threshold,
  equal scores, recalls of exactly 0.6 or 0.7, and a first detection that counts neither way;
* `CONTOURS`, `VOIDS` and `FOLLOWED`: `db_eval_iou`, `f_measure` and `db_statistics` of metrics.py and utils.py of
  github.com/davisvideochallenge/davis2017-evaluation at commit 30b698a, with np.bool, which NumPy lacks, put as bool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segpipe.metrics import (
    boundary_iou,
    cityscapes_average_precision,
    contour_accuracy,
    davis_scores,
    mask_boundary,
    panoptic_quality,
    region_similarity,
    voc_average_precision,
)
from tests.fixtures.drawn_scenes import CATEGORIES, boxes, panoptic_split, shape, streets, two_masks

# fmt: off
QUALITY: list[tuple[int, float | None, dict[str, Any]]] = [
    (1, None, {"all": (0.4742604774521341, 0.8121746427855943, 0.5774600301659125, 5), "things": (0.32734604831194614,
        0.7940549497003282, 0.4068778280542987, 3), "stuff": (0.6946321211624162, 0.8393541824134935,
        0.8333333333333333, 2), "per_class": {1: (0.19933374567314477, 0.6478346734377205, 0.3076923076923077), 3:
        (0.32134175984443364, 0.9104683195592287, 0.35294117647058826), 6: (0.46136263941825995, 0.8238618561040356,
        0.56), 119: (0.8103759973205239, 0.8103759973205239, 1.0), 149: (0.5788882450043087, 0.868332367506463,
        0.6666666666666666), 178: (0.0, 0.0, 0.0)}}),
    (1, 0.02, {"all": (0.2213080352560413, 0.6335935103557476, 0.29105882352941176, 5), "things": (0.1573649277853505,
        0.5800006934468673, 0.18509803921568627, 3), "stuff": (0.3172226964620775, 0.7139827357190682, 0.45, 2),
        "per_class": {1: (0.0, 0.0, 0.0), 3: (0.23529411764705882, 1.0, 0.23529411764705882), 6: (0.23680066570899264,
        0.740002080340602, 0.32), 119: (0.3181493711796529, 0.7953734279491322, 0.4), 149: (0.3162960217445021,
        0.6325920434890042, 0.5), 178: (0.0, 0.0, 0.0)}}),
    (2, None, {"all": (0.5342461595439165, 0.7952606596265971, 0.6666993464052288, 5), "things": (0.4406730841881137,
        0.7933079609445627, 0.5482026143790849, 3), "stuff": (0.6746057725776209, 0.7981897076496486,
        0.8444444444444444, 2), "per_class": {1: (0.5190423758436181, 0.7785635637654271, 0.6666666666666666), 3:
        (0.2567005267419766, 0.7273181591022669, 0.35294117647058826), 6: (0.5462763499787463, 0.8740421599659941,
        0.625), 119: (0.7210801291580415, 0.8112151453027967, 0.8888888888888888), 149: (0.6281314159972003,
        0.7851642699965005, 0.8), 178: (0.0, 0.0, 0.0)}}),
    (2, 0.02, {"all": (0.2546339856225539, 0.6998635631198562, 0.36650326797385624, 5), "things":
        (0.24974226313822587, 0.7297181491703304, 0.3367647058823529, 3), "stuff": (0.2619715693490459,
        0.6550816840441449, 0.4111111111111111, 2), "per_class": {1: (0.2725944186871729, 0.6814860467179322, 0.4), 3:
        (0.14946236559139786, 0.6352150537634409, 0.23529411764705882), 6: (0.32717000513610683, 0.8724533470296182,
        0.375), 119: (0.1542087542087542, 0.693939393939394, 0.2222222222222222), 149: (0.3697343844893376,
        0.616223974148896, 0.6), 178: (0.0, 0.0, 0.0)}}),
    (3, None, {"all": (0.3639293550969727, 0.5958829862252271, 0.49810035842293904, 5), "things":
        (0.22174715675025256, 0.5207613667901101, 0.2838709677419355, 3), "stuff": (0.5772026526170528,
        0.7085654153779026, 0.8194444444444444, 2), "per_class": {1: (0.31237295685278477, 0.7809323921319619, 0.4),
        3: (0.0, 0.0, 0.0), 6: (0.3528685133979728, 0.7813517082383684, 0.45161290322580644), 119:
        (0.5684393393636947, 0.7579191191515929, 0.75), 149: (0.585965965870411, 0.6592117116042124,
        0.8888888888888888), 178: (0.0, 0.0, 0.0)}}),
    (3, 0.02, {"all": (0.10995365948696927, 0.5352905562584388, 0.16648745519713262, 5), "things":
        (0.09159269724806679, 0.5042719177740275, 0.12007168458781363, 3), "stuff": (0.137495102845323,
        0.5818185139850558, 0.2361111111111111, 2), "per_class": {1: (0.1117547351724567, 0.6705284110347401,
        0.16666666666666666), 3: (0.0, 0.0, 0.0), 6: (0.16302335657174366, 0.8422873422873423, 0.1935483870967742),
        119: (0.14763779527559054, 0.5905511811023622, 0.25), 149: (0.12735241041505543, 0.5730858468677494,
        0.2222222222222222), 178: (0.0, 0.0, 0.0)}}),
]
BOUNDARIES = [
    (1, 0.02, 5065, 5065, 0.7919688660888025),
    (1, 0.008, 2605, 2605, 0.6225474929928371),
    (2, 0.02, 2851, 3021, 0.5891745602165088),
    (2, 0.008, 1321, 1539, 0.2739420935412027),
    (4, 0.02, 5694, 5786, 0.8190461099667248),
    (4, 0.008, 2473, 2589, 0.6131293817718292),
]
STREETS: list[tuple[int, tuple[float, float], dict[int, tuple[float, float]]]] = [
    (1, (0.09239248582753486, 0.21117195304695305), {24: (0.1537262084320908, 0.34010989010989007), 26:
        (0.09561277139708513, 0.2515151515151515), 28: (0.02930555555555555, 0.10654761904761906), 33:
        (0.09092540792540793, 0.14651515151515151)}),
    (2, (0.16876642171074255, 0.34163765411467617), {24: (0.17816995504495506, 0.5446969696969697), 26:
        (0.08948412698412697, 0.1412037037037037), 28: (0.28575440784419115, 0.45356660972469803), 33:
        (0.12165719696969698, 0.22708333333333333)}),
    (3, (0.2316397328471369, 0.39230235909923405), {24: (0.1883522727272727, 0.21985479797979796), 26:
        (0.3856646825396825, 0.44484126984126976), 28: (0.2084133269929432, 0.6177078130203131), 33:
        (0.14412864912864912, 0.28680555555555554)}),
]
BOXES = [
    (3, 0.5, 11, {"bird": 0.5012751953928425, "boat": 0.5882700187513021}),
    (3, 0.5, None, {"bird": 0.48909717733247143, "boat": 0.5753846993342792}),
    (3, 0.7, 11, {"bird": 0.5012751953928425, "boat": 0.5442739079102716}),
    (3, 0.7, None, {"bird": 0.48909717733247143, "boat": 0.514378478664193}),
    (4, 0.5, 11, {"bird": 0.36204146730462516, "boat": 0.5095383085813707}),
    (4, 0.5, None, {"bird": 0.3490778227620333, "boat": 0.5300919763523643}),
    (4, 0.7, 11, {"bird": 0.12987012987012989, "boat": 0.30935441370223976}),
    (4, 0.7, None, {"bird": 0.10989010989010989, "boat": 0.3133867276887871}),
]
CONTOURS = [
    (1, 0.008, 0.9699711260827719, 0.7751677852348993),
    (1, 0.002, 0.9699711260827719, 0.7601179004648),
    (2, 0.008, 0.8485454825303986, 0.8450085332600977),
    (2, 1, 0.8485454825303986, 0.15058823529411766),
    (4, 0.002, 0.9371850251979842, 0.4223749127035977),
    (9, 0.002, 0.9157717312785938, 0.2135169888629776),
]
VOIDS = [
    (1, 0.9716242153862116, 0.8062142273098937),
    (7, 0.9406440490117604, 0.9987654320987654),
    (8, 0.9814380084074903, 0.8779342723004694),
    (11, 0.9859645420008443, 0.9106130482037424),
]
FOLLOWED = [
    (3, (0.9504418026143823, 1.0, 0.10243750410963193, 0.8770335463925661, 1.0, 0.21641709131875575)),
    (6, (0.8804293292813798, 1.0, 0.26943022424668106, 0.787756712839499, 1.0, 0.4494083202286543)),
    (11, (0.77369425721288, 0.8181818181818182, 0.4848192937292183, 0.6685060061127186, 0.6363636363636364,
        0.5759719405289494)),
]
# fmt: on


@pytest.mark.parametrize(("seed", "ratio", "expected"), QUALITY)
def test_panoptic_quality_is_panopticapis_and_with_boundaries_boundary_iou_apis(
    seed: int, ratio: float | None, expected: dict[str, Any]
) -> None:
    found = panoptic_quality(*panoptic_split(seed), CATEGORIES, dilation_ratio=ratio)
    per_class = {category: tuple(scores.values()) for category, scores in found["per_class"].items()}
    assert per_class == expected["per_class"], "to the last bit"
    assert {kind: tuple(found[kind].values()) for kind in ("all", "things", "stuff")} | {
        "per_class": per_class
    } == expected


@pytest.mark.parametrize(("seed", "ratio", "first", "second", "iou"), BOUNDARIES)
def test_boundaries_are_those_of_boundary_iou_api(seed: int, ratio: float, first: int, second: int, iou: float) -> None:
    masks = two_masks(seed)
    assert [int(mask_boundary(mask, ratio).sum()) for mask in masks] == [first, second]
    assert boundary_iou(*masks, ratio) == iou


@pytest.mark.parametrize(("seed", "means", "per_class"), STREETS)
def test_average_precision_is_that_of_cityscapesscripts(
    seed: int, means: tuple[float, float], per_class: dict[int, tuple[float, float]]
) -> None:
    scores = cityscapes_average_precision(*streets(seed))
    defined = {label: tuple(each.values()) for label, each in scores["per_class"].items() if not np.isnan(each["AP"])}
    assert defined == per_class, "to the last bit"
    assert (scores["AP"], scores["AP50"]) == means


@pytest.mark.parametrize(("seed", "least", "points", "expected"), BOXES)
def test_average_precision_is_that_of_voc_eval(
    seed: int, least: float, points: int | None, expected: dict[str, float]
) -> None:
    scores = voc_average_precision(*boxes(seed), iou_threshold=least, points=points)
    assert scores["per_class"] == pytest.approx(expected, abs=2e-16 if points is None else 1e-15)


@pytest.mark.parametrize(("seed", "bound", "region", "contour"), CONTOURS)
def test_j_and_f_are_those_of_davis2017_evaluation(seed: int, bound: float, region: float, contour: float) -> None:
    truth, prediction = two_masks(seed)
    assert (region_similarity(prediction, truth), contour_accuracy(prediction, truth, bound)) == (region, contour)


@pytest.mark.parametrize(("seed", "region", "contour"), VOIDS)
def test_void_counts_as_in_davis2017_evaluation(seed: int, region: float, contour: float) -> None:
    truth, prediction = two_masks(seed)
    void = shape(np.random.default_rng(seed), (truth.shape[0], truth.shape[1]), 20, 120)
    found = region_similarity(prediction, truth, void=void), contour_accuracy(prediction, truth, void=void)
    assert found == (region, contour)


@pytest.mark.parametrize(("num_frames", "statistics"), FOLLOWED)
def test_sequences_score_as_in_davis2017_evaluation(num_frames: int, statistics: tuple[float, ...]) -> None:
    """Of a mask that is lost, faster and faster."""
    truth, _ = two_masks(2)
    found = [np.roll(truth, 3 * place**2 // num_frames, axis=1) for place in range(num_frames)]
    *scores, mean = davis_scores(found, [truth] * num_frames).values()
    assert tuple(scores) == statistics, "to the last bit"
    assert mean == (statistics[0] + statistics[3]) / 2
