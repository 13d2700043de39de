"""Paints what stands in the street: cars, people with their keypoints, trees, poles, signs. Above canvas.py."""

from __future__ import annotations

from collections.abc import Callable

from segpipe.sources.scenes.canvas import STUFF, Canvas, Point
from segpipe.sources.scenes.houses import lit
from segpipe.sources.scenes.palette import POLE, TREE, Colour
from segpipe.sources.scenes.world import Thing

KEYPOINT_NAMES = ("head", "left_hand", "right_hand", "left_foot", "right_foot")
GLASS: Colour = (44, 54, 64)
TYRE: Colour = (26, 26, 28)
CAR_LENGTH = 4.2  # metres


def paint_thing(canvas: Canvas, thing: Thing, x: float, z: float) -> tuple[Point, ...]:
    """Paints `thing` with its foot at (x, z) metres; a person's five keypoints in double-size pixels, else ()."""
    painters: dict[str, Callable[[Canvas, Thing, float, float], None]] = {
        "car": _car,
        "crossing_car": _crossing_car,
        "tree": _tree,
        "pole": _lamp_post,
        "sign": _sign,
    }
    away = -canvas.world.sun_side * thing.height * 0.7
    half = thing.width / 2
    canvas.shadow([(x - half, z), (x + half, z), (x + half + away, z + 0.8), (x - half + away, z + 0.8)])
    if thing.kind == "person":
        return _person(canvas, thing, x, z)
    painters[thing.kind](canvas, thing, x, z)
    return ()


def _car(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    """Seen from behind or from the front: one face, and the side that looks towards the camera's axis."""
    ident, body, height, half = thing.number, thing.colours[0], thing.height, thing.width / 2
    van = thing.style & 1
    belt, inset = (height * 0.58, 0.06) if van else (height * 0.56, 0.2)
    canvas.shadow([(x - half, z - 0.2), (x + half, z - 0.2), (x + half, z + CAR_LENGTH), (x - half, z + CAR_LENGTH)])
    side = x - half if x - half > canvas.world.shift else x + half if x + half < canvas.world.shift else None
    if side is not None:
        roof_x = side + (inset if side < x else -inset)
        back, front = (0.1, CAR_LENGTH - 0.3) if van else (0.5, CAR_LENGTH - 1.2)

        def plane(*corners: tuple[float, float, float]) -> list[Point]:
            return [canvas.at(across, up, z + ahead) for across, up, ahead in corners]

        lower = plane((side, 0.16, 0), (side, belt, 0), (side, belt, CAR_LENGTH), (side, 0.16, CAR_LENGTH))
        canvas.polygon(lower, lit(body, 0.78), z, ident)
        cabin = plane((side, belt, 0), (roof_x, height, back), (roof_x, height, front), (side, belt, CAR_LENGTH - 0.7))
        canvas.polygon(cabin, lit(body, 0.7), z, ident)
        low, high = belt + 0.04, height - 0.12
        panes = plane((side, low, 0.4), (roof_x, high, back + 0.2), (roof_x, high, front - 0.2), (side, low, 3.2))
        canvas.polygon(panes, GLASS, z, ident)
        for ahead in (0.45, CAR_LENGTH - 1.2):
            wheel = plane(
                (side, 0.0, ahead), (side, 0.56, ahead), (side, 0.56, ahead + 0.66), (side, 0.0, ahead + 0.66)
            )
            canvas.polygon(wheel, TYRE, z, ident)
    _car_face(canvas, thing, x, z, belt, inset)


def _car_face(canvas: Canvas, thing: Thing, x: float, z: float, belt: float, inset: float) -> None:
    ident, body, height, half = thing.number, thing.colours[0], thing.height, thing.width / 2

    def flat(*corners: tuple[float, float]) -> list[Point]:
        return [canvas.at(x + across, up, z) for across, up in corners]

    for side in (-1, 1):
        outer, inner = side * half, side * (half - 0.26)
        canvas.polygon(flat((outer, 0.0), (outer, 0.4), (inner, 0.4), (inner, 0.0)), TYRE, z, ident)
    canvas.polygon(flat((-half, 0.2), (-half, belt), (half, belt), (half, 0.2)), body, z, ident)
    roof = half - inset
    canvas.polygon(flat((-half, belt), (-roof, height), (roof, height), (half, belt)), lit(body, 0.94), z, ident)
    pane = flat(
        (-half + 0.16, belt + 0.03), (-roof + 0.1, height - 0.1), (roof - 0.1, height - 0.1), (half - 0.16, belt)
    )
    canvas.polygon(pane, GLASS if thing.facing < 0 else (70, 84, 96), z)
    canvas.polygon(flat((-half, 0.2), (-half, 0.36), (half, 0.36), (half, 0.2)), lit(body, 0.55), z)
    lamp: Colour = (196, 32, 28) if thing.facing < 0 else (250, 244, 214)
    for side in (-1, 1):
        outer, inner = side * (half - 0.04), side * (half - 0.36)
        lamps = flat((outer, belt - 0.3), (outer, belt - 0.08), (inner, belt - 0.08), (inner, belt - 0.3))
        canvas.polygon(lamps, lamp, z)
    canvas.polygon(flat((-0.26, 0.4), (-0.26, 0.54), (0.26, 0.54), (0.26, 0.4)), (226, 224, 208), z)


def _crossing_car(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    """Seen from its side, on a road that crosses."""
    ident, body, height = thing.number, thing.colours[0], thing.height
    half, facing, van = thing.width / 2, thing.facing, thing.style & 1
    belt = height * 0.56
    canvas.shadow([(x - half, z - 0.4), (x + half, z - 0.4), (x + half, z + 1.4), (x - half, z + 1.4)])

    def flat(*corners: tuple[float, float]) -> list[Point]:
        return [canvas.at(x + facing * across, up, z) for across, up in corners]

    canvas.polygon(
        flat((-half, 0.28), (-half, belt), (half * 0.8, belt), (half, belt - 0.22), (half, 0.28)), body, z, ident
    )
    nose = half * (0.86 if van else 0.5)
    top = flat((-half * 0.96, belt), (-half * (0.94 if van else 0.6), height), (nose * 0.62, height), (nose, belt))
    canvas.polygon(top, lit(body, 0.95), z, ident)
    for left, right in ((-0.72, -0.12), (-0.04, 0.34)):
        pane = flat((half * left, belt), (half * left * 0.82, height - 0.12), (half * right * 0.8, height - 0.12))
        canvas.polygon([*pane, *flat((half * right, belt))], GLASS, z)
    canvas.polygon(
        flat((half - 0.2, belt - 0.3), (half, belt - 0.3), (half, belt - 0.5), (half - 0.2, belt - 0.5)),
        (250, 240, 200),
        z,
    )
    radius = canvas.length(0.36, z)
    for across in (-0.62, 0.62):
        hub = canvas.at(x + half * across, 0.36, z)
        canvas.ellipse(hub, radius, radius, TYRE, z, ident)
        canvas.ellipse(hub, radius // 2, radius // 2, (150, 150, 152), z, None)


def _person(canvas: Canvas, thing: Thing, x: float, z: float) -> tuple[Point, ...]:
    coat, trousers, skin, hair = thing.colours
    ident, height, half, style = thing.number, thing.height, thing.width / 2, thing.style
    stride, swing = (0.07, 0.16, 0.26, 0.2)[style & 3], (0.05, 0.12, 0.2, -0.02)[style & 3]

    def at(across: float, up: float) -> Point:
        return canvas.at(x + across, up * height, z)

    thick = canvas.length(0.24, z, 2.5)
    hands = [at(side * (half * 0.92 + swing * (0.4 if side > 0 else 1.0)), 0.47) for side in (-1, 1)]
    feet = [at(side * (0.1 + stride), 0.02) for side in (-1, 1)]
    for side, foot in zip((-1, 1), feet, strict=True):
        knee = at(side * (0.09 + stride * 0.6), 0.27)
        canvas.limb([at(side * 0.1, 0.52), knee, foot], thick, lit(trousers, 1.0 if side > 0 else 0.85), z, ident)
        canvas.ellipse(foot, max(2, thick * 2 // 3), max(1, thick // 3), (40, 34, 32), z, ident)
    hem = 0.36 if style & 4 else 0.47
    torso = [at(-half * 0.72, 0.83), at(half * 0.72, 0.83), at(half * 0.6, hem), at(-half * 0.6, hem)]
    canvas.polygon(torso, coat, z, ident)
    for side, hand in zip((-1, 1), hands, strict=True):
        elbow = at(side * half * 0.95, 0.63)
        canvas.limb([at(side * half * 0.66, 0.8), elbow, hand], max(3, thick * 3 // 4), lit(coat, 0.86), z, ident)
        canvas.ellipse(hand, max(2, thick // 3), max(2, thick // 3), skin, z, ident)
    if style & 8:
        corners = [at(-half * 0.4, 0.79), at(half * 0.4, 0.79), at(half * 0.4, 0.55), at(-half * 0.4, 0.55)]
        canvas.polygon(corners, lit(trousers, 1.3) if thing.facing < 0 else lit(coat, 1.25), z)
    head, radius = at(0.0, 0.92), canvas.length(0.15, z, 1.8)
    canvas.polygon([at(-0.06, 0.82), at(0.06, 0.82), at(0.06, 0.9), at(-0.06, 0.9)], skin, z, ident)
    canvas.ellipse(head, radius, radius * 6 // 5, hair, z, ident)
    if thing.facing > 0:
        canvas.ellipse((head[0], head[1] + radius // 4), radius * 3 // 4, radius * 9 // 10, skin, z, ident)
    left, right = (1, 0) if thing.facing > 0 else (0, 1)  # who looks at us has the left hand on our right
    return head, hands[left], hands[right], feet[left], feet[right]


def _tree(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    ident, height, leaf = STUFF + TREE, thing.height, thing.colours[0]
    trunk = canvas.length(thing.width / 2, z, 2.0)
    foot, fork = canvas.at(x, 0.0, z), canvas.at(x, height * 0.6, z)
    bark: Colour = (84, 64, 48)
    canvas.polygon(
        [
            (foot[0] - trunk, foot[1]),
            (fork[0] - trunk // 2, fork[1]),
            (fork[0] + trunk // 2, fork[1]),
            (foot[0] + trunk, foot[1]),
        ],
        bark,
        z,
        ident,
    )
    state = thing.style * 2654435761 + 12345
    clumps = []
    for _ in range(34):
        state = (state * 1103515245 + 12345) % 2**31
        clumps.append(((state >> 4) % 201 / 100 - 1, (state >> 12) % 201 / 100 - 1, (state >> 20) % 101 / 100))
    crown = canvas.length(height * 0.17, z, 3.0)
    for across, up, grain in clumps[:10]:
        centre = canvas.at(x + across * height * 0.19, height * (0.7 + up * 0.14), z)
        light = 0.72 + 0.22 * up + 0.12 * across * canvas.world.sun_side + 0.2 * grain
        canvas.ellipse(centre, crown, crown * 9 // 10, lit(leaf, light), z, ident)
    for across, up, grain in clumps[10:]:
        centre = canvas.at(x + across * height * 0.25, height * (0.71 + up * 0.19), z)
        small = max(2, int(crown * (0.16 + 0.22 * grain)))
        canvas.ellipse(centre, small, small, lit(leaf, 0.66 + 0.3 * up + 0.5 * grain), z, ident)


def _lamp_post(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    ident, grey = STUFF + POLE, thing.colours[0]
    half = canvas.length(thing.width, z, 4.0) // 2
    (foot_x, foot_y), top = canvas.at(x, 0.0, z), canvas.at(x, thing.height, z)
    arm = canvas.at(x + thing.facing * 1.3, thing.height + 0.12, z)
    canvas.limb([top, arm], half * 2, lit(grey, 0.9), z, ident)
    canvas.ellipse((arm[0], arm[1] + half // 2), half * 2, half * 3 // 2, (232, 222, 190), z, ident)
    canvas.box(foot_x - half, top[1], foot_x + half, foot_y, grey, z, ident)
    canvas.box(foot_x + half // 3, top[1], foot_x + half, foot_y, lit(grey, 0.7), z, None)
    base = canvas.at(x, 0.5, z)[1]
    canvas.box(foot_x - half * 3 // 2, base, foot_x + half * 3 // 2, foot_y, lit(grey, 0.8), z, ident)


def _sign(canvas: Canvas, thing: Thing, x: float, z: float) -> None:
    """A pole with a plate: ring, disc, triangle, diamond, boards, octagon, or a traffic light."""
    half = canvas.length(0.36, z, 4.0) // 2
    (foot_x, foot_y), (_, top_y) = canvas.at(x, 0.0, z), canvas.at(x, thing.height, z)
    canvas.box(foot_x - half, top_y, foot_x + half, foot_y, thing.colours[0], z, STUFF + POLE)
    radius = canvas.length(thing.width / 2, z, 5.0)
    cx, cy, ident, kind = foot_x, top_y, thing.number, thing.style % 8
    white, red, blue = (236, 236, 232), (198, 30, 34), (34, 74, 160)
    board: Colour = ((24, 104, 70), blue, white, (226, 190, 40))[thing.style // 8 % 4]
    if kind in (0, 1):
        canvas.ellipse((cx, cy), radius, radius, red if kind == 0 else blue, z, ident)
        canvas.ellipse((cx, cy), radius * 2 // 3, radius * 2 // 3, white if kind == 0 else lit(blue, 1.2), z, None)
    elif kind == 2:
        for share, colour, label in ((1.0, red, ident), (0.62, white, None)):
            size = int(radius * share)
            canvas.polygon(
                [(cx - size, cy + size * 4 // 5), (cx, cy - size), (cx + size, cy + size * 4 // 5)], colour, z, label
            )
    elif kind == 3:
        for share, colour, label in ((1.0, white, ident), (0.78, (232, 186, 30), None)):
            size = int(radius * share)
            canvas.polygon([(cx - size, cy), (cx, cy - size), (cx + size, cy), (cx, cy + size)], colour, z, label)
    elif kind in (4, 5):
        wide = radius * 5 // 4
        canvas.box(cx - wide, cy - radius * 3 // 4, cx + wide, cy + radius * 3 // 4, board, z, ident)
    elif kind == 6:
        cut = radius * 2 // 5
        rim = [(cx - radius, cy - cut), (cx - cut, cy - radius), (cx + cut, cy - radius), (cx + radius, cy - cut)]
        canvas.polygon([*rim, *((2 * cx - px, 2 * cy - py) for px, py in rim)], red, z, ident)
    else:
        canvas.box(cx - radius * 3 // 5, cy - radius, cx + radius * 3 // 5, cy + radius, (34, 36, 38), z, ident)
        colours: tuple[Colour, ...] = ((230, 50, 40), (240, 180, 40), (60, 210, 110))
        for place, colour in enumerate(colours):
            glow = lit(colour, 1.0 if place == thing.style // 8 % 3 else 0.35)
            canvas.ellipse((cx, cy + (place - 1) * radius * 3 // 5), radius // 4, radius // 4, glow, z, None)
        return
    bar = radius // 6
    canvas.box(
        cx - radius // 2, cy - bar, cx + radius // 2, cy + bar, white if kind in (1, 4, 6) else (50, 50, 54), z, None
    )
