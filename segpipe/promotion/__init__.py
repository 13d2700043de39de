"""Who is champion. `comparison.py` says how sure a difference is, `gate.py` judges two reports and is pure; `ledger.py`
writes down what it said, and races safely; `overrule.py` is a person's word against it.

Stands after `leaderboard.py`; `stages/promote.py` calls it and then mirrors the result to the registry.
"""

from segpipe.promotion.comparison import ClassScores, Comparison
from segpipe.promotion.gate import Contender, Rules, Verdict, judge
from segpipe.promotion.ledger import Record, champion, decide, history, taken_back
from segpipe.promotion.overrule import force, roll_back
from segpipe.promotion.proof import Proof

__all__ = [
    "ClassScores",
    "Comparison",
    "Contender",
    "Proof",
    "Record",
    "Rules",
    "Verdict",
    "champion",
    "decide",
    "force",
    "history",
    "judge",
    "roll_back",
    "taken_back",
]
