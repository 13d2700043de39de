"""Photographs and label images at the border: every bad file is named with its reason, no id is lost."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from segpipe.errors import BadSampleError
from segpipe.masks import (
    check_header,
    check_image,
    map_labels,
    read_image_header,
    read_label_image,
    read_rgb,
    read_upright,
)
from tests.fixtures.pictures import label_blocks, photograph, png

LABELS = label_blocks(9, 14, 4)


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, encoding, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A well-formed PNG header over no pixels: what a decompression bomb looks like before it is unpacked."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
def test_header_and_check_agree(encoding: str) -> None:
    data = photograph(11, 17, encoding=encoding)
    assert read_image_header(data, file="a") == (17, 11, encoding, 1)
    assert check_header(data, file="a") == (17, 11, encoding, 1)
    check_image(data, file="a")


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
def test_a_rotated_photograph_is_told_with_its_remedy(encoding: str) -> None:
    data = photograph(11, 17, encoding=encoding, orientation=6)
    assert read_image_header(data, file="a").orientation == 6
    for check in (check_header, check_image):
        with pytest.raises(BadSampleError, match=r"orientation 6.*exif_transpose") as caught:
            check(data, file="a")
        assert caught.value.reason == "exif_rotated"


def test_a_rotation_tag_behind_the_pixels_of_a_png_is_found_when_it_is_decoded() -> None:
    data = photograph(11, 17, encoding="PNG", orientation=6)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    moved = data[:start] + data[end:last] + data[start:end] + data[last:]
    with pytest.raises(BadSampleError, match="orientation 6"):
        check_image(moved, file="a")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (photograph(40, 60)[:-300], "truncated"),
        (photograph(40, 60, encoding="PNG")[:-30], "truncated"),
        (photograph(40, 60)[:300] + b"\xff\xd9", "unreadable"),
        (b"GIF89a" + bytes(40), "format_not_allowed"),
        (b"<svg></svg>", "format_not_allowed"),
        (encoded(Image.new("CMYK", (4, 4)), "JPEG"), "format_not_allowed"),
        (png(np.zeros((4, 4), np.uint16)), "format_not_allowed"),
        (png_claiming(30_000, 30_000), "too_large"),
        (png_claiming(4, 4), "truncated"),
    ],
    ids=["empty", "jpeg cut", "png cut", "jpeg header cut", "gif", "svg", "cmyk", "16 bit", "bomb", "no pixels"],
)
def test_a_bad_photograph_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadSampleError) as caught:
        check_image(data, file="images/a.jpg")
    assert (caught.value.reason, caught.value.file) == (reason, "images/a.jpg")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_has_the_pixels_that_pillow_gives_it(mode: str, settings: dict[str, int]) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(photograph(33, 47))).convert(mode).save(stream, "JPEG", **settings)
    data = stream.getvalue()
    # Bytes in front of the end marker make libjpeg warn; Pillow passes over them, and so does training.
    for variant in (data, data[:-2] + b"\x00\x00" + data[-2:]):
        expected_HW3 = np.asarray(Image.open(io.BytesIO(variant)).convert("RGB"))
        assert np.array_equal(read_rgb(variant, file="a.jpg"), expected_HW3)
    with pytest.raises(BadSampleError, match=r"(?i)truncated"):
        read_rgb(data[: len(data) // 2], file="a.jpg")


def test_the_pixel_limit_is_checked_on_the_header() -> None:
    with pytest.raises(BadSampleError, match="17x11 pixels; allowed are 1 to 186"):
        read_image_header(photograph(11, 17), file="a", max_pixels=186)
    assert read_image_header(photograph(11, 17), file="a", max_pixels=187).width == 17


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_give_indices_at_every_depth(bits: int) -> None:
    labels = LABELS % 2 if bits == 1 else LABELS
    data = png(labels, palette=[9, 200, 0] * 2**bits, bits=bits)
    assert data[24] == bits
    np.testing.assert_array_equal(read_label_image(data, file="m"), labels)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_masks_of_2_and_4_bits_are_not_stretched(depth: int) -> None:
    rows = b"".join(
        b"\0"
        + bytes(
            sum(int(v) << (8 - depth * (i + 1)) for i, v in enumerate(row[j : j + 8 // depth]))
            for j in range(0, 8, 8 // depth)
        )
        for row in LABELS[:3, :8]
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 3, depth, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_label_image(data, file="m"), LABELS[:3, :8])


def test_bilevel_grey_and_16_bit_masks_keep_their_ids() -> None:
    binary = encoded(Image.fromarray(LABELS > 1), "PNG")
    np.testing.assert_array_equal(read_label_image(binary, file="m"), (LABELS > 1).astype(np.uint8))
    grey = read_label_image(png(LABELS * 60), file="m")
    np.testing.assert_array_equal(grey, LABELS * 60)
    assert grey.dtype == np.uint8
    wide = LABELS.astype(np.uint16) * 20_000
    np.testing.assert_array_equal(read_label_image(png(wide), file="m"), wide)


def test_rgb_masks_go_through_the_palette() -> None:
    palette = {(0, 0, 0): 0, (128, 64, 128): 7, (255, 0, 0): 300, (0, 0, 9): 2}
    colours = np.array(list(palette), dtype=np.uint8)
    raw = read_label_image(png(colours[LABELS]), file="m", palette=palette)
    np.testing.assert_array_equal(raw, np.array(list(palette.values()))[LABELS])
    smoothed = colours[LABELS].copy()
    smoothed[2, 3] = smoothed[4, 5] = (1, 2, 3)
    with pytest.raises(BadSampleError, match=r"colour \(1, 2, 3\) in 2 pixels, first at x=3, y=2") as caught:
        read_label_image(png(smoothed), file="m", palette=palette)
    assert caught.value.reason == "label_out_of_range"


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (png(np.zeros((4, 4, 3), np.uint8)), "mask_mode", "16-bit grey: save it as such$"),
        (png(np.zeros((4, 4, 4), np.uint8)), "mask_mode", "RGBA"),
        (png(np.zeros((4, 4, 2), np.uint8)), "mask_mode", "LA"),
        (encoded(Image.new("L", (4, 4)), "JPEG"), "format_not_allowed", "loses ids"),
        (encoded(Image.new("L", (4, 4)), "TIFF"), "format_not_allowed", "PNG"),
    ],
    ids=["rgb", "rgba", "la", "jpeg", "tiff"],
)
def test_a_mask_that_cannot_hold_ids_is_refused(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(BadSampleError, match=words) as caught:
        read_label_image(data, file="m")
    assert caught.value.reason == reason


def test_a_palette_that_is_still_empty_can_be_filled() -> None:
    with pytest.raises(BadSampleError, match=r"save it as such, or give each class its `colour` in classes\.json"):
        read_label_image(png(np.zeros((4, 4, 3), np.uint8)), file="m", palette={})


def test_map_labels_maps_and_names_the_first_unknown_value() -> None:
    mapped = map_labels(LABELS, {0: 255, 1: 0, 2: 1, 3: 0}, file="m")
    np.testing.assert_array_equal(mapped, np.array([255, 0, 1, 0], np.uint8)[LABELS])
    assert mapped.dtype == np.uint8
    assert mapped.flags.writeable
    np.testing.assert_array_equal(map_labels(LABELS.T, {0: 255, 1: 0, 2: 1, 3: 0}, file="m"), mapped.T)
    spoilt = LABELS.copy()
    spoilt[5, 13] = spoilt[6, 2] = 77
    with pytest.raises(BadSampleError, match=r"label 77 in 2 pixels, first at x=13, y=5; known raw labels are \[0, 1"):
        map_labels(spoilt, {0: 0, 1: 1, 2: 2, 3: 3}, file="m")


def test_labels_that_count_from_one_are_told_so() -> None:
    table = {0: 0, 1: 1, 2: 2, 255: 255}
    with pytest.raises(BadSampleError, match=r"it counts from 1 \(option reduce_zero=true\), or add it to names.json"):
        map_labels(np.array([[1, 2, 3]], np.uint8), table, file="m.png", own="names.json")
    for labels in ([0, 2, 3], [1, 2, 4]):
        with pytest.raises(
            BadSampleError, match=r"labels are \[0, 1, 2, 255\]: add it to names.json, or .*option ignore"
        ):
            map_labels(np.array([labels], np.uint8), table, file="m.png", own="names.json")


def test_many_known_labels_are_shown_as_runs() -> None:
    table = {**{k: k for k in range(21)}, 255: 255}
    with pytest.raises(BadSampleError, match=r"known raw labels are 0\.\.20, 255: mend"):
        map_labels(np.array([[22]], np.uint8), table, file="m.png")
    with pytest.raises(BadSampleError, match=r"known raw labels are 0, 2, 4, and so on to 38: mend"):
        map_labels(np.array([[1]], np.uint8), {2 * k: k for k in range(20)}, file="m.png")


def test_labels_of_a_published_format_are_not_for_its_user_to_change() -> None:
    with pytest.raises(BadSampleError, match=r"labels are \[0, 1\]: mend the mask") as caught:
        map_labels(np.array([[1, 2]], np.uint8), {0: 0, 1: 1}, file="m.png")
    assert "option" not in str(caught.value)


def test_map_labels_widens_only_where_the_ids_need_it() -> None:
    wide = LABELS.astype(np.uint16) + 1000
    assert map_labels(wide, {1000: 0, 1001: 1, 1002: 2, 1003: 255}, file="m").dtype == np.uint8
    many = map_labels(wide, {1000: 0, 1001: 1, 1002: 299, 1003: 65535}, file="m")
    assert many.dtype == np.uint16
    assert set(np.unique(many)) == {0, 1, 299, 65535}


@pytest.mark.parametrize("seed", range(20))
def test_mutated_files_end_in_a_reason_or_in_success(seed: int) -> None:
    generator = random.Random(seed)
    originals = [
        photograph(20, 24, orientation=3),
        photograph(20, 24, encoding="PNG"),
        png(LABELS),
        png(LABELS, palette=[0] * 12),
    ]
    accepted = refused = 0
    for data in originals * 4:
        mutated = bytearray(data)
        for _ in range(generator.randint(1, 6)):
            place = generator.randrange(len(mutated))
            action = generator.randrange(4)
            if action == 0:
                mutated[place] = generator.randrange(256)
            elif action == 1:
                del mutated[place : place + generator.randint(1, 9)]
            elif action == 2:
                mutated[place:place] = generator.randbytes(generator.randint(1, 9))
            else:
                mutated[place] ^= 1 << generator.randrange(8)
        for read in (check_image, read_image_header, read_label_image):
            try:
                read(bytes(mutated), file="fuzz", max_pixels=1_000_000)
                accepted += 1
            except BadSampleError:
                refused += 1
    assert refused > 0
    assert accepted + refused == 48


@pytest.mark.parametrize("encoding", ["JPEG", "PNG"])
def test_a_turned_photograph_is_read_as_it_is_shown(encoding: str) -> None:
    """Against Pillow's own way, of all eight orientations; a check must have let it pass."""
    for orientation in range(1, 9):
        data = photograph(11, 17, encoding=encoding, orientation=orientation)
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        found = read_upright(data, file="a")
        assert np.array_equal(found, np.asarray(shown)), orientation
        assert check_header(data, file="a", turned=True).upright_size == found.shape[:2]
