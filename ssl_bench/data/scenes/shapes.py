"""Shapes: the ten classes of `scenes` as compositions of convex polygons and discs.

A class is its parts and their layout; what is drawn at random here are proportions only. All
coordinates are the object's own, within about [-1, 1]², y down.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_bench.stream import Stream

SLOTS = 4  # colours in the palette of one object


class Part(NamedTuple):
    """A convex polygon or a disc; both are given by points, so one affine map moves either.

    A polygon (`hole` is None) lists its vertices. A disc lists its centre and the tips of its two
    half-axes; `hole` is the share of the radius that is left open (-1: none).
    """

    slot: int  # which palette colour, 0 .. SLOTS - 1
    points: np.ndarray  # (k, 2) float64
    hole: float | None = None


def rotation(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([(c, -s), (s, c)])


def moved(part: Part, matrix: np.ndarray, shift: np.ndarray) -> Part:
    """`part` under the affine map p -> matrix @ p + shift."""
    return part._replace(points=part.points @ matrix.T + shift)


def extent(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner of the bounding box, each (2,), in scene coordinates."""
    if part.hole is None:
        return part.points.min(axis=0), part.points.max(axis=0)
    radius = np.hypot(*(part.points[1:] - part.points[0]))
    return part.points[0] - radius, part.points[0] + radius


def linear(rows: Sequence[tuple[float, float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """a * x + b * y + c for each row (a, b, c): x (w,), y (h,) -> (len(rows), h, w) float32."""
    a, b, c = np.array(rows, np.float32).T[:, :, None]
    return (a * x)[:, None, :] + (b * y + c)[:, :, None]


def distance(part: Part, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the edge, negative inside: x (w,), y (h,) -> (h, w) float32.

    Exact along the edges of a polygon, and to first order along the edge of a disc: all that
    anti-aliasing needs.
    """
    points = part.points.tolist()
    if part.hole is None:
        ends = points[1:] + points[:1]
        edges = [(p[0], p[1], q[0] - p[0], q[1] - p[1]) for p, q in zip(points, ends, strict=True)]
        winding = math.copysign(1, sum(px * ey - py * ex for px, py, ex, ey in edges))
        rows = []
        for px, py, ex, ey in edges:
            scale = winding / math.hypot(ex, ey)
            rows.append((ey * scale, -ex * scale, (py * ex - px * ey) * scale))
        return linear(rows, x, y).max(axis=0)
    (cx, cy), (ax, ay), (bx, by) = points
    ax, ay, bx, by = ax - cx, ay - cy, bx - cx, by - cy
    det = ax * by - ay * bx  # the inverse of [a b] takes the disc to the unit circle
    rows = [
        (by / det, -bx / det, (bx * cy - by * cx) / det),
        (-ay / det, ax / det, (ay * cx - ax * cy) / det),
    ]
    u, v = linear(rows, x, y)
    radius = np.sqrt(u * u + v * v)
    edge = radius - 1 if part.hole < 0 else np.maximum(radius - 1, part.hole - radius)
    return edge * np.float32(math.sqrt(abs(det)))


def poly(slot: int, *points: tuple[float, float]) -> Part:
    return Part(slot, np.array(points))


def box(slot: int, x0: float, y0: float, x1: float, y1: float) -> Part:
    return poly(slot, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def disc(
    slot: int, x: float, y: float, rx: float, ry: float, turn: float = 0.0, hole: float = -1.0
) -> Part:
    c, s = math.cos(turn), math.sin(turn)
    return Part(slot, np.array([(x, y), (x + rx * c, y + rx * s), (x - ry * s, y + ry * c)]), hole)


# The ten classes. Each draws its own proportions and returns its parts back to front, within
# about [-1, 1]^2. Neighbouring parts overlap a little: two anti-aliased edges that only touch
# would let the background shine through.
def house(rng: Stream) -> list[Part]:
    w, eave, door = rng.uniform((0.6, -0.2, -0.15), (0.8, 0.05, 0.15))
    return [
        box(2, 0.3, -0.9, 0.55, -0.1),
        box(0, -w, eave, w, 0.9),
        poly(1, (-w - 0.22, eave + 0.06), (0, -0.95), (w + 0.22, eave + 0.06)),
        box(2, door - 0.14, 0.35, door + 0.14, 0.9),
        box(3, -w + 0.1, 0.2, door - 0.24, 0.5),
        box(3, door + 0.24, 0.2, w - 0.1, 0.5),
    ]


def tree(rng: Stream) -> list[Part]:
    w, trunk, taper = rng.uniform((0.75, 0.12, 0.55), (0.95, 0.2, 0.75))
    tiers = int(rng.integers(3, 5))
    parts = [box(1, -trunk, 0.4, trunk, 0.98)]
    for i in range(tiers):  # lowest and widest first
        low, half = 0.55 - 1.1 * i / tiers, w * (1 - (1 - taper) * i * 3 / tiers / 2)
        parts.append(poly(2 * (i % 2), (-half, low), (0, low - 0.95), (half, low)))
    return parts


def boat(rng: Stream) -> list[Part]:
    deck, keel, main, jib = rng.uniform((0.25, 0.5, 0.7, 0.6), (0.4, 0.7, 0.95, 0.85))
    return [
        box(3, -0.07, -1, 0.05, deck + 0.1),
        poly(1, (0.1, -0.92), (main, deck - 0.1), (0.1, deck - 0.1)),
        poly(2, (-0.12, -0.7), (-0.12, deck - 0.1), (-jib, deck - 0.1)),
        poly(0, (-0.98, deck), (0.98, deck), (keel, 0.9), (-keel, 0.9)),
        poly(3, (-0.98, deck), (0.98, deck), (0.86, deck + 0.14), (-0.86, deck + 0.14)),
    ]


def mug(rng: Stream) -> list[Part]:
    top, foot, low, band = rng.uniform((0.55, 0.45, 0.2, 0.2), (0.65, 0.6, 0.35, 0.4))
    return [
        disc(1, 0.45, 0.05, 0.52, 0.5, hole=0.58),
        poly(0, (-top - 0.25, -0.75), (top - 0.25, -0.75), (foot - 0.25, 0.9), (-foot - 0.25, 0.9)),
        box(3, -foot - 0.25, low, foot - 0.25, low + band),
        disc(1, -0.25, -0.75, top, 0.17),
        disc(2, -0.25, -0.75, top - 0.12, 0.09),
    ]


def key(rng: Stream) -> list[Part]:
    bow, shaft, bit = rng.uniform((0.6, 0.17, 0.32), (0.7, 0.22, 0.42))
    parts = [box(1, -0.3, -shaft, 1.2, shaft), disc(0, -0.6, 0, bow, bow, hole=0.42)]
    for x in np.linspace(1.07, 0.45, int(rng.integers(2, 4))):
        parts.append(box(2, x - 0.12, 0, x + 0.12, shaft + bit))
    # Laid along the diagonal, so that its box is no longer and flatter than the other classes'.
    return [moved(part, rotation(math.tau / 8), np.zeros(2)) for part in parts]


def fish(rng: Stream) -> list[Part]:
    fat, tail, fin, eye = rng.uniform((0.5, 0.55, 0.75, 0.09), (0.65, 0.75, 0.95, 0.13))
    return [
        poly(1, (0.3, 0.05), (1, -tail), (0.82, 0.05)),
        poly(1, (0.3, -0.05), (0.82, -0.05), (1, tail)),
        poly(2, (-0.5, -0.3), (0.3, -fin), (0.35, -0.2)),
        poly(2, (-0.3, 0.3), (0.25, fin), (0.3, 0.2)),
        disc(0, -0.2, 0, 0.78, fat),
        disc(3, -0.12, 0, 0.1, fat * 0.75),
        disc(3, -0.62, -0.14, eye, eye),
    ]


def car(rng: Stream) -> list[Part]:
    top, wheel, front, rear = rng.uniform((-0.8, 0.26, 0.2, -0.65), (-0.6, 0.34, 0.4, -0.45))
    sill = top + 0.13
    return [
        poly(0, (rear - 0.3, 0), (rear, top), (front, top), (front + 0.35, 0)),
        poly(2, (rear - 0.1, -0.08), (rear + 0.08, sill), (-0.16, sill), (-0.16, -0.08)),
        poly(2, (0, -0.08), (0, sill), (front - 0.05, sill), (front + 0.18, -0.08)),
        box(0, -1, -0.08, 1, 0.45),
        box(1, -1, 0.18, 1, 0.3),
        disc(3, -0.55, 0.45, wheel, wheel),
        disc(3, 0.55, 0.45, wheel, wheel),
        disc(1, -0.55, 0.45, wheel / 2, wheel / 2),
        disc(1, 0.55, 0.45, wheel / 2, wheel / 2),
    ]


def flower(rng: Stream) -> list[Part]:
    reach, width, heart, start = rng.uniform((0.36, 0.2, 0.18, 0), (0.42, 0.26, 0.25, 1))
    petals = int(rng.integers(5, 8))
    parts = [
        box(1, -0.07, -0.2, 0.07, 1),
        disc(1, 0.34, 0.68, 0.36, 0.15, turn=-0.6),
        disc(1, -0.34, 0.74, 0.36, 0.15, turn=0.6),
    ]
    for turn in math.tau * (start + np.arange(petals)) / petals:
        x, y = 0.42 * math.cos(turn), 0.42 * math.sin(turn) - 0.28
        parts.append(disc(0, x, y, reach, width, turn=turn))
    return [*parts, disc(2, 0, -0.28, heart, heart)]


def mushroom(rng: Stream) -> list[Part]:
    tall, stem, foot, spot = rng.uniform((0.85, 0.2, 0.3, 0.12), (1.05, 0.3, 0.45, 0.18))
    arc = np.linspace(math.tau / 2, math.tau, 12)
    dome = np.stack([0.95 * np.cos(arc), 0.1 + tall * np.sin(arc)], axis=1)
    return [
        Part(0, dome),
        disc(3, 0, 0.1, 0.95, 0.17),
        poly(1, (-stem, 0.1), (stem, 0.1), (foot, 0.95), (-foot, 0.95)),
        disc(2, -0.5, -0.2, spot, spot),
        disc(2, 0.05, -0.45, spot, spot),
        disc(2, 0.52, -0.22, spot, spot),
    ]


def butterfly(rng: Stream) -> list[Part]:
    upper, lower, tilt, spot = rng.uniform((0.5, 0.36, 0.5, 0.1), (0.6, 0.46, 0.8, 0.16))
    parts = []
    for side in (-1, 1):
        parts += [
            disc(1, side * 0.4, 0.45, lower, 0.28, turn=side * 0.8),
            disc(0, side * 0.5, -0.35, upper, 0.36, turn=-side * tilt),
            disc(2, side * 0.6, -0.42, spot, spot),
            disc(2, side * 0.46, 0.52, spot * 0.8, spot * 0.8),
            poly(3, (0, -0.5), (side * 0.28, -1), (side * 0.36, -0.95)),
        ]
    return [*parts, disc(3, 0, 0, 0.12, 0.72)]


# Class -> (drawing, width factor, height factor). The factors even out mean area and box shape,
# which would otherwise give the class away: a key of a house's width covers half as much.
SHAPES: dict[str, tuple[Callable[[Stream], list[Part]], float, float]] = {
    "house": (house, 0.93, 0.87),
    "tree": (tree, 1.17, 0.96),
    "boat": (boat, 1.02, 0.98),
    "mug": (mug, 0.91, 0.91),
    "key": (key, 0.96, 0.96),
    "fish": (fish, 0.92, 1.1),
    "car": (car, 0.87, 1.05),
    "flower": (flower, 1.08, 0.95),
    "mushroom": (mushroom, 0.95, 0.95),
    "butterfly": (butterfly, 0.93, 0.95),
}
CLASSES: tuple[str, ...] = tuple(SHAPES)
