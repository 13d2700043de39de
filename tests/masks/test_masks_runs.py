"""Many run lengths at once say what each says alone, whatever stands beside it."""

import numpy as np

from segpipe.errors import BadSampleError
from segpipe.masks import encode_rle, plain_areas, rle_runs


def alone(text: bytes, height: int, width: int) -> int:
    """The pixels inside by the reader of one, -1 where it refuses or finds an empty run behind the first."""
    try:
        runs = rle_runs(text, height, width)
    except BadSampleError:
        return -1
    return int(runs[1::2].sum()) if runs[1:].all() else -1


def damaged(text: bytes, rng: np.random.Generator) -> bytes:
    """One of: as it is, another character somewhere, cut off, one more number."""
    kind = rng.integers(4)
    if kind == 1:
        place = int(rng.integers(len(text)))
        return text[:place] + bytes([rng.integers(256)]) + text[place + 1 :]
    if kind == 2:
        return text[: int(rng.integers(len(text) + 1))]
    return text + b"0" if kind == 3 else text


def test_texts_sound_and_damaged_say_what_they_say_alone() -> None:
    rng = np.random.default_rng(5)
    texts, sizes = [], []
    for _ in range(3000):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        inside = rng.random((height, width)) < rng.choice([0, 0.1, 0.5, 0.9, 1])
        texts.append(damaged(encode_rle(inside)["counts"], rng))
        sizes.append((height, width))
    expected = [alone(text, *size) for text, size in zip(texts, sizes, strict=True)]
    found = plain_areas(texts, [height * width for height, width in sizes])
    assert found.tolist() == expected
    assert 0.2 < np.mean(found < 0) < 0.8, "both kinds are there"


def test_none_and_only_damaged_ones() -> None:
    assert plain_areas([], []).tolist() == []
    assert plain_areas([b"", b"P", b"\xff"], [4, 4, 4]).tolist() == [-1, -1, -1]


def test_a_number_of_too_many_characters_is_not_plain() -> None:
    endless = b"P" * 9 + b"0"  # spells 0, with more characters than a run may have
    assert plain_areas([endless, encode_rle(np.ones((2, 2)))["counts"]], [4, 4]).tolist() == [-1, 4]


def test_the_whole_of_a_large_image() -> None:
    whole = encode_rle(np.ones((4000, 3000), dtype=np.uint8))["counts"]
    assert plain_areas([whole] * 3, [12_000_000] * 3).tolist() == [12_000_000] * 3
