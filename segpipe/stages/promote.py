"""Stage 4: evaluation reports -> who is champion. Between `evaluate` and the registry.

The board's first row that nobody took back challenges the champion that stands in the ledger; both are scored on the
same dataset version by the same code. The ledger is written first, MLflow's aliases follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from segpipe import promotion, tracking
from segpipe.config import EvaluateConfig, PromoteConfig, Recipe
from segpipe.errors import CorruptError, IncomparableError, InputError, SegpipeError
from segpipe.leaderboard import rank
from segpipe.promotion import Contender, Proof, Record, Rules, Verdict
from segpipe.stages import datasets, gallery, layout, mirror, nights
from segpipe.stages.evaluate import evaluate, evaluation_uri
from segpipe.stages.evaluations import load_reports
from segpipe.stages.proofs import doubter, prover
from segpipe.types import EvalReport
from segpipe.user import current_user


def promote(
    experiment: str,
    candidates: Sequence[EvalReport],
    *,
    config: PromoteConfig,
    champion_report_of: Callable[[Record], EvalReport],
    flattery_of: Callable[[EvalReport], str],
    proof_of: Callable[[EvalReport], Proof],
    parent: tracking.RunRef | None = None,
) -> Verdict:
    """Judges the best of `candidates` against the champion of `experiment` and records the verdict.

    One that was champion and was taken back waits for a person, and the next best is judged; where all of them were,
    the best is refused.

    `champion_report_of` scores the standing champion on the candidates' dataset version (see `champion_scorer`),
    `flattery_of` says why that score is too good (see `proofs.doubter`), and `proof_of` finds what speaks against a
    challenger that has won (see `proofs.prover`).
    Asking the same again returns the recorded verdict. Raises InputError for unlike reports or none.
    """
    if not candidates:
        raise InputError(f"{experiment}: no evaluated model to promote; train and evaluate at least one architecture")
    ledger, board = layout.ledger_uri(experiment), rank(candidates)
    log = promotion.history(ledger)
    best = next((row for row in board if promotion.taken_back(log, row.weights_sha256) is None), board[0])
    challenger = next(report for report in candidates if report.weights_sha256 == best.weights_sha256)
    verdict = promotion.decide(
        ledger,
        challenger,
        champion_report_of,
        flattery_of=flattery_of,
        proof_of=proof_of,
        name=experiment,
        who=current_user(),
        rules=Rules(
            floor=config.floor, margin=config.margin, max_fall=config.max_fall, max_falls=dict(config.max_falls)
        ),
    )
    mirror.show_verdict(experiment, verdict, board, parent=parent)
    return verdict


def promote_best(
    recipe: Recipe,
    candidates: Sequence[EvalReport],
    *,
    data: str,
    version: str,
    runtime: Literal["ray", "local"] = "ray",
    parent: tracking.RunRef | None = None,
) -> Verdict:
    """`promote` by the rules of a recipe, on the dataset version that its candidates were scored on."""
    return promote(
        recipe.name,
        candidates,
        config=recipe.promote,
        champion_report_of=champion_scorer(
            recipe.name, data=data, version=version, config=recipe.evaluate, runtime=runtime
        ),
        flattery_of=doubter(data=data),
        proof_of=prover(recipe.name, data=data),
        parent=parent,
    )


def judge(
    recipe: Recipe,
    places: Sequence[str],
    *,
    data: str | None = None,
    runtime: Literal["ray", "local"] = "ray",
) -> Verdict:
    """Judges the models whose reports lie at or below `places`, by the rules of the recipe, and makes their pages.

    `data` is the dataset on which the champion is scored, too (default: where a night ingests it). Raises InputError
    where there is no report.
    """
    evaluations = {
        folder: report for place in places for folder, report in load_reports(layout.absolute(place)).items()
    }
    candidates = list(evaluations.values())
    first = candidates[0]
    place = datasets.found(data or layout.dataset_uri(first.dataset))
    mirror.reconcile(recipe.name)
    verdict = promote_best(recipe, candidates, data=place, version=first.dataset_version, runtime=runtime)
    gallery.show(recipe.name, verdict, evaluations, config=recipe.evaluate, data=place, failures={})
    return verdict


def judge_again(recipe: Recipe, *, runtime: Literal["ray", "local"] = "ray") -> Verdict:
    """Judges the models of the recipe's last night once more, by the rules and the protocol that it has now.

    On the dataset version of that night, whatever the source holds since. A report that another code or split made is
    made again, as the champion's is: the gate would refuse to compare them. What comes of it is the last word on that
    night, on the board as well. Raises InputError where no night has left a model.
    """
    night, last = nights.last(recipe.name)
    mirror.reconcile(recipe.name)
    data, version = night.dataset_uri, night.dataset_version
    candidates = [
        evaluate(
            report.checkpoint,
            data=data,
            version=version,
            to=layout.evaluations_uri(recipe.name),
            config=recipe.evaluate,
            experiment=recipe.name,
            label=report.label,
            runtime=runtime,
        )
        for report in last
    ]
    verdict = promote_best(recipe, candidates, data=data, version=version, runtime=runtime)
    evaluations = {evaluation_uri(recipe, report): report for report in candidates}
    nights.judged(
        recipe.name,
        verdict,
        dataset_uri=data,
        dataset_version=version,
        evaluations=list(evaluations),
        failures=night.failures,
        budget=night.budget,
    )
    gallery.show(recipe.name, verdict, evaluations, config=recipe.evaluate, data=data, failures=night.failures)
    return verdict


def champion_scorer(
    experiment: str,
    *,
    data: str,
    version: str,
    config: EvaluateConfig,
    runtime: Literal["ray", "local"] = "ray",
) -> Callable[[Record], EvalReport]:
    """A function that evaluates the champion of a ledger record on this dataset version, under this protocol."""

    def score(record: Record) -> EvalReport:
        if record.champion is None:
            raise InputError(f"record {record.number} of {experiment} names no champion; restore the ledger's file")
        try:
            return evaluate_champion(record.champion)
        except IncomparableError as error:
            raise IncomparableError(
                f"the champion {record.champion.label} (ledger record {record.number}) answers another question: "
                f"{error}. What was trained is on the board; for a champion of these classes give the recipe another "
                f"`name`, or move {layout.ledger_uri(experiment)} away"
            ) from error
        except (InputError, CorruptError) as error:
            raise SegpipeError(
                f"the champion of {experiment} ({record.champion.label}, ledger record {record.number}) cannot be "
                f"scored on this dataset, so no challenger can be compared with it: {error}. Restore "
                f"{record.champion.checkpoint}, or start over: with another `name` in the recipe, or with "
                f"{layout.ledger_uri(experiment)} moved away"
            ) from error

    def evaluate_champion(champion: Contender) -> EvalReport:
        return evaluate(
            champion.checkpoint,
            data=data,
            version=version,
            to=layout.evaluations_uri(experiment),
            config=config,
            experiment=experiment,
            label=champion.label,
            runtime=runtime,
        )

    return score
