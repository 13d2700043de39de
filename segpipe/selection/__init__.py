"""Which images are worth a person's time, and how they are put before one: active learning (Settles 2009, Active
Learning Literature Survey).

    strategies.py    how unsure one model is of an image, and how much several disagree about it
    choosing.py      the images with the highest scores that are not like each other
    label_studio.py  proposals as Label Studio's tasks, and the configuration of its project

Pure functions of predictions; `stages/select.py` asks the models and writes the files.
"""

from segpipe.selection.choosing import Candidate, Choice, choose
from segpipe.selection.label_studio import labelling_config, task
from segpipe.selection.strategies import COMMITTEE, UNCERTAINTY, disagreement, uncertainty

__all__ = [
    "COMMITTEE",
    "UNCERTAINTY",
    "Candidate",
    "Choice",
    "choose",
    "disagreement",
    "labelling_config",
    "task",
    "uncertainty",
]
