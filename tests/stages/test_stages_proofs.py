"""What speaks against a challenger that has won, in the ledger's words: MLflow is up, is down, or holds damage."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segpipe import checkpoint, promotion, storage, tracking
from segpipe.config import EvaluateConfig, PromoteConfig
from segpipe.errors import CorruptError, UnreachableError
from segpipe.promotion import Verdict
from segpipe.stages import layout, mirror, proofs, registration
from segpipe.stages.evaluate import evaluate
from segpipe.stages.promote import promote
from segpipe.stages.proofs import doubter, prover
from segpipe.stages.smoke import Answered, SmokeError
from segpipe.types import EvalReport
from tests.stages.conftest import Shapes

pytestmark = pytest.mark.xdist_group("shapes")
SAID = Answered(images=("test/0000",), answers_sha256="5a1d")


@pytest.fixture(scope="module")
def report(shapes: Shapes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], EvalReport]:
    """The report of the trained model on a split."""
    folder = str(tmp_path_factory.mktemp("evaluations"))

    def scored(split: str) -> EvalReport:
        return evaluate(
            shapes.result.model_uri,
            data=shapes.data,
            version=shapes.version,
            to=folder,
            config=EvaluateConfig(split=split, pictures=0),
            experiment="shapes",
            label="unet",
            runtime="local",
        )

    return scored


def judged(shapes: Shapes, report: EvalReport) -> Verdict:
    return promote(
        "shapes",
        [report],
        config=PromoteConfig(),
        champion_report_of=lambda _: report,
        flattery_of=doubter(data=shapes.data),
        proof_of=prover("shapes", data=shapes.data),
    )


def proof() -> promotion.Proof:
    """Of the last record."""
    found = promotion.history(layout.ledger_uri("shapes"))[-1].proof
    assert found is not None
    return found


def test_while_mlflow_is_down_the_bytes_of_the_run_are_asked(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str
) -> None:
    assert judged(shapes, report("test")).outcome == "promoted"
    found = proof()
    assert (found.objection, found.data, found.bytes_of) == (None, shapes.data, "run")
    assert found.images == ("test/0000", "test/0002", "test/0004")
    assert found.answers_sha256 is not None


def test_evaluation_images_of_the_training_split_block_the_promotion(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "smoke", lambda *_: pytest.fail("nothing is loaded once something is known"))
    for _ in range(2):
        verdict = judged(shapes, report("train"))
        assert (verdict.outcome, verdict.champion, verdict.number) == ("refused", None, 1)
    assert verdict.reason.startswith(
        "unet was trained on 16 of 16 evaluation images: train/train/0000 = train/train/0000, "
        "train/train/0001 = train/train/0001, train/train/0002 = train/train/0002 and 13 more. A score on those says "
    )
    assert "Else: unet (miou 0." in verdict.reason
    assert proof().bytes_of is None


def test_a_champion_that_has_seen_evaluation_images_is_named(
    shapes: Shapes, report: Callable[[str], EvalReport], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubted = doubter(data=shapes.data)
    assert doubted(report("test")) == ""
    said = doubted(report("train"))
    assert said.startswith("the champion unet was trained on 16 of 16 evaluation images: train/train/0000 = ")
    assert "so that its score is too good" in said
    shutil.copytree(shapes.result.model_uri, tmp_path / "alone" / "model")
    assert doubted(replace(report("train"), checkpoint=str(tmp_path / "alone" / "model"))) == ""
    assert "whether the champion unet has seen evaluation images is not known" in caplog.text


def test_a_smoke_prediction_that_fails_refuses_and_is_made_again_when_it_is_asked_again(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Answered:
        raise SmokeError("it did not answer within 600 s")

    monkeypatch.setattr(proofs, "smoke", fails)
    for _ in range(2):
        refused = judged(shapes, report("test"))
        assert (refused.outcome, refused.number, refused.champion) == ("refused", 1, None)
    assert refused.reason.startswith("unet failed its smoke prediction: it did not answer within 600 s. Else: unet (")
    monkeypatch.setattr(proofs, "smoke", lambda *_: SAID)
    assert judged(shapes, report("test")).outcome == "promoted"
    assert (proof().images, proof().answers_sha256) == (SAID.images, "5a1d")
    monkeypatch.setattr(proofs, "smoke", fails)
    assert judged(shapes, report("test")).outcome == "promoted", "who is champion is proven"


def test_a_model_whose_training_is_not_stored_is_refused_and_says_so(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str, tmp_path: Path
) -> None:
    shutil.copytree(shapes.result.model_uri, tmp_path / "alone" / "model")
    verdict = judged(shapes, replace(report("test"), checkpoint=str(tmp_path / "alone" / "model")))
    assert verdict.outcome == "refused"
    assert "unet cannot be proven" in verdict.reason
    assert "run.json: no such file; it says what the model was trained on" in verdict.reason


def test_a_report_of_other_weights_than_lie_there_is_refused(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str
) -> None:
    verdict = judged(shapes, replace(report("test"), weights_sha256="0" * 64))
    assert verdict.outcome == "refused"
    assert "holds other weights" in verdict.reason
    assert "than were scored (000000000000): evaluate it again" in verdict.reason


def test_a_store_that_does_not_answer_decides_nothing(
    shapes: Shapes, report: Callable[[str], EvalReport], mlflow_down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise UnreachableError("s3://x: no answer")

    monkeypatch.setattr(proofs, "leak", down)
    with pytest.raises(UnreachableError):
        judged(shapes, report("test"))
    assert promotion.history(layout.ledger_uri("shapes")) == []


# --- with an MLflow of its own ----------------------------------------------------------------------------------------


@pytest.fixture
def client(new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("SEGPIPE_HOME", str(new_home()))
    return MlflowClient(mirror.uri())


def stored(client: MlflowClient, version: int = 1) -> Path:
    """The weights of a version in MLflow's own folder."""
    source = client.get_model_version_download_uri("shapes", str(version))
    return next(Path(source).glob(f"data/*/{checkpoint.WEIGHTS}"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_the_registered_bytes_are_asked_before_the_alias_moves(
    shapes: Shapes, report: Callable[[str], EvalReport], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look(checkpoint_uri: str, registered: Path, *_: object) -> Answered:
        asked.append(storage.sha256_file(str(registered / checkpoint.WEIGHTS)))
        assert tracking.registered_version(mirror.uri(), "shapes", shapes.result.weights_sha256) == 1
        assert tracking.alias_version(mirror.uri(), "shapes", "champion") is None
        assert str(registered) != checkpoint_uri
        return SAID

    monkeypatch.setattr(proofs, "smoke", look)
    assert judged(shapes, report("test")).outcome == "promoted"
    assert asked == [shapes.result.weights_sha256]
    assert proof().bytes_of == "registry"
    champion = client.get_model_version_by_alias("shapes", "champion")
    assert (int(champion.version), champion.tags["verdict"], champion.tags["ledger_record"]) == (1, "promoted", "1")


def test_a_damaged_registered_file_refuses(
    shapes: Shapes, report: Callable[[str], EvalReport], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "smoke", lambda *_: pytest.fail("other bytes are not loaded"))
    scored = report("test")
    with mirror.registered_bundle("shapes", scored) as (_, bytes_of):
        assert bytes_of == "registry"
    flip(stored(client))
    for _ in range(2):
        verdict = judged(shapes, scored)
        assert (verdict.outcome, verdict.number) == ("refused", 1)
    assert verdict.reason.startswith("the bytes of unet in the registry have SHA-256 ")
    assert tracking.alias_version(mirror.uri(), "shapes", "champion") is None


def test_the_alias_does_not_move_to_other_bytes_than_the_ledgers(
    shapes: Shapes, report: Callable[[str], EvalReport], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when MLflow was down while its champion was found, and what it has registered since is damaged."""
    monkeypatch.setattr(proofs, "smoke", lambda *_: SAID)
    with monkeypatch.context() as dark:
        dark.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert judged(shapes, report("test")).outcome == "promoted"
    standing = promotion.champion(layout.ledger_uri("shapes"))
    assert standing is not None
    with mirror.registered_bundle("shapes", report("test")):
        flip(stored(client))
    with pytest.raises(CorruptError, match=r"version 1 of shapes in MLflow holds weights of SHA-256 \w{12}, expected"):
        registration.show_champion(mirror.uri(), "shapes", standing)
    mirror.reconcile("shapes")
    assert tracking.alias_version(mirror.uri(), "shapes", "champion") is None
    client.delete_model_version("shapes", "1")
    for model in client.search_logged_models([client.get_experiment_by_name("shapes").experiment_id]):
        client.delete_logged_model(model.model_id)
    mirror.reconcile("shapes")
    assert tracking.alias_version(mirror.uri(), "shapes", "champion") == 2
