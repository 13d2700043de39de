"""Many compressed run lengths checked at once: one by one, checking a COCO result costs more than scoring it.

The format is that of `coco.py`. Part of the room `masks`. Letter legend: n texts, r runs of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segpipe.masks.coco import MORE, MOST_CHARACTERS, MOST_CODE, character_codes, numbers_of_codes

Integers = npt.NDArray[np.int64]


def plain_areas(texts: Sequence[bytes], pixels: npt.ArrayLike) -> Integers:
    """The pixels inside each of n compressed run lengths; -1 where one is not as `encode_rle` would write it.

    `pixels` are height * width of each. What is not -1 passes `rle_runs`, and no run of it is empty but perhaps the
    first; what is wrong with the rest, `rle_runs` says.
    """
    areas_n: Integers = np.full(len(texts), -1, dtype=np.int64)
    pixels_n, codes = np.asarray(pixels), character_codes(b"".join(texts))
    ends_n = np.cumsum([len(text) for text in texts], dtype=np.int64)
    sound_n = np.diff(ends_n, prepend=0) > 0
    sound_n[np.searchsorted(ends_n, np.flatnonzero((codes < 0) | (codes > MOST_CODE)), side="right")] = False
    sound_n[sound_n] = codes[ends_n[sound_n] - 1] & MORE == 0
    kept = np.flatnonzero(sound_n)
    if kept.size < len(texts):  # what is cut off would run on into the next text
        areas_n[kept] = plain_areas([texts[place] for place in kept.tolist()], pixels_n[kept])
        return areas_n
    if not kept.size:
        return areas_n
    runs_r, starts_n, odd_r, short_n = _runs(codes, ends_n)
    behind_r = runs_r.copy()
    behind_r[starts_n] = 1  # a first run may be empty: the mask then begins inside
    plain_n = short_n & (runs_r[starts_n] >= 0) & (np.minimum.reduceat(behind_r, starts_n) > 0)
    plain_n &= np.add.reduceat(runs_r, starts_n) == pixels_n
    return np.where(plain_n, np.add.reduceat(np.where(odd_r, runs_r, 0), starts_n), areas_n)


def _runs(codes: Integers, ends_n: Integers) -> tuple[Integers, Integers, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The runs of texts that end at `ends_n`, where those of each start, whether they are inside, and whether none of a
    text has too many characters."""
    values_r, first_r, lengths_r = numbers_of_codes(codes)
    starts_n = np.searchsorted(first_r, np.concatenate(([0], ends_n[:-1])))
    runs_of_n = np.diff(starts_n, append=values_r.size)
    place_r = np.arange(values_r.size) - np.repeat(starts_n, runs_of_n)
    odd_r = place_r % 2 == 1
    runs_r = values_r.copy()
    # From the fourth on, a run is told as the difference to the one two before.
    for chain_r in (odd_r, ~odd_r & (place_r > 0)):
        sums_r = np.cumsum(np.where(chain_r, values_r, 0))
        runs_r = np.where(chain_r, sums_r - np.repeat(sums_r[starts_n], runs_of_n), runs_r)
    return runs_r, starts_n, odd_r, np.maximum.reduceat(lengths_r, starts_n) <= MOST_CHARACTERS
