"""Every type that a stage returns, in one place for the doors (`cli`, `flows`), which may not enter the rooms below."""

from segpipe.leaderboard import BoardRow
from segpipe.promotion import Contender, Record, Verdict
from segpipe.stages.diff import ClassChange, Difference, Move
from segpipe.stages.doctor.finding import Check
from segpipe.stages.export import Exported
from segpipe.stages.gc.outcome import Collection, Place
from segpipe.stages.halving.report import BudgetReport
from segpipe.stages.ingest import IngestResult
from segpipe.stages.inspect import Inspection, SplitRow
from segpipe.stages.retrain import RetrainResult
from segpipe.stages.versions import Logged
from segpipe.types import EvalReport, TrainResult

__all__ = [
    "BoardRow",
    "BudgetReport",
    "Check",
    "ClassChange",
    "Collection",
    "Contender",
    "Difference",
    "EvalReport",
    "Exported",
    "IngestResult",
    "Inspection",
    "Logged",
    "Move",
    "Place",
    "Record",
    "RetrainResult",
    "SplitRow",
    "TrainResult",
    "Verdict",
]
