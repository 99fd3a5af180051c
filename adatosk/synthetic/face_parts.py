"""The parts of a drawn face as moving polygons and lines.

Geometry lives in face coordinates: x to the viewer's right, y down, the top of the skull at y = -1, the chin at y = 1.
A part is computed for all T frames at once, so a coordinate is a plain number or an array ``(T,)``.
"""

from dataclasses import dataclass

import numpy as np

from adatosk.synthetic.action_units import UNITS
from adatosk.synthetic.people import Identity, Motion, Scene

_SIDES = (-1, 1)
_DARK_MOUTH = np.array([70.0, 18, 24])
_TEETH = np.array([250.0, 248, 240])
_CHEEK_RED = np.array([225.0, 95, 85])
_LIP_RED = np.array([170.0, 50, 60])


@dataclass(frozen=True)
class Shape:
    """A filled polygon, or an open line of a positive ``width``, in T frames.

    Attributes:
        points: ``(T, N, 2)`` in face coordinates.
        colour: ``(T, 3)``, RGB in [0, 255].
        width: of a line, in face coordinates; 0 fills.
        shown: bool ``(T,)``, whether it is drawn at all.
    """

    points: np.ndarray
    colour: np.ndarray
    width: float
    shown: np.ndarray


def sketch_face(identity: Identity, motion: Motion, scene: Scene) -> list[Shape]:
    """All shapes of a face in a clip, back to front."""
    return _Sketch(identity, motion, scene).shapes


class _Sketch:
    """Collects the shapes of one clip. ``self.au[12]`` is the intensity ``(T,)`` of action unit 12."""

    def __init__(self, identity: Identity, motion: Motion, scene: Scene):
        self.identity, self.motion, self.scene = identity, motion, scene
        self.frames = len(motion.pose)
        self.au = dict(zip(UNITS, motion.action_units.T, strict=True))
        self.skin, self.hair = np.array(identity.skin), np.array(identity.hair)
        self.shapes: list[Shape] = []
        self._hair_back()
        self._body()
        self._head()
        self._forehead()
        self._hair_front()
        self._cheeks()
        self._nose()
        for side in _SIDES:
            self._eye(side)
            self._brow(side)
        if identity.glasses:
            self._glasses()
        self._mouth()

    def _at(self, point) -> np.ndarray:
        """(x, y), each a number or ``(T,)``, as ``(T, 1, 2)``."""
        out = np.empty((self.frames, 1, 2))
        out[:, 0, 0], out[:, 0, 1] = point
        return out

    def _curve(self, start, middle, end, count: int = 9) -> np.ndarray:
        """The parabola through three points, ``(T, count, 2)``."""
        start, middle, end = self._at(start), self._at(middle), self._at(end)
        t = np.linspace(0, 1, count)[:, None]
        control = 2 * middle - (start + end) / 2
        return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end

    def _ellipse(self, centre, radius_x, radius_y, count: int = 16) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        return self._at(centre) + np.stack([np.cos(angle), np.sin(angle)], -1) * self._at((radius_x, radius_y))

    def _add(self, points, colour, width: float = 0.0, shown=True) -> None:
        points = np.asarray(points, float)
        points = np.broadcast_to(points, (self.frames, *points.shape[-2:]))
        colour = np.broadcast_to(np.clip(colour, 0, 255), (self.frames, 3))
        self.shapes.append(Shape(points, colour, width, np.broadcast_to(shown, self.frames)))

    def _band(self, one, other, colour, shown=True) -> None:
        """The area between two curves that run the same way."""
        self._add(np.concatenate([one, other[:, ::-1]], 1), colour, shown=shown)

    def _wrinkle(self, points, strength, width: float = 0.032) -> None:
        """A line in the skin, darker with ``strength (T,)`` in [0, 1]."""
        colour = self.skin * (1 - strength[:, None] * [0.38, 0.46, 0.48])
        self._add(points, colour, width, strength > 0.06)

    def _outline(self, scale: float = 1.0, start: float = 0.0, stop: float = 2.0, count: int = 40) -> np.ndarray:
        """The face's contour from angle ``start`` to ``stop`` (in π, 0.5 is the chin); a dropped jaw pulls it down."""
        i = self.identity
        angle = np.pi * np.linspace(start, stop, count)
        y = np.sin(angle)
        x = i.face_width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** np.where(y > 0, 0.85, 1.0)
        x = x * (1 - i.jaw_taper * y.clip(0) ** 1.5)
        drop = 0.15 * self.au[26] + 0.05 * self.motion.talk - 0.03 * self.au[17]
        y = y + drop[:, None] * ((y - 0.3) / 0.7).clip(0, 1)
        return np.stack([np.broadcast_to(x, y.shape), y], -1) * scale

    def _hair_back(self) -> None:
        i = self.identity
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        y = np.sin(angle) * np.where(np.sin(angle) > 0, 1.3 * max(i.hair_length, 0), i.hair_volume)
        x = np.cos(angle) * (i.face_width * i.hair_volume + 0.06)
        self._add(np.stack([x, y - 0.05], -1), self.hair * 0.75)

    def _body(self) -> None:
        self._add([(-1.8, 2.6), (-1.35, 1.4), (-0.5, 1.2), (0.5, 1.2), (1.35, 1.4), (1.8, 2.6)], self.identity.shirt)
        self._add([(-0.38, 0.6), (0.38, 0.6), (0.44, 1.25), (0, 1.5), (-0.44, 1.25)], self.skin * 0.76)

    def _head(self) -> None:
        light = np.array([np.cos(self.scene.light_direction), np.sin(self.scene.light_direction)])
        for side in _SIDES:
            self._add(self._ellipse((side * self.identity.face_width, 0.02), 0.1, 0.17), self.skin * 0.86)
        self._add(self._outline(), self.skin * (0.9 - 0.25 * self.scene.light_strength))
        self._add(self._outline(0.955) + 0.04 * light, self.skin)
        if self.identity.beard:
            jaw = self._outline(0.97, 0.03, 0.97, 17)
            inner = self._curve(
                (0.9 * self.identity.face_width, 0.1), (0, 0.62), (-0.9 * self.identity.face_width, 0.1), 17
            )
            self._band(jaw, inner, 0.55 * self.skin + 0.45 * self.hair)

    def _forehead(self) -> None:
        """Lines across the forehead: AU 1 folds its middle, AU 2 its sides."""
        for y in (self.identity.brow_y - 0.3, self.identity.brow_y - 0.38):
            for side in _SIDES:
                middle = self._curve((0, y), (side * 0.1, y), (side * 0.2, y + 0.02), 5)
                outside = self._curve((side * 0.2, y + 0.02), (side * 0.33, y), (side * 0.45, y + 0.04), 5)
                self._wrinkle(middle, 0.7 * self.au[1])
                self._wrinkle(outside, 0.7 * self.au[2])

    def _hair_front(self) -> None:
        i = self.identity
        angle = np.linspace(1.04, 1.96, 18) * np.pi
        width = i.face_width * i.hair_volume + 0.03
        outer = np.stack([width * np.cos(angle), i.hair_volume * np.sin(angle) - 0.02], -1)
        x = np.linspace(1, -1, 17)
        # The hair opens at the parting and falls to the temples.
        hairline = i.hairline + 0.55 * np.abs(x) ** 3 - 0.12 * np.exp(-(((x - i.parting) / 0.3) ** 2))
        inner = np.stack([x * i.face_width * 0.97, hairline], -1)
        self._add(np.concatenate([outer, inner]), self.hair)

    def _cheeks(self) -> None:
        i, au = self.identity, self.au
        for side in _SIDES:
            redness = 0.16 + 0.2 * au[6] + 0.1 * au[12]
            blush = self.skin + redness[:, None] * (_CHEEK_RED - self.skin)
            centre = (side * (i.eye_x + 0.12), 0.3 - 0.09 * au[6] - 0.03 * au[12])
            self._add(self._ellipse(centre, 0.15 + 0.03 * au[6], 0.1 + 0.035 * au[6]), blush)
            # The fold from the nose's wing to outside the mouth's corner.
            wing = side * (i.nose_width + 0.04), i.nose_y - 0.05 - 0.06 * au[9]
            end = side * (i.mouth_width + 0.13), i.mouth_y - 0.02 - 0.07 * au[12]
            bow = (wing[0] + end[0]) / 2 + side * 0.05, (wing[1] + end[1]) / 2 - 0.03
            self._wrinkle(self._curve(wing, bow, end), 0.85 * np.maximum(au[12], au[10]))

    def _nose(self) -> None:
        i, au = self.identity, self.au
        tip = i.nose_y - 0.07 * au[9] - 0.02 * au[10]
        width = i.nose_width * (1 + 0.3 * au[9])
        self._add(self._ellipse((0, tip - 0.05), width * 0.85, 0.09), self.skin * 0.93)
        self._add(self._curve((0.05, i.eye_y), (0.06, 0.05), (width * 0.6, tip - 0.06), 7), self.skin * 0.86, 0.03)
        for side in _SIDES:
            wing = self._curve(
                (side * width * 0.8, tip - 0.1), (side * width, tip - 0.03), (side * width * 0.6, tip + 0.02)
            )
            self._add(wing, self.skin * 0.76, 0.035)
            self._add(self._ellipse((side * width * 0.4, tip + 0.01), 0.035, 0.022, 8), self.skin * 0.45)
            for row in range(3):
                y = i.eye_y - 0.02 + 0.08 * row
                self._wrinkle(self._curve((0, y), (side * 0.07, y - 0.01), (side * 0.14, y + 0.06), 5), au[9], 0.034)

    def _eye(self, side: int) -> None:
        """The eyeball first, then the lids over it: they hide what lies outside the opening."""
        i, au, blink = self.identity, self.au, self.motion.blink
        x = side * i.eye_x
        low = i.eye_height * (0.85 - 0.5 * au[7] - 0.45 * au[6] - 0.12 * au[9]).clip(0.15)
        high = i.eye_height * (1.05 + 0.9 * au[5] - 0.45 * au[7] - 0.25 * au[6] - 0.12 * au[9]).clip(0.25)
        high = high * (1 - blink) - 0.9 * low * blink
        inner = x - side * i.eye_width, i.eye_y + 0.01
        outer = x + side * i.eye_width, i.eye_y - i.eye_tilt
        upper = self._curve(inner, (x, i.eye_y - high), outer)
        lower = self._curve(inner, (x, i.eye_y + low), outer)
        self._band(upper, lower, (248, 248, 246))
        for radius, colour in ((0.95, i.iris), (0.48, (16, 12, 12))):
            self._add(self._ellipse((x, i.eye_y), radius * i.eye_height, radius * i.eye_height, 14), colour)
        self._add(self._ellipse((x + 0.035, i.eye_y - 0.035), 0.026, 0.026, 8), (255, 255, 255))
        roof = self._curve(inner, (x, i.eye_y - 2.2 * i.eye_height), outer)
        floor = self._curve(inner, (x, i.eye_y + 1.4 * i.eye_height), outer)
        self._band(upper, roof, self.skin * 0.9)
        self._band(lower, floor, self.skin * (0.97 - 0.08 * np.maximum(au[6], au[7])[:, None]))
        self._add(lower, self.skin * 0.6, 0.02)
        self._add(upper, self.skin * 0.2, 0.05)
        self._eye_wrinkles(side, inner, outer, low)

    def _eye_wrinkles(self, side: int, inner, outer, low) -> None:
        i, au = self.identity, self.au
        bag = self._curve(inner, (side * i.eye_x, i.eye_y + low + 0.075), outer)[:, 1:-1] + [0, 0.03]
        self._wrinkle(bag, np.maximum(au[6], 0.6 * au[7]), 0.028)
        foot = outer[0] + side * 0.03, outer[1] + 0.02
        for rise in (-0.03, 0.02, 0.07):
            tip = foot[0] + side * 0.08, foot[1] + rise
            self._wrinkle(np.concatenate([self._at(foot), self._at(tip)], 1), 0.7 * au[6], 0.02)

    def _brow(self, side: int) -> None:
        i, au = self.identity, self.au
        # Beside AU 1 or 2 the brow lowerer draws the brows together rather than down (FACS 1+4, 1+2+4).
        lowered = au[4] * (1 - 0.85 * np.maximum(au[1], au[2]))
        inner = (
            side * (i.eye_x - 0.2 - 0.06 * au[4]),
            i.brow_y + 0.02 - 0.2 * au[1] + 0.2 * lowered + 0.09 * au[9],
        )
        arch = i.brow_y - i.brow_arch - 0.07 * au[1] - 0.15 * au[2] + 0.13 * lowered + 0.06 * au[9]
        outer = (
            side * (i.eye_x + 0.22),
            i.brow_y + 0.03 - 0.17 * au[2] + 0.03 * lowered + 0.06 * au[1] * (1 - au[2]),
        )
        line = self._curve(inner, (side * i.eye_x, arch), outer)
        half = i.brow_thickness * np.linspace(1.0, 0.4, line.shape[1])[:, None] * [0, 1]
        # At most half as bright as the skin: people with grey hair and dark skin keep their brows.
        self._band(line - half, line + half, np.minimum(self.hair * 0.7, self.skin * 0.5))
        top = i.brow_y
        furrow = self._curve((side * 0.05, top - 0.04), (side * 0.035, top + 0.06), (side * 0.06, top + 0.16), 5)
        self._wrinkle(furrow, au[4])

    def _glasses(self) -> None:
        i = self.identity
        for side in _SIDES:
            rim = self._ellipse((side * i.eye_x, i.eye_y + 0.02), i.eye_width + 0.08, 0.22, 20)
            self._add(np.concatenate([rim, rim[:, :1]], 1), (40, 36, 40), 0.03)
        self._add([(-0.08, i.eye_y), (0.08, i.eye_y)], (40, 36, 40), 0.03)

    def _lip_line(self, width, corner, middle, power) -> np.ndarray:
        """A lip's edge from corner to corner ``(T, 15, 2)``; the larger ``power``, the squarer."""
        x = np.linspace(-1, 1, 15)
        y = corner[:, None] + (middle - corner)[:, None] * (1 - np.abs(x) ** power[:, None])
        return np.stack([width[:, None] * x, y], -1)

    def _mouth(self) -> None:
        i, au, talk = self.identity, self.au, self.motion.talk
        gap = 0.12 * au[25] + 0.36 * au[26] + 0.14 * talk + 0.12 * au[10]
        wider = 0.3 * au[12] + 0.35 * au[20] - 0.28 * au[23] - 0.22 * au[26] - 0.12 * talk - 0.08 * au[17]
        corner = i.mouth_y - 0.15 * au[12] + 0.14 * au[15] + 0.3 * gap
        top = i.mouth_y + 0.05 * au[12] - 0.3 * gap - 0.06 * au[10] - 0.05 * au[17] - 0.03 * au[15] - 0.03 * au[20]
        power = 2 + 1.5 * np.maximum.reduce([au[10], au[20], 0.5 * au[26]])
        width = i.mouth_width * (1 + wider)
        upper = self._lip_line(width, corner, top, power)
        lower = self._lip_line(width, corner, top + gap, power)
        full = i.lip * (1 - 0.65 * au[23] - 0.3 * au[20] - 0.25 * au[12])
        swell = np.cos(np.linspace(-1, 1, 15) * np.pi / 2)
        notch = 1 - 0.25 * np.exp(-(np.linspace(-4, 4, 15) ** 2))  # the bow of the upper lip
        above = upper - (full + 0.3 * i.lip * au[10])[:, None, None] * (swell * notch)[:, None] * [0, 1]
        below = lower + 1.25 * (full + 0.35 * i.lip * au[17])[:, None, None] * swell[:, None] * [0, 1]
        lip = 0.55 * self.skin + 0.45 * _LIP_RED
        self._band(upper, lower, _DARK_MOUTH)
        self._inside(upper, lower, gap)
        self._band(above, upper, lip * 0.88)
        self._band(lower, below, lip)
        self._add(upper, (80, 26, 30), 0.03)
        self._chin(below[:, 7, 1])

    def _inside(self, upper, lower, gap) -> None:
        """Upper teeth and tongue, seen through the open mouth."""
        seen = (gap / 0.1).clip(0, 1)[:, None]
        teeth = upper + np.minimum(0.75, 0.09 / gap.clip(0.01))[:, None, None] * (lower - upper)
        self._band(upper[:, 1:-1], teeth[:, 1:-1], _DARK_MOUTH + seen * (_TEETH - _DARK_MOUTH), gap > 0.03)
        tongue = lower + 0.35 * (upper - lower)
        self._band(lower[:, 3:-3], tongue[:, 3:-3], (196, 84, 92), gap > 0.16)

    def _chin(self, lip_end) -> None:
        """The crease and the dimples below a lower lip that ends at ``lip_end (T,)``."""
        raised = self.au[17]
        y = lip_end + 0.08
        self._wrinkle(self._curve((-0.12, y), (0, y - 0.03 - 0.05 * raised), (0.12, y), 7), 0.25 + 0.75 * raised)
        colour = self.skin * (1 - 0.35 * raised[:, None])
        for x, drop in ((-0.1, 0.09), (0.0, 0.07), (0.1, 0.09), (-0.05, 0.14), (0.05, 0.14)):
            self._add(self._ellipse((x, y + drop), 0.022, 0.022, 6), colour, shown=raised > 0.1)
