"""Paints what does not move: the ground with its markings, and the houses with their windows. Above canvas.py."""

from __future__ import annotations

from segpipe.sources.scenes.canvas import EYE_HEIGHT, NEAR, STUFF, Canvas
from segpipe.sources.scenes.palette import BUILDING, ROAD, Colour
from segpipe.sources.scenes.world import Building, World

FAR = 200.0
CHALK: Colour = (214, 214, 206)
LAMP_LIGHT: Colour = (246, 212, 130)


def paint_ground(canvas: Canvas, world: World, travelled: float) -> None:
    """Pavement to both sides, the road between its kerbs, and its markings; all of it is class road (ground)."""
    canvas.box(0, canvas.horizon, canvas.width, canvas.height, canvas.hazed(world.paving, 90.0), 0.0, STUFF + ROAD)
    wide = 40.0
    canvas.ground([(-wide, NEAR), (wide, NEAR), (wide, 30.0), (-wide, 30.0)], world.paving)
    half = world.half_road
    joint = tuple(part - 14 for part in world.paving)
    for number in range(14):  # slabs of the pavement, 1.6 m apart, anchored to the street
        z = 1.6 * number + 1.6 - travelled % 1.6
        if z > NEAR + 0.2:
            canvas.ground([(-wide, z), (wide, z), (wide, z + 0.07), (-wide, z + 0.07)], (joint[0], joint[1], joint[2]))
    for near, far in ((NEAR, 5.0), (5.0, 9.0), (9.0, 18.0), (18.0, FAR)):
        canvas.ground([(-half, near), (half, near), (half, far), (-half, far)], world.asphalt)
    kerb = tuple(min(255, part + 22) for part in world.paving)
    for side in (-1, 1):
        inner, outer = side * half, side * (half + 0.22)
        canvas.ground([(inner, NEAR), (outer, NEAR), (outer, 60.0), (inner, 60.0)], (kerb[0], kerb[1], kerb[2]))
    _markings(canvas, world, travelled)


def _markings(canvas: Canvas, world: World, travelled: float) -> None:
    half = world.half_road
    if world.marks in (1, 3):
        for number in range(12):
            z = 4.0 * number + 3.0 - travelled % 4.0
            if z > NEAR:
                canvas.ground([(-0.09, z), (0.09, z), (0.09, z + 1.9), (-0.09, z + 1.9)], CHALK)
    if world.marks == 2:
        for x in (-half + 0.35, -0.08, half - 0.35):
            canvas.ground([(x, NEAR), (x + 0.16, NEAR), (x + 0.16, 60.0), (x, 60.0)], CHALK)
    if world.marks == 3:
        z = 7.5 - travelled
        for number in range(int(half / 0.55)):
            x = -half + 0.3 + 1.1 * number
            if z > NEAR and x + 0.55 < half:
                canvas.ground([(x, z), (x + 0.55, z), (x + 0.55, z + 2.6), (x, z + 2.6)], CHALK)


def paint_houses(canvas: Canvas, world: World, travelled: float) -> None:
    """Both rows, from far to near, and their shadows on the ground."""
    canvas_skyline(canvas, world)
    for house in sorted(world.buildings, key=lambda house: -house.z0):
        z0, z1 = max(NEAR, house.z0 - travelled), house.z1 - travelled
        if z1 <= NEAR + 0.5:
            continue
        if house.side == world.sun_side:
            reach = house.x - house.height * 0.42
            corners = [(house.x, z0), (reach, z0 + 1.5), (reach, z1 + 1.5), (house.x, z1)]
            canvas.shadow([(house.side * x, z) for x, z in corners])
        _house(canvas, world, house, z0, z1)


def canvas_skyline(canvas: Canvas, world: World) -> None:
    """Roofs in the haze that close the far end of the street."""
    step = max(8, canvas.width // 14)
    for number, left in enumerate(range(0, canvas.width, step)):
        seed = (number * 37 + int(world.haze * 10)) % 23
        top = canvas.horizon - int((3 + seed) * canvas.pixel * 0.8)
        colour = (112 + seed, 110 + seed // 2, 112)
        canvas.box(left, top, left + step, canvas.horizon, colour, 110.0, STUFF + BUILDING)


def _house(canvas: Canvas, world: World, house: Building, z0: float, z1: float) -> None:
    ident = STUFF + BUILDING
    x, outer, top = house.side * house.x, house.side * (house.x + 10.0), house.height
    street_light = 0.74 if house.side == world.sun_side else 1.08
    for light, corners, depth in (
        (0.9, [(x, 0.0, z0), (x, top, z0), (outer, top, z0), (outer, 0.0, z0)], z0),
        (street_light, [(x, 0.0, z0), (x, top, z0), (x, top, z1), (x, 0.0, z1)], (z0 + z1) / 2),
    ):
        canvas.polygon([canvas.at(*corner) for corner in corners], lit(house.colour, light), depth, ident)
    if house.roof and top > EYE_HEIGHT:
        ridge = x + house.side * 3.0
        tiles = [(x, top, z0), (ridge, top + house.roof, z0), (ridge, top + house.roof, z1), (x, top, z1)]
        gable = [(x, top, z0), (ridge, top + house.roof, z0), (outer, top, z0)]
        roof: Colour = (116, 70, 60) if house.bay > 2.8 else (84, 84, 92)
        canvas.polygon([canvas.at(*corner) for corner in gable], lit(house.colour, 0.85), z0, ident)
        canvas.polygon([canvas.at(*corner) for corner in tiles], lit(roof, street_light), z0, ident)
    _windows(canvas, house, (x, z0), (x, z1), z1 - z0, street_light)
    _windows(canvas, house, (x, z0), (outer, z0), 10.0, 0.9)


def _windows(
    canvas: Canvas, house: Building, start: tuple[float, float], end: tuple[float, float], span: float, light: float
) -> None:
    """A grid of windows on the wall that stands between two points (x, z) of the ground."""
    bays, floors = max(1, int(span / house.bay)), max(1, int(house.height / house.floor))
    if canvas.length(house.floor, start[1], 0.0) < 7:
        return
    for bay in range(bays):
        low, high = (bay + 0.24) / bays, (bay + 0.76) / bays
        x0, z0 = start[0] + (end[0] - start[0]) * low, start[1] + (end[1] - start[1]) * low
        x1, z1 = start[0] + (end[0] - start[0]) * high, start[1] + (end[1] - start[1]) * high
        left, right = canvas.at(x0, 0.0, z0)[0], canvas.at(x1, 0.0, z1)[0]
        if abs(right - left) < 3 or max(left, right) < 0 or min(left, right) > canvas.width:
            continue
        for floor in range(floors):
            shop = house.shop and floor == 0
            sill = floor * house.floor + (0.3 if shop else 0.9)
            head = (floor + 1) * house.floor - (0.5 if shop else 0.6)
            glowing = house.lit and (bay * 7 + floor * 5 + int(house.height * 10)) % house.lit == 0
            colour = LAMP_LIGHT if glowing else lit(house.glass, light)
            corners = [(x0, sill, z0), (x0, head, z0), (x1, head, z1), (x1, sill, z1)]
            canvas.polygon([canvas.at(*corner) for corner in corners], colour, (z0 + z1) / 2)
            if abs(right - left) >= 8:
                ledge = [(x0, sill - 0.22, z0), (x0, sill, z0), (x1, sill, z1), (x1, sill - 0.22, z1)]
                canvas.polygon([canvas.at(*corner) for corner in ledge], lit(house.colour, light * 1.25), z0)


def lit(colour: Colour, factor: float) -> Colour:
    """A colour under more or less light."""
    red, green, blue = (min(255, int(part * factor)) for part in colour)
    return red, green, blue
