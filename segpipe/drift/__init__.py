"""Whether images are like those of a training, and a model's answers like those it was scored on: pure counting.

    levels.py   what an image counts as, in whole numbers, and how images are counted
    chance.py   how far two sides are apart, and how often chance comes to as much
    shifts.py   two sides held against each other, and what is said of it

An image has a level in each of some statistics: brightness, contrast, warmth and tint, its sides, how unsure the model
is, and of each class its share of the pixels or its number of objects. What a training rests on is how many images have
which level, so that parts add up in any order to the same (`counted`). `compare` holds the images of a call against
that:

* how far two distributions are apart is the Jensen-Shannon distance (Lin 1991, IEEE Trans. Inf. Theory 37; a metric:
  Endres and Schindelin 2003) with logarithms of base 2, from 0 to 1, over at most ten bins of equally many images of
  both together, and as few as leave five images of the smaller side in each (Cochran 1954, Biometrics 10). At half a
  standard deviation of a bell curve it is 0.2, where the population stability index passes its usual 0.25.
* whether as much comes about by chance is a permutation test: both sides are thrown together and drawn apart anew
  (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9). That is exact for any number of images, so that few of them
  raise no alarm.
* images of one group (a drive, a patient) are alike, and as good as one image or a few. Where the training's come in
  groups, whole groups are therefore drawn. Few groups can be drawn in few ways, and nothing is rarer than one of
  these: one drive beside three is one of four. What stands out then is told as undecided, and is no alarm.

Where nothing is known of groups, images are taken as independent of each other; a drive is then told as what it is, a
narrow choice of what the training saw.
"""

from segpipe.drift.chance import distance, enough_groups
from segpipe.drift.levels import (
    UNSURE,
    Counts,
    Levels,
    counted,
    counted_by_group,
    in_columns,
    in_rows,
    of_look,
    of_prediction,
)
from segpipe.drift.shifts import FALSE_ALARMS, THRESHOLD, Shift, compare, in_order, most_unlike

__all__ = [
    "FALSE_ALARMS",
    "THRESHOLD",
    "UNSURE",
    "Counts",
    "Levels",
    "Shift",
    "compare",
    "counted",
    "counted_by_group",
    "distance",
    "enough_groups",
    "in_columns",
    "in_order",
    "in_rows",
    "most_unlike",
    "of_look",
    "of_prediction",
]
