"""Which splits of a dataset version a run in MLflow rests on, and what for: its inputs. Below `display.py`, which knows
the configs of a night, and `registration.py`, which has a model alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from segpipe import tracking
from segpipe.errors import CorruptError, InputError
from segpipe.promotion import Contender, Record
from segpipe.shards import Dataset, open_dataset
from segpipe.stages import layout
from segpipe.stages.origins import dataset_of, find_dataset, origin_of

_log = logging.getLogger(__name__)


def record(shown: tracking.RunRef, uses: Iterable[tuple[str, str]], *, data: str, version: str) -> None:
    """Ties splits of a dataset version to a run: `uses` are (split, "training", "validation" or "evaluation")."""
    _record(shown, uses, open_dataset(data, version=version))


def record_of_model(shown: tracking.RunRef, model: Contender, standing: Record | None) -> None:
    """The same of a model whose night is not known: from what its training left, and of a champion on what the ledger
    says that it was scored; nothing where the run has inputs. What of it is gone is left out, and logged."""
    if tracking.has_inputs(shown):
        return
    scored = None if standing is None else standing.evaluation
    beside = standing.proof.data if standing and standing.proof else None
    try:
        origin = origin_of(model.checkpoint)
        uses = [
            use
            for each in origin.trainings
            for use in ((each.train_split, "training"), (each.validation_split, "validation"))
        ]
        trained_on = dataset_of(origin.bundle, beside=beside)
        if scored is not None and scored.dataset_version == trained_on.version:
            uses.append((scored.split, "evaluation"))
        _record(shown, uses, trained_on)
        if scored is not None and scored.dataset_version != trained_on.version:
            tested = find_dataset(
                scored.dataset_version, [beside or trained_on.uri, layout.dataset_uri(scored.dataset)]
            )
            _record(shown, [(scored.split, "evaluation")], tested)
    except (InputError, CorruptError) as error:
        _log.info("on what data %s rests is not shown in MLflow: %s", model.label, error)


def _record(shown: tracking.RunRef, uses: Iterable[tuple[str, str]], dataset: Dataset) -> None:
    purposes: dict[str, dict[str, None]] = {}  # an ordered set for each split
    for split, purpose in uses:
        purposes.setdefault(split, {})[purpose] = None
    manifest = dataset.manifest
    for split, found in purposes.items():
        tracking.record_dataset(
            shown,
            name=manifest.dataset,
            version=dataset.version,
            uri=dataset.uri,
            split=split,
            context=", ".join(found),
            profile={"samples": manifest.splits[split].samples, "classes": len(manifest.classes)},
        )
