"""The gate over videos: J&F of sequences, by the paired bootstrap as it is written out here."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segpipe.metrics import davis_scores
from segpipe.metrics.evidence import VIDEOS, image_scores
from segpipe.promotion import Rules, Verdict, judge
from segpipe.promotion.comparison import RESAMPLES
from segpipe.types import EvalReport, Task
from tests.fixtures.example_reports import scored
from tests.fixtures.promoting import promote
from tests.fixtures.real_davis import SEQUENCES, masks

# J_mean and F_mean of every object of a sequence, which is named "group/number".
Scores = Mapping[str, Sequence[tuple[float, float]]]
FRAMES = 5  # of a part of a real sequence


def report(of: Scores, label: str) -> EvalReport:
    """What the evaluation of a model that follows objects says of it."""
    value = float(np.mean([each for objects in of.values() for each in objects]))
    num_objects = sum(map(len, of.values()))
    return scored(
        value,
        label,
        task=Task.VIDEO,
        primary="jf/all",
        metrics={"jf/all": value},
        classes=("object",),
        per_class={"object": {"jf": value, "objects": float(num_objects)}},
        truth_counts=(num_objects,),
        confusion=(),
        count_names=VIDEOS,
        sample_ids=tuple(of),
        groups=tuple(name.partition("/")[0] for name in of),
        sample_counts=tuple(((*map(sum, zip(*objects, strict=True)), len(objects)),) for objects in of.values()),
        num_samples=len(of),
    )


def by_hand(new: Scores, old: Scores) -> tuple[float, float, float]:
    """(low, high, p) of the difference in J&F, drawing groups of sequences, and all objects of them."""
    gains: dict[str, list[float]] = {}
    for name in new:
        pairs = zip(new[name], old[name], strict=True)
        gains.setdefault(name.partition("/")[0], []).extend(sum(ours) / 2 - sum(theirs) / 2 for ours, theirs in pairs)
    groups, drawn = list(gains.values()), []
    for places in np.random.default_rng(0).integers(0, len(groups), (RESAMPLES, len(groups))):
        objects = [gain for place in places for gain in groups[place]]
        drawn.append(sum(objects) / len(objects))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return low, high, (sum(gain <= 0 for gain in drawn) + 1) / (RESAMPLES + 1)


def assert_by_hand(verdict: Verdict, new: Scores, old: Scores) -> None:
    found = verdict.comparison
    assert found is not None
    assert (found.resamples, found.resampled) == (RESAMPLES, "groups")
    assert (found.low, found.high, found.p) == pytest.approx(by_hand(new, old), abs=1e-12)


@functools.cache
def drawn(gain: float) -> Scores:
    """24 sequences in 12 groups, with one to three objects, whose J&F lies above that of others by about `gain`."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 4, 24)
    names = [f"scene{place // 2}/{place}" for place in range(24)]
    base = [rng.uniform(0.3, 0.8, (length, 2)) for length in lengths]
    noise = np.random.default_rng(int(1000 * gain))
    return {
        name: [(float(j), float(f)) for j, f in objects + noise.normal(gain, 0.03, objects.shape)]
        for name, objects in zip(names, base, strict=True)
    }


def test_the_interval_is_that_of_the_mean_over_objects() -> None:
    old, new = drawn(0), drawn(0.05)
    won = judge(report(new, "new"), report(old, "old"), Rules())
    lost = judge(report(old, "old"), report(new, "new"), Rules())
    assert (won.outcome, lost.outcome) == ("promoted", "kept")
    assert "new (jf/all 0.6" in won.reason
    assert "surely more than the margin of 0" in won.reason
    assert "old (jf/all 0.5" in lost.reason
    assert_by_hand(won, new, old)
    assert_by_hand(lost, old, new)
    assert [(each.name, each.delta) for each in won.changes] == [("object", pytest.approx(won.delta))]
    assert judge(report(new, "new"), report(old, "old"), Rules(margin=0.05)).outcome == "kept"
    assert judge(report(old, "twin"), report(old, "old"), Rules()).outcome == "kept"


def test_what_a_card_asks_of_a_report_follows_from_its_counts() -> None:
    of = drawn(0)
    said = replace(report(of, "new"), resampled="groups")
    scores = image_scores(said)
    assert scores == pytest.approx([np.mean(objects) for objects in of.values()])


def test_other_objects_in_a_sequence_are_no_pair() -> None:
    old, new = drawn(0), dict(drawn(0.05))
    more, less = "scene0/0", next(name for name in new if len(new[name]) > 1 and name != "scene0/0")
    new[more], new[less] = [*new[more], (0.9, 0.9)], new[less][1:]
    verdict = judge(report(new, "new"), report(old, "old"), Rules())
    assert verdict.outcome == "refused"
    count = len(old[more])
    assert verdict.reason.endswith(f"different truths: of object in {more}, {count + 1} and {count}")


def test_a_score_that_is_not_of_its_sequences_is_refused() -> None:
    verdict = judge(replace(report(drawn(0), "new"), value=0.9), None, Rules())
    assert verdict.outcome == "refused"
    assert "has jf/all = 0.900000, and what it counted in its images comes to 0.5" in verdict.reason


def test_osvos_and_a_copy_that_lags_behind_on_real_sequences(tmp_path: Path) -> None:
    """Both models over the three sequences, and over parts of them, of which two in a row are one group."""
    whole, parts = ({"OSVOS": {}, "late": {}} for _ in range(2))
    for sequence in SEQUENCES:
        predictions, truths = masks(sequence)
        late = [predictions[0], predictions[0], *predictions[:-2]]
        for model, found in (("OSVOS", predictions), ("late", late)):
            whole[model][f"{sequence}/0"] = [jf(found[1:-1], truths[1:-1])]
            for start in range(0, len(truths), FRAMES):
                name = f"{sequence}{start // FRAMES // 2}/{start}"
                parts[model][name] = [jf(found[start : start + FRAMES], truths[start : start + FRAMES])]
    if SEQUENCES:
        few = judge(report(whole["OSVOS"], "OSVOS"), report(whole["late"], "late"), Rules())
        assert f"{report(whole['OSVOS'], 'OSVOS').value:.4f}" == "0.8562", "(0.9586 + 0.9229 + 0.6871) / 3"
        assert (few.outcome, "3 images, fewer than 6" in few.reason) == ("kept", True)
        old, new = report(parts["late"], "late"), report(parts["OSVOS"], "OSVOS")
        assert promote(tmp_path, old).outcome == "promoted"
        won = promote(tmp_path, new, old)
        assert won.outcome == "promoted"
        assert_by_hand(won, parts["OSVOS"], parts["late"])
        lost = promote(tmp_path, old, new)
        assert lost.outcome == "kept"
        assert lost.champion is not None
        assert lost.champion.label == "OSVOS"


def jf(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> tuple[float, float]:
    scores = davis_scores(predictions, truths)
    return scores["J_mean"], scores["F_mean"]
