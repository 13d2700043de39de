"""Tables in Markdown, as the pages of MLflow and of Prefect show them. Below `display.py`, `registration.py` and
`flows/artifacts.py`.

`padding` is what the cells of MLflow's pages need; Prefect's need none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segpipe.leaderboard import BoardRow
from segpipe.promotion import Record, Verdict
from segpipe.stages.halving.report import BudgetReport, rung_rows
from segpipe.tracking import PADDING, markdown_table

MOST_CLASSES = 30  # in a table on a page: what MLflow keeps of a description holds no hundred


def board_table(board: Sequence[BoardRow], *, padding: str = PADDING) -> list[str]:
    """The leaderboard, the best model first."""
    columns = ["rank", "model", board[0].primary, "95 % interval", "parameters"]
    rows = [
        (row.rank, row.label, row.value, f"{row.low:.4f} to {row.high:.4f}", f"{row.parameters / 1e6:.1f} M")
        for row in board
    ]
    return markdown_table(columns, rows, texts=("model",), padding=padding)


def class_table(decision: Verdict | Record, *, padding: str = PADDING) -> list[str]:
    """What became of every class, as the lines of a table below a paragraph; none where nothing was compared.

    Of more classes than a page has room for, those whose score changed most; the ledger has all.
    """
    shown = list(decision.changes)
    if not shown:
        return []
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda each: -abs(each.delta or 0.0))[:MOST_CLASSES]
    columns = ["class", "champion before", "challenger", "change"]
    lines = ["", *markdown_table(columns, [each.row for each in shown], texts=("class",), padding=padding)]
    left = len(decision.changes) - len(shown)
    if left:
        lines += ["", f"{left} more classes, which changed less, stand in record {decision.number} of the ledger."]
    return lines


def rung_table(report: BudgetReport) -> list[str]:
    """The rungs of a budget, for Prefect; none where no training was begun."""
    if not (rows := rung_rows(report)):
        return []
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows], texts=("model", "then"), padding="")


def split_table(splits: Mapping[str, int]) -> list[str]:
    """The samples of each split, for Prefect."""
    return markdown_table(["split", "samples"], list(splits.items()), texts=("split",), padding="")
