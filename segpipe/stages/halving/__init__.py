"""A night within a budget: all architectures are trained a little, the better part goes on from its checkpoints, rung
by rung, until what is left is trained to the end. Called by `retrain.py`.

What is halved are trainings by descent. What learns by counting or not at all costs next to nothing, and what was
trained before costs nothing: both stand beside the search, and come on the board as ever. An ensemble, and an entry
that takes another's weights, is dropped with one that it is made of. Each rung is ranked by the validation split that
the trainings choose their best epochs by, never by the split of the board.

A rung is on record from its beginning (who, to which step), and once more when it has ended (scores, hours, who goes
on): a night that is killed goes on with the rung that it was in, and what a training has spent stands in its own
checkpoints, so that nothing is counted twice. Nor are seconds that no checkpoint knows: the start of workers, and what
a kill destroyed. What an earlier search or night trained is not counted either. A training that it brought further than
a rung goes is `ahead`: ranked together is only what stands at one share of its length, so that it waits, at no cost,
for the first rung that goes as far.

    ladder.py   the arithmetic, with its sources: rungs from a budget, who goes on
    plan.py     what a budget would come to, before it is begun
    search.py   the records, the state that they make, the next rung
    report.py   what it came to, beside what the full grid would have cost
"""
