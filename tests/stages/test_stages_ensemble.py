"""A night with an ensemble: made of what was trained, on the same board, promoted and served as one bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from segpipe import serving
from segpipe.checkpoint import load_model
from segpipe.data.batch import normalise
from segpipe.errors import InputError, SegpipeError
from segpipe.stages import outlook, preflight
from segpipe.stages import train as train_stage
from segpipe.stages.identity import resolve
from segpipe.stages.promote import judge
from tests.stages.toy_night import SCENES, Told, forbid_work, recipe, runs_of, surroundings, tell

pytestmark = pytest.mark.xdist_group("nights")
BOTH: dict[str, Any] = {
    **SCENES,
    "architectures": [*SCENES["architectures"], {"ensemble": ["unet", "deeplab_v3plus"], "label": "both"}],
}


@pytest.fixture(scope="module")
def first(home: Path) -> Told:
    with surroundings(home):
        return tell(recipe(document=BOTH))


def bundle_uri(home: Path, label: str) -> str:
    (found,) = home.glob(f"runs/toy/{label}-*/model")
    return str(found)


def test_an_ensemble_is_on_the_board_beside_its_members(first: Told) -> None:
    assert first.result.failures == {}
    assert {row.label for row in first.result.board} == {"unet", "deeplab_v3plus", "both"}
    (both,) = (row for row in first.result.board if row.label == "both")
    others = [row.parameters for row in first.result.board if row is not both]
    assert (both.arch, both.parameters) == ("ensemble", sum(others))
    steps = list(first.steps)
    assert steps[-2:] == ["combining both", "choosing the champion"]


def test_its_bundle_says_the_mean_of_its_members_and_where_they_come_from(home: Path, first: Told) -> None:
    model, bundle = load_model(bundle_uri(home, "both"))
    images = np.random.default_rng(0).integers(0, 256, (2, 33, 47, 3), dtype=np.uint8)
    entering = normalise(torch.from_numpy(images).permute(0, 3, 1, 2), bundle.mean, bundle.std)
    members = [load_model(bundle_uri(home, label)) for label in ("unet", "deeplab_v3plus")]
    labels = ("unet", "deeplab_v3plus")
    assert bundle.members == {label: each.weights_sha256 for label, (_, each) in zip(labels, members, strict=True)}
    with torch.inference_mode():
        logits = sum(member(entering).logits_NKHW for member, _ in members) / 2
        torch.testing.assert_close(model(entering).logits_NKHW, logits)
    served = serving._load_pyfunc(bundle_uri(home, "both")).predict(images)
    assert np.mean(served != logits.argmax(1).numpy()) < 0.001


def test_mlflow_shows_it_as_any_other(home: Path, first: Told) -> None:
    runs = runs_of(MlflowClient(f"sqlite:///{home}/mlflow.db"), "toy")
    assert {"unet", "deeplab_v3plus", "both"} <= set(runs)
    parameters = runs["both"].data.params
    assert parameters["arch"] == "ensemble"
    assert "deeplab_v3plus" in parameters["options.members"]
    assert not any(name.startswith(("train.", "members")) for name in parameters)


def test_nothing_is_done_twice(home: Path, first: Told) -> None:
    with surroundings(home) as patch:
        forbid_work(patch)
        again = tell(recipe(document=BOTH))
    assert again.result.did_nothing
    assert again.result.board == first.result.board


def test_it_is_promoted_and_registered_as_one_model(home: Path, first: Told) -> None:
    (folder,) = (path.parent for path in home.glob("evaluations/toy/*/both-*/report.json"))
    with surroundings(home):
        verdict = judge(recipe("name=alone", document=BOTH), [str(folder)], runtime="local")
    assert verdict.outcome == "promoted"
    assert list(home.glob("pages/alone/*.html")), "its page, as at the end of a night"
    assert verdict.champion is not None
    assert (verdict.champion.label, verdict.champion.arch) == ("both", "ensemble")
    store = f"sqlite:///{home}/mlflow.db"
    version = MlflowClient(store).get_model_version_by_alias("alone", "champion")
    assert version.tags["members"] == "deeplab_v3plus, unet"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        images = np.random.default_rng(1).integers(0, 256, (1, 32, 40, 3), dtype=np.uint8)
        served = mlflow.pyfunc.load_model("models:/alone@champion").predict(images)
    finally:
        mlflow.set_tracking_uri(before)
    np.testing.assert_array_equal(served, serving._load_pyfunc(bundle_uri(home, "both")).predict(images))


def test_a_member_that_failed_is_the_ensembles_failure_and_nobody_elses(
    new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = train_stage.fit

    def fails_for_unet(job: Any, runtime: Any) -> Any:
        if job.run.label == "unet":
            raise SegpipeError("out of luck")
        return fit(job, runtime)

    with surroundings(new_home()) as patch:
        patch.setattr(train_stage, "fit", fails_for_unet)
        told = tell(recipe(document=BOTH))
    assert [row.label for row in told.result.board] == ["deeplab_v3plus"]
    assert told.result.failures["unet"] == "out of luck"
    assert "both: its member unet did not come out of a training on dataset version" in told.result.failures["both"]


def test_it_is_checked_and_looked_at_before_any_work() -> None:
    found = recipe(document=BOTH)
    listed = preflight.check(found)
    assert [(each.label, each.steps > 0) for each in outlook.outlook(found, listed.samples)] == [
        ("unet", True),
        ("deeplab_v3plus", True),
        ("both", False),
    ]
    entries = [*SCENES["architectures"], {"arch": "mask2former"}, {"ensemble": ["unet", "mask2former"]}]
    queries = {**BOTH, "architectures": entries}
    with pytest.raises(InputError) as caught:
        preflight.check(recipe(document=queries))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(
        "  architectures.3.ensemble: mask2former is a mask2former, which has no logits for every pix"
    )


def test_without_its_members_it_cannot_be_made(tmp_path: Path, home: Path, first: Told) -> None:
    run = resolve(recipe(document=BOTH).run_config(2))
    with surroundings(home), pytest.raises(InputError, match="both: its members unet, deeplab_v3plus did not come out"):
        train_stage.train(
            run,
            data=first.result.dataset.uri,
            version=first.result.dataset.version,
            to=str(tmp_path / "elsewhere"),
            resources=recipe().resources,
            runtime="local",
        )
