"""Which model `models:/NAME@champion`, `models:/NAME@challenger` or `models:/NAME/3` means: the decision of the ledger
that named it last. Behind `segpipe lineage`, `data diff`, `predict` and `models export`.

Who is champion is asked of the ledger, which decides it; what number a version has, only MLflow knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segpipe import checkpoint, promotion, tracking
from segpipe.errors import InputError
from segpipe.promotion import Contender, Record
from segpipe.shards import Dataset
from segpipe.stages import layout, mirror
from segpipe.stages.nights import chosen
from segpipe.stages.origins import dataset_of
from segpipe.stages.registration import CHALLENGER, CHAMPION

PREFIX = "models:/"
_NAMED = re.compile(rf"{PREFIX}([^/@]+)(?:@({CHAMPION}|{CHALLENGER})|/([1-9][0-9]*))")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedModel:
    """A model by the name that somebody used, with every decision on it, the last one last."""

    name: str
    experiment: str
    contender: Contender
    decisions: tuple[Record, ...]


def named_model(name: str) -> NamedModel:
    """What a name in MLflow's spelling means. Raises InputError for another spelling, and where there is no such model;
    UnreachableError where a version number is to be looked up and MLflow is down."""
    found = _NAMED.fullmatch(name)
    if not found:
        raise InputError(
            f"{name!r}: expected {PREFIX}NAME@{CHAMPION}, {PREFIX}NAME@{CHALLENGER} or {PREFIX}NAME/VERSION, as in "
            f"{PREFIX}camvid/3"
        )
    experiment = chosen(found[1])
    log = promotion.history(layout.ledger_uri(experiment))
    contender = _version(experiment, int(found[3]), log) if found[3] else _by_alias(experiment, found[2], log)
    return NamedModel(
        name=name,
        experiment=experiment,
        contender=contender,
        decisions=tuple(record for record in log if contender.weights_sha256 in _weights(record)),
    )


def bundle_of(model: str) -> str:
    """The URI of the bundle that is meant: by its own place, or as `named_model` spells and raises it."""
    return bundle_and_experiment(model)[0]


def bundle_and_experiment(model: str) -> tuple[str, str | None]:
    """`bundle_of`, and the experiment of a model that was named; of a place, nothing is known of it."""
    if not model.startswith(PREFIX):
        return layout.absolute(model), None
    found = named_model(model)
    return found.contender.checkpoint, found.experiment


def trained_on(model: NamedModel) -> Dataset:
    """The dataset version that a model was trained on. Raises InputError where its bundle or that version is gone,
    CorruptError where one is damaged."""
    return dataset_of(checkpoint.load_bundle(model.contender.checkpoint), beside=scored_at(model))


def scored_at(model: NamedModel) -> str | None:
    """The URI of the dataset that a model was scored on last, where a decision tells it."""
    return next((record.proof.data for record in reversed(model.decisions) if record.proof), None)


def _by_alias(experiment: str, alias: str, log: Sequence[Record]) -> Contender:
    if alias == CHAMPION:
        standing = promotion.standing(log)
        found = standing.champion if standing else None
    else:
        found = next((record.challenger for record in reversed(log) if record.challenger), None)
    if found is None:
        raise InputError(f"{experiment}: has no {alias} (`segpipe history {experiment}`)")
    return found


def _version(experiment: str, version: int, log: Sequence[Record]) -> Contender:
    tracking.reachable(mirror.uri())
    weights = tracking.weights_of_version(mirror.uri(), experiment, version)
    for record in reversed(log):
        for each in (record.challenger, record.champion):
            if each is not None and each.weights_sha256 == weights:
                return each
    known = f"no decision names its weights, {weights[:12]}" if weights else "MLflow has no such version of ours"
    raise InputError(f"{PREFIX}{experiment}/{version}: {known}; see `segpipe history {experiment}`")


def _weights(record: Record) -> set[str]:
    """Of the models that a record decided on."""
    decided = (record.challenger, record.champion if record.kind == "rollback" else None)
    return {each.weights_sha256 for each in decided if each is not None}
