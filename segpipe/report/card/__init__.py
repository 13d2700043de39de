"""The model card: one HTML page that says how good a model is, where it fails, and how it is used.

    facts.py      what it is made of, read by `stages/card.py`
    numbers.py    what follows from the counts of an evaluation
    sentences.py  what it says in words
    pictures.py   its pictures
    charts.py     its charts
    page.py       all of it put into the template

It needs no network and no script, so that it opens wherever it is mailed to and reads the same on paper. A few MB at
most: `MOST_BYTES` holds for images that are noise, and `MOST_DRAWN` pictures of tasks that draw their own; of street
scenes it is below one.
"""

from segpipe.report.card.facts import (
    Against,
    CardFacts,
    DataFacts,
    Drawn,
    Shown,
    SplitFacts,
    UseFacts,
)
from segpipe.report.card.page import MOST_BYTES, MOST_DRAWN, render_card

__all__ = [
    "MOST_BYTES",
    "MOST_DRAWN",
    "Against",
    "CardFacts",
    "DataFacts",
    "Drawn",
    "Shown",
    "SplitFacts",
    "UseFacts",
    "render_card",
]
