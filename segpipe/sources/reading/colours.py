"""A colour for every class that has none of its own: PASCAL VOC's colour map. Part of `reading`."""

from __future__ import annotations


def class_colour(number: int) -> tuple[int, int, int]:
    """Colour `number` of the map: 0 is black, no two of the first 2**24 are equal (VOC devkit, VOClabelcolormap.m).

    The bits of the number are dealt to red, green and blue in turn, each channel filling from its highest bit.
    """
    parts, rest = [0, 0, 0], number
    for bit in range(7, -1, -1):
        for channel in range(3):
            parts[channel] |= (rest >> channel & 1) << bit
        rest >>= 3
    return parts[0], parts[1], parts[2]
