"""What a budget came to, beside what training everything would have cost. For the night's record and its readers.

Nothing heavy is imported: a record must be read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segpipe.stages.halving.ladder import Rung


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetReport:
    """The rungs of a search within `hours` of a `device`, in device-hours. `spent` is what the trainings took, with
    their validations, `full_grid` what all of them would have taken by their measured rates, `saved` the share of it
    that was not spent. `left_out` says why an architecture is not on the board."""

    hours: float
    device: Literal["GPU", "CPU"]
    spent: float
    full_grid: float
    saved: float
    rungs: tuple[Rung, ...]
    left_out: Mapping[str, str]


def rung_rows(report: BudgetReport) -> list[dict[str, str]]:
    """The rungs as a table, the best of each first: who stood in it, how far it went, what it took, who went on."""
    return [
        {
            "rung": str(rung.number),
            "model": climb.label,
            "steps": f"{climb.until:,} of {climb.steps:,}",
            "validation": "-" if climb.score is None else f"{climb.score:.4f}",
            f"{report.device}-hours": f"{climb.hours:.3g}",
            "then": climb.fate or "not finished",
        }
        for rung in report.rungs
        for climb in sorted(rung.climbs, key=lambda climb: -(-1.0 if climb.score is None else climb.score))
    ]


def summed_up(report: BudgetReport) -> str:
    """The budget in one sentence."""
    return (
        f"{report.spent:.3g} of {report.hours:g} {report.device}-hours spent; all trainings to their ends would have "
        f"taken {report.full_grid:.3g}: {report.saved:.0%} saved"
    )
