"""The picture while it is painted: colours and ids at twice the final size, and shadows on the ground.

Every shape goes to the colours and to the ids at once, so labels cannot drift from pixels. Coordinates are whole
numbers of the double-size grid, so that every machine fills the same pixels. Below houses.py and things.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from segpipe.sources.scenes.palette import ROAD, Colour
from segpipe.sources.scenes.world import World

OVERSAMPLING = 2
EYE_HEIGHT = 1.5  # metres
STUFF = 240  # a stuff region's segment id is STUFF + class id; things have 1, 2, ...
VOID = 255
NEAR = 1.2  # metres; nothing is painted nearer to the camera

Point = tuple[int, int]


class Canvas:
    """Paints in perspective: a point x metres right, y up and z ahead lands at `at(x, y, z)`."""

    def __init__(self, world: World, height: int, width: int) -> None:
        self.world = world
        self.height, self.width = height * OVERSAMPLING, width * OVERSAMPLING
        self.image = Image.new("RGB", (self.width, self.height))
        self.ids = Image.new("L", (self.width, self.height), STUFF)
        self.shadows = Image.new("L", (width // 2, height // 2), 255)
        self._colours = ImageDraw.Draw(self.image)
        self._labels = ImageDraw.Draw(self.ids)
        self._shade = ImageDraw.Draw(self.shadows)
        self.focal = 1.15 * self.height
        self.centre = int(self.width * (0.5 + world.turn))
        self.horizon = int(self.height * world.horizon)
        self.pixel = self.height / 256.0  # one final pixel of a 128 pixels high picture

    def at(self, x: float, y: float, z: float) -> Point:
        """The place of a point in double-size pixels, kept within what Pillow's integers hold."""
        scale = self.focal / max(z, NEAR)
        across = self.centre + scale * (x - self.world.shift)
        down = self.horizon - scale * (y - EYE_HEIGHT)
        return int(max(-30000.0, min(30000.0, across))), int(max(-30000.0, min(30000.0, down)))

    def length(self, metres: float, z: float, at_least: float = 1.0) -> int:
        """Metres at depth z in double-size pixels, not below `at_least` pixels of a 128 pixels high picture (x 2)."""
        return int(max(self.focal / max(z, NEAR) * metres, at_least * 2 * self.pixel))

    def hazed(self, colour: Colour, z: float) -> Colour:
        """What is left of a colour behind z metres of air."""
        share = z / (z + self.world.haze)
        red, green, blue = (
            int(part + (air - part) * share) for part, air in zip(colour, self.world.sky[1], strict=True)
        )
        return red, green, blue

    def polygon(self, points: Sequence[Point], colour: Colour, z: float, ident: int | None = None) -> None:
        """Fills a polygon; without `ident` it is a detail on what is there already."""
        self._colours.polygon(points, fill=self.hazed(colour, z))
        if ident is not None:
            self._labels.polygon(points, fill=ident)

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour, z: float, ident: int | None) -> None:
        """Fills a rectangle, corners included."""
        corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        self._colours.rectangle(corners, fill=self.hazed(colour, z))
        if ident is not None:
            self._labels.rectangle(corners, fill=ident)

    def ellipse(self, centre: Point, across: int, down: int, colour: Colour, z: float, ident: int | None) -> None:
        """Fills an ellipse with half axes `across` and `down`."""
        corners = (centre[0] - across, centre[1] - down, centre[0] + across, centre[1] + down)
        self._colours.ellipse(corners, fill=self.hazed(colour, z))
        if ident is not None:
            self._labels.ellipse(corners, fill=ident)

    def limb(self, points: Sequence[Point], thickness: int, colour: Colour, z: float, ident: int) -> None:
        """A thick line with round joints."""
        self._colours.line(points, fill=self.hazed(colour, z), width=thickness, joint="curve")
        self._labels.line(points, fill=ident, width=thickness, joint="curve")

    def ground(self, corners: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fills a shape that lies on the ground; corners are (x, z) in metres."""
        depth = sum(z for _, z in corners) / len(corners)
        self.polygon([self.at(x, 0.0, z) for x, z in corners], colour, depth, STUFF + ROAD)

    def shadow(self, corners: Sequence[tuple[float, float]]) -> None:
        """Darkens the ground within corners (x, z) in metres; soft, and only where the ground stays visible."""
        points = [self.at(x, 0.0, z) for x, z in corners]
        self._shade.polygon([(x // 4, y // 4) for x, y in points], fill=int(255 * self.world.shadow))
