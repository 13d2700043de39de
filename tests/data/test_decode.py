"""Encoded samples -> tensors: the right pixels, the right types, and an error that names the sample."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from segpipe.data.decode import decode
from segpipe.errors import CorruptError
from segpipe.types import Sample
from tests.fixtures.small import small_samples

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def sample_of(image: bytes, *, height: int = 5, width: int = 7, label_map: bytes | None = None) -> Sample:
    return Sample(sample_id="a/1", image=image, height=height, width=width, group="a", label_map=label_map)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_the_tensor_holds_the_pixels(file_format: str) -> None:
    decoded = decode(sample_of(encoded(Image.fromarray(PIXELS // 8 + 100), file_format)))
    assert decoded.sample_id == "a/1"
    assert decoded.image_3HW.dtype == torch.uint8
    assert decoded.image_3HW.shape == (3, 5, 7)
    difference_HW3 = decoded.image_3HW.permute(1, 2, 0).numpy().astype(int) - (PIXELS // 8 + 100)
    assert np.abs(difference_HW3).max() <= (0 if file_format == "PNG" else 25)


def test_grey_palette_and_transparent_images_become_rgb() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    assert torch.equal(
        decode(sample_of(encoded(grey, "PNG"))).image_3HW, torch.from_numpy(PIXELS[..., 0]).expand(3, 5, 7)
    )
    palette = Image.fromarray(PIXELS).quantize(8)
    see_through = encoded(palette, "PNG", transparency=bytes(range(8)))
    expected = torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(decode(sample_of(encoded(palette, "PNG"))).image_3HW, expected)
    assert torch.equal(decode(sample_of(see_through)).image_3HW, expected)
    transparent = Image.fromarray(np.concatenate([PIXELS, PIXELS[..., :1]], axis=2))
    assert torch.equal(
        decode(sample_of(encoded(transparent, "PNG"))).image_3HW, torch.from_numpy(PIXELS).permute(2, 0, 1)
    )


@pytest.mark.parametrize(
    ("stored", "expected"), [(np.uint8, torch.uint8), (np.uint16, torch.int32), (np.int32, torch.int32)]
)
def test_label_maps_of_every_width(stored: type[np.generic], expected: torch.dtype) -> None:
    top = min(np.iinfo(stored).max, 65535)
    labels_HW = np.linspace(0, top, 35).astype(stored).reshape(5, 7)
    decoded = decode(sample_of(encoded(Image.fromarray(PIXELS), "PNG"), label_map=labels_HW.tobytes()))
    assert decoded.labels_HW is not None
    assert decoded.labels_HW.dtype == expected
    assert decoded.labels_HW.tolist() == labels_HW.tolist()


def test_without_a_label_map_there_are_no_labels() -> None:
    assert decode(sample_of(encoded(Image.fromarray(PIXELS), "PNG"))).labels_HW is None


def test_decoding_leaves_the_sample_as_it_was() -> None:
    sample = next(small_samples("train", 1))
    decoded = decode(sample)
    before = bytes(sample.image), bytes(sample.label_map or b"")
    decoded.image_3HW.zero_()
    assert decoded.labels_HW is not None
    decoded.labels_HW.zero_()
    assert (sample.image, sample.label_map) == before


def test_an_image_that_does_not_decode_names_its_sample() -> None:
    whole = encoded(Image.fromarray(PIXELS), "PNG")
    for damaged in (b"no image at all", whole[:60], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        with pytest.raises(CorruptError, match=r"sample a/1: the stored image does not decode .*ingest again"):
            decode(sample_of(damaged))


def test_an_image_of_another_size_than_its_row_is_refused() -> None:
    sample = sample_of(encoded(Image.fromarray(PIXELS), "PNG"), height=7, width=5)
    with pytest.raises(CorruptError, match=r"sample a/1: image is \(5, 7\), the row says \(7, 5\)"):
        decode(sample)


@pytest.mark.parametrize("length", [0, 34, 36, 105, 280])
def test_a_label_map_of_the_wrong_length_is_refused(length: int) -> None:
    sample = sample_of(encoded(Image.fromarray(PIXELS), "PNG"), label_map=bytes(length))
    with pytest.raises(
        CorruptError, match=rf"sample a/1: a label map of {length} bytes for 5 x 7 .*1, 2 or 4 .* ingest"
    ):
        decode(sample)


def test_the_small_dataset_decodes_to_its_own_sizes() -> None:
    for sample in small_samples("test", 6):
        decoded = decode(dataclasses.replace(sample))
        assert decoded.image_3HW.shape == (3, sample.height, sample.width)
        assert decoded.labels_HW is not None
        assert decoded.labels_HW.numpy().tobytes() == sample.label_map
