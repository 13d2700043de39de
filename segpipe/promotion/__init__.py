"""Who is champion. `comparison.py` says how sure a difference is, `gate.py` judges two reports and is pure; `ledger.py`
writes down what it said, and races safely; `proof.py` is what else is asked of who has won; `overrule.py` is a
person's word against the gate's.

Stands after `leaderboard.py`; `stages/promote.py` calls it and then mirrors the result to the registry.
"""

from segpipe.promotion.comparison import Comparison
from segpipe.promotion.gate import Contender, Rules, Verdict, judge
from segpipe.promotion.ledger import Record, champion, decide, history, standing, taken_back
from segpipe.promotion.overrule import force, roll_back
from segpipe.promotion.proof import Proof

__all__ = [
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
    "standing",
    "taken_back",
]
