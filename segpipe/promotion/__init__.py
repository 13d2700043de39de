"""Who is champion. `gate.py` judges two reports and is pure; `ledger.py` writes down what it said, and races safely.

Stands after `leaderboard.py`; `stages/promote.py` calls it and then mirrors the result to the registry.
"""

from segpipe.promotion.gate import Contender, Verdict, is_better, judge
from segpipe.promotion.ledger import Record, champion, decide, history

__all__ = ["Contender", "Record", "Verdict", "champion", "decide", "history", "is_better", "judge"]
