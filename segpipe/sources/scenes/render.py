"""One frame of a street as arrays: paints it, lights it, and adds what a camera adds. Above canvas, houses, things.

Letter legend: H W image size in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from segpipe.sources.scenes.canvas import OVERSAMPLING, STUFF, VOID, Canvas
from segpipe.sources.scenes.houses import paint_ground, paint_houses
from segpipe.sources.scenes.palette import BUILDING, CAR, CLASSES, PERSON, POLE, ROAD, SIGN, TREE, Colour
from segpipe.sources.scenes.things import paint_thing
from segpipe.sources.scenes.world import World
from segpipe.types import IGNORE_8BIT

# How rough a surface looks: share of fine and of coarse brightness variation, by class.
_ROUGHNESS = {BUILDING: (0.05, 0.08), ROAD: (0.06, 0.06), TREE: (0.25, 0.15), CAR: (0.03, 0.08)}
_ROUGHNESS |= {PERSON: (0.05, 0.06), POLE: (0.05, 0.10), SIGN: (0.03, 0.06)}
_THING_CLASS = {"car": CAR, "crossing_car": CAR, "person": PERSON, "sign": SIGN}

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Pixels (H, W, 3), class ids (H, W; 255 = ignore), segment ids (H, W; 0 = none) and what the segments are."""

    pixels: Bytes
    labels: Bytes
    segments: Bytes
    classes: dict[int, int]
    keypoints: dict[int, tuple[tuple[float, float, int], ...]]


def render(world: World, frame: int, height: int, width: int, rng: np.random.Generator) -> Frame:
    """Frame number `frame` of a street; `rng` gives surfaces and sensor noise."""
    canvas = Canvas(world, height, width)
    travelled = world.speed * frame
    canvas.image.paste(_sky(world, canvas.horizon // OVERSAMPLING + 1, height, width, rng).resize(canvas.image.size))
    paint_ground(canvas, world, travelled)
    paint_houses(canvas, world, travelled)
    classes = {STUFF + class_id: class_id for class_id, info in enumerate(CLASSES) if not info.is_thing}
    points = {}
    placed = [(thing.z - travelled + thing.speed_z * frame, thing) for thing in world.things]
    for z, thing in sorted(placed, key=lambda item: (-item[0], item[1].number)):
        if z < 3.0:  # beside or behind the camera
            continue
        keypoints = paint_thing(canvas, thing, thing.x + thing.speed_x * frame, z)
        if keypoints:
            points[thing.number] = keypoints
        if thing.kind in _THING_CLASS:
            classes[thing.number] = _THING_CLASS[thing.kind]
    if world.bonnet is not None:
        _bonnet(canvas, world.bonnet)
    segments = np.asarray(canvas.ids)[::OVERSAMPLING, ::OVERSAMPLING].copy()
    lookup = np.full(256, IGNORE_8BIT, dtype=np.uint8)
    for ident, class_id in classes.items():
        lookup[ident] = class_id
    labels = lookup[segments]
    pixels = _expose(world, _surfaces(canvas, labels, rng), rng)
    segments[segments == VOID] = 0
    seen = set(np.flatnonzero(np.bincount(segments.ravel(), minlength=256)).tolist()) - {0}
    return Frame(
        pixels=pixels,
        labels=labels,
        segments=segments,
        classes={ident: classes[ident] for ident in sorted(seen)},
        keypoints={ident: _visibility(points[ident], ident, segments) for ident in sorted(seen & points.keys())},
    )


def _sky(world: World, horizon: int, height: int, width: int, rng: np.random.Generator) -> Image.Image:
    down = np.minimum(np.arange(height, dtype=np.float32) / horizon, 1.0)[:, None, None]
    top, bottom = (np.array(colour, dtype=np.float32) for colour in world.sky[:2])
    cover = (_cloudiness(height, width, rng) - 1.05 + world.clouds).clip(0.0, 0.45) / 0.45
    veil = np.float32(0.55) * bottom + np.float32(0.45) * np.array((250, 248, 246), dtype=np.float32)
    sky = top + (bottom - top) * down
    sky = sky + (veil - sky) * (cover * np.float32(0.85))[:, :, None]
    return Image.fromarray(sky.astype(np.uint8))


def _cloudiness(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Smooth noise in 0..1 of two grains, wide rather than high."""
    total: Floats = np.zeros((height, width), dtype=np.float32)
    for rows, columns, weight in ((7, 4, 0.65), (16, 9, 0.35)):
        grid = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
        smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth, dtype=np.float32) * np.float32(weight / 255)
    return total


def _surfaces(canvas: Canvas, labels: Bytes, rng: np.random.Generator) -> Floats:
    """The painted picture (H, W, 3) at its final size, with rough surfaces and soft shadows on the ground."""
    height, width = labels.shape
    pixels = np.asarray(canvas.image.reduce(OVERSAMPLING), dtype=np.float32)
    fine_share, coarse_share = np.zeros((2, 256), dtype=np.float32)
    for class_id, (fine, coarse) in _ROUGHNESS.items():
        fine_share[class_id], coarse_share[class_id] = fine, coarse
    grain = rng.integers(0, 256, (height, width), dtype=np.uint8).astype(np.float32) / 127.5 - 1
    grid = rng.integers(0, 256, (max(2, height // 10), max(2, width // 10)), dtype=np.uint8)
    blotches = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    coarse_noise = np.asarray(blotches, dtype=np.float32) / 127.5 - 1
    light = 1 + fine_share[labels] * grain + coarse_share[labels] * coarse_noise
    shade = np.asarray(canvas.shadows.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    light *= np.where(labels == ROAD, shade, 1)
    rough: Floats = pixels * light[:, :, None]
    return rough


def _expose(world: World, pixels: Floats, rng: np.random.Generator) -> Bytes:
    """Colour of the light, exposure, contrast, vignetting and sensor noise: 8-bit pixels."""
    height, width = pixels.shape[:2]
    gain = np.array(world.sky[2], dtype=np.float32) * np.array(world.tint, dtype=np.float32) * world.exposure / 250
    across = np.arange(width, dtype=np.float32) / width - 0.5
    down = np.arange(height, dtype=np.float32) / height - 0.5
    vignette = 1 - 0.35 * (across[None, :] ** 2 + down[:, None] ** 2)
    level = (pixels * (vignette[:, :, None] * gain) / 255).clip(0, 1)
    level += world.contrast * level * (1 - level) * (2 * level - 1) * 2  # an S curve of +, -, * only
    noise = rng.integers(-world.noise, world.noise + 1, pixels.shape, dtype=np.int16)
    exposed: Bytes = (level * 255 + noise).clip(0, 255).astype(np.uint8)
    return exposed


def _bonnet(canvas: Canvas, colour: Colour) -> None:
    """The camera car's own bonnet: pixels that nobody labels."""
    centre = (canvas.width // 2, canvas.height + canvas.height // 20)
    canvas.ellipse(centre, canvas.width * 9 // 20, canvas.height // 8, colour, 0.0, VOID)
    canvas.ellipse(
        (centre[0], centre[1] + canvas.height // 30),
        canvas.width * 2 // 5,
        canvas.height // 9,
        (min(255, colour[0] + 24), min(255, colour[1] + 26), min(255, colour[2] + 30)),
        0.0,
        VOID,
    )


def _visibility(
    points: tuple[tuple[int, int], ...], ident: int, segments: Bytes
) -> tuple[tuple[float, float, int], ...]:
    """COCO's rule: 2 = seen, 1 = in the picture but hidden, and (0, 0, 0) = outside the picture."""
    height, width = segments.shape
    keypoints = []
    for across, down in points:
        x, y = across / OVERSAMPLING, down / OVERSAMPLING
        if not (0 <= x < width and 0 <= y < height):
            keypoints.append((0.0, 0.0, 0))
            continue
        near = segments[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2]
        keypoints.append((x, y, 2 if (near == ident).any() else 1))
    return tuple(keypoints)
