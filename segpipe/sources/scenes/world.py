"""What stands in one made-up street: a pure function of a random generator, in metres, before any pixel.

The camera looks along z (metres ahead), x is metres to the right, y metres above the ground. Everything upright stands
in the corridor between the house fronts, which is convex: painting houses first and the rest by depth is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from segpipe.sources.scenes.palette import CAR_COLOURS, CLOTHES, CROWNS, FACADES, HAIRS, SKIES, SKINS, Colour


@dataclass(frozen=True, kw_only=True, slots=True)
class Building:
    """Houses on one side (-1 left, 1 right), z0 to z1 metres ahead, their front `x` metres from the axis."""

    side: int
    z0: float
    z1: float
    x: float
    height: float
    colour: Colour
    glass: Colour
    roof: float
    floor: float
    bay: float
    shop: bool
    lit: int


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One upright object: car, person, tree, pole or sign. `number` is its segment id in every frame of a clip."""

    kind: str
    number: int
    x: float
    z: float
    width: float
    height: float
    colours: tuple[Colour, ...]
    style: int
    facing: int = 1
    speed_x: float = 0.0
    speed_z: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A street, its light and its camera. Lengths in metres, shares of the image height where said."""

    horizon: float
    turn: float
    shift: float
    speed: float
    sky: tuple[Colour, Colour, Colour]
    clouds: float
    haze: float
    sun_side: int
    shadow: float
    exposure: float
    contrast: float
    noise: int
    tint: tuple[float, float, float]
    half_road: float
    pavement: float
    asphalt: Colour
    paving: Colour
    marks: int
    bonnet: Colour | None
    buildings: tuple[Building, ...]
    things: tuple[Thing, ...]


def make_world(rng: np.random.Generator) -> World:
    """A random street. Only +, -, * and / of the generator's numbers: the same on every machine."""
    sky = SKIES[_pick(rng, (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5))]
    half_road, pavement = _between(rng, 2.7, 3.8), _between(rng, 1.8, 3.0)
    grey = int(rng.integers(70, 136))
    paving = int(rng.integers(105, 176))
    dusk = sky is SKIES[-1] or sky is SKIES[-2]
    return World(
        horizon=_between(rng, 0.40, 0.52),
        turn=_between(rng, -0.16, 0.16),
        shift=_between(rng, -1.1, 1.1),
        speed=_between(rng, 0.15, 0.55),
        sky=sky,
        clouds=_between(rng, 0.0, 0.8),
        haze=_between(rng, 60.0, 260.0),
        sun_side=1 if rng.random() < 0.5 else -1,
        shadow=_between(rng, 0.5, 0.85),
        exposure=_between(rng, 0.9, 1.15),
        contrast=_between(rng, -0.1, 0.4),
        noise=int(rng.integers(2, 7)),
        tint=(_between(rng, 0.93, 1.07), 1.0, _between(rng, 0.93, 1.07)),
        half_road=half_road,
        pavement=pavement,
        asphalt=(grey, grey + int(rng.integers(-3, 4)), grey + int(rng.integers(-2, 9))),
        paving=(paving, paving - int(rng.integers(0, 8)), paving - int(rng.integers(0, 18))),
        marks=int(rng.integers(0, 4)),
        bonnet=_pick(rng, CAR_COLOURS) if rng.random() < 0.3 else None,
        buildings=_buildings(rng, half_road + pavement, dusk),
        things=_things(rng, half_road, pavement),
    )


def _buildings(rng: np.random.Generator, front: float, dusk: bool) -> tuple[Building, ...]:
    """Two rows of houses with gaps. A row may start late or be low, so that the sky is seen."""
    houses = []
    for side in (-1, 1):
        z = _between(rng, 2.0, 9.0)
        low = rng.random() < 0.3
        while z < 75.0:
            depth = _between(rng, 7.0, 16.0)
            height = _between(rng, 3.2, 6.0) if low else _between(rng, 5.5, 15.0)
            houses.append(
                Building(
                    side=side,
                    z0=z,
                    z1=z + depth,
                    x=front + _between(rng, 0.0, 1.2),
                    height=height,
                    colour=_vary(rng, _pick(rng, FACADES), 16),
                    glass=_vary(rng, (62, 74, 88), 18),
                    roof=_between(rng, 0.8, 2.4) if rng.random() < 0.5 else 0.0,
                    floor=_between(rng, 2.6, 3.4),
                    bay=_between(rng, 2.0, 3.6),
                    shop=bool(rng.random() < 0.4),
                    lit=int(rng.integers(2, 5)) if dusk else 0,
                )
            )
            z += depth + (_between(rng, 3.0, 9.0) if rng.random() < 0.3 else 0.0)
    return tuple(houses)


def _things(rng: np.random.Generator, half_road: float, pavement: float) -> tuple[Thing, ...]:
    things = [*_cars(rng, half_road), *_people(rng, half_road, pavement), *_posts(rng, half_road, pavement)]
    return tuple(replace(thing, number=number) for number, thing in enumerate(things, start=1))


def _cars(rng: np.random.Generator, half_road: float) -> list[Thing]:
    cars: list[Thing] = []
    for _ in range(int(rng.integers(2, 6))):
        crossing = rng.random() < 0.16
        parked = rng.random() < 0.5
        side = 1 if rng.random() < 0.5 else -1
        x = side * (half_road - 1.1 if parked else half_road * 0.45)
        z = _between(rng, 9.0, 18.0) if crossing else _between(rng, 5.5, 26.0)
        x = _between(rng, -4.0, 4.0) if crossing else x + _between(rng, -0.2, 0.2)
        if any(abs(car.z - z) < 5.0 and abs(car.x - x) < 2.6 for car in cars):
            continue
        van = rng.random() < 0.2
        speed = 0.0 if parked or crossing else _between(rng, -0.5, 0.7) * side
        cars.append(
            Thing(
                kind="crossing_car" if crossing else "car",
                number=0,
                x=x,
                z=z,
                width=_between(rng, 4.0, 4.6) if crossing else _between(rng, 1.7, 2.0),
                height=_between(rng, 2.0, 2.4) if van else _between(rng, 1.4, 1.65),
                colours=(_vary(rng, _pick(rng, CAR_COLOURS), 14),),
                style=int(van) + 2 * int(rng.integers(0, 2)),
                facing=1 if rng.random() < 0.5 else -1,
                speed_x=_between(rng, 0.2, 0.5) * side if crossing else 0.0,
                speed_z=speed,
            )
        )
    return cars


def _people(rng: np.random.Generator, half_road: float, pavement: float) -> list[Thing]:
    people = []
    for _ in range(int(rng.integers(2, 5))):
        on_road = rng.random() < 0.3
        side = 1 if rng.random() < 0.5 else -1
        x = half_road * _between(rng, 0.0, 0.9) if on_road else half_road + pavement * _between(rng, 0.1, 0.7)
        people.append(
            Thing(
                kind="person",
                number=0,
                x=side * x,
                z=_between(rng, 4.0, 8.5) if on_road else x / _between(rng, 0.4, 0.6),
                width=_between(rng, 0.74, 0.92),
                height=_between(rng, 1.5, 1.92),
                colours=(
                    _vary(rng, _pick(rng, CLOTHES), 14),
                    _vary(rng, _pick(rng, CLOTHES), 14),
                    _pick(rng, SKINS),
                    _pick(rng, HAIRS),
                ),
                style=int(rng.integers(0, 16)),
                facing=1 if rng.random() < 0.5 else -1,
                speed_x=_between(rng, 0.05, 0.2) * side if on_road else 0.0,
                speed_z=0.0 if on_road else _between(rng, -0.2, 0.2),
            )
        )
    return people


def _posts(rng: np.random.Generator, half_road: float, pavement: float) -> list[Thing]:
    """Trees, lamp posts and signs stand on the pavement, next to the kerb."""
    posts = []
    for kind, slope in (("tree", (0.15, 0.5)), ("pole", (0.4, 0.56)), ("sign", (0.4, 0.54))):
        for _ in range(int(rng.integers(1, 3))):
            x = half_road + (pavement * 0.5 if kind == "tree" else _between(rng, 0.3, 0.9))
            side = 1 if rng.random() < 0.5 else -1
            height = {"tree": (4.0, 8.0), "pole": (4.5, 7.0), "sign": (2.5, 3.4)}[kind]
            grey = int(rng.integers(40, 76)) if rng.random() < 0.5 else int(rng.integers(170, 206))
            colour = _pick(rng, CROWNS) if kind == "tree" else (grey, grey, grey + 4)
            posts.append(
                Thing(
                    kind=kind,
                    number=0,
                    x=side * x,
                    z=x / _between(rng, *slope),  # so far off that it is inside the picture
                    width=_between(rng, 1.2, 1.7) if kind == "sign" else _between(rng, 0.4, 0.55),
                    height=_between(rng, *height),
                    colours=(_vary(rng, colour, 12),),
                    style=int(rng.integers(0, 64)),
                    facing=-side,
                )
            )
    return posts


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(0, len(choices)))]


def _vary(rng: np.random.Generator, colour: Colour, amount: int) -> Colour:
    red, green, blue = (min(255, max(0, part + int(rng.integers(-amount, amount + 1)))) for part in colour)
    return red, green, blue
