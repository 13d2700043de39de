"""The evaluation loop with a task of objects: the same report, to the last bit, from any number of workers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from segpipe import checkpoint, models, reports
from segpipe.config import DatasetConfig
from segpipe.evaluate import Share
from segpipe.shards import open_dataset
from segpipe.stages.ingest import ingest
from segpipe.types import EvalReport
from tests.fixtures.bundles import parts_of, report_of
from tests.fixtures.regions import bundle

TINY = {"backbone": "mobilenet_v3_large", "head_stride": 4, "width": 1}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Share:
    """A split of two sizes of batch, and a model that was not trained, but says all classes."""
    folder: Path = tmp_path_factory.mktemp("objects")
    options = {"train": 1, "val": 1, "test": 9, "height": 48, "width": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.sched_getaffinity", lambda _: {0})
        found = ingest(DatasetConfig(name="streets", format="scenes", options=options), to=str(folder / "data"))
    classes = open_dataset(found.uri).manifest.classes
    torch.manual_seed(2)
    model = models.create("unet_watershed", len(classes), **TINY)
    with torch.no_grad():
        [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)][-1].weight.mul_(30)
    said = replace(bundle(classes, arch="unet_watershed"), options=TINY)
    checkpoint.save_model(str(folder), model.state_dict(), said)
    return Share(
        checkpoint=checkpoint.model_uri(str(folder)),
        data=found.uri,
        version=found.version,
        split="test",
        batch_size=2,
        rank=0,
        world_size=1,
    )


def test_one_two_and_three_workers_give_the_same_report_bit_for_bit(share: Share) -> None:
    alone = report_of(share, parts_of(share, 1))
    assert sum(map(len, alone.detections)) > 20, "something was found"
    assert alone.primary == "ap/coco/segm"
    for world_size in (2, 3):
        assert report_of(share, parts_of(share, world_size)[::-1]) == alone
    assert reports.from_plain(EvalReport, reports.to_plain(alone), origin="x") == alone
