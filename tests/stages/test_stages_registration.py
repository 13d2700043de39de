"""The pages of MLflow's registry as `segpipe/stages/registration.py` writes them."""

from segpipe.promotion import Contender, Verdict
from segpipe.stages import registration
from segpipe.tracking.registry import REQUEST_TAG, USAGE_TAG, with_usage
from segpipe.types import ClassScores
from tests.fixtures.example_reports import scored

STORE = "postgresql://mlflow@database.example.org:5432/mlflow"
ASKING = {USAGE_TAG: "answers = model.predict(images)", REQUEST_TAG: '{"inputs": []}'}


def verdict_on(*scores: tuple[str, float | None, float | None]) -> Verdict:
    named = scored(0.5, "unet")
    who = Contender(arch="unet", label="unet", weights_sha256=named.weights_sha256, checkpoint=named.checkpoint)
    return Verdict(
        outcome="kept",
        champion=who,
        previous=who,
        challenger=who,
        delta=0.01,
        reason="unet (miou 0.5000) stays: deeplab_v3plus-resnet101 (miou 0.5100) is better, but not surely",
        number=7,
        changes=tuple(ClassScores(name=name, champion=old, challenger=new) for name, old, new in scores),
    )


def test_of_few_classes_all_are_told_in_their_order() -> None:
    lines = registration.class_table(verdict_on(("sky", 0.9, 0.91), ("a|b", None, 0.2)))
    assert [line.partition("&")[0] for line in lines[1:]] == ["| class", "|---|---:|---:|---:|", "| sky", "| a\\|b"]
    assert registration.class_table(verdict_on()) == []


def test_of_171_classes_those_that_changed_most_fit_into_a_description() -> None:
    scores = [(f"furniture-other-{i:03}", 0.5, 0.5 + i / 1000 * (-1) ** i) for i in range(170)]
    verdict = verdict_on(("nowhere", None, 0.9), *scores)
    described = with_usage("\n".join([verdict.reason, *registration.class_table(verdict)]), STORE, "stuff/3", ASKING)
    assert len(described) <= 5000
    assert described.count("furniture-other") == 30
    assert all(f"furniture-other-{i:03}&" in described for i in range(140, 170))
    assert described.index("other-169") < described.index("other-168")
    assert "nowhere" not in described
    rest = "\n\n141 more classes, which changed less, stand in record 7 of the ledger.\n\n## Use it\n"
    assert rest in described, "and nothing else is cut"
