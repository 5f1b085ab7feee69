"""LabelMe's JSON files: shapes with their labels in pixels of an image, and flags of the whole.

The format is that of github.com/wkentaro/labelme, versions 3 to 5: `shapes`, each with `label`,
`points`, `shape_type` and `group_id`, and of a mask a PNG in base 64; `flags`; `imagePath`.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ssl_bench.data.faults import refuse
from ssl_bench.data.paths import inside
from ssl_bench.data.tree import SUFFIXES, head_of, is_hidden
from ssl_bench.errors import DataError, counted, plain

IGNORED, BACKGROUND = "__ignore__", "_background_"  # of labelme2voc's list of labels
# How many points a shape has; corners of a rectangle, and `rotation`, are X-AnyLabeling's.
TAKES = {"polygon": range(3, 10**6), "rectangle": (2, 4), "rotation": (4,), "circle": (2,),
         "mask": (2,)}  # fmt: skip
FLAT = {"line", "linestrip", "point", "points"}
Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """One that has an area: the first and last corner of its box in pixels, and what fills it."""

    name: str
    group: int | str | None
    low: Point
    high: Point
    kind: str
    points: Sequence[Point] = ()
    stencil: str = ""  # of a mask: a PNG in base 64, whose first pixel lies at `low`

    def paint(self, image: Image.Image, value: int) -> None:
        """With its outline, as labelme.utils.shape_to_mask draws it."""
        pen = ImageDraw.Draw(image)
        if self.kind == "mask":
            x, y = map(int, self.low)
            image.paste(value, (x, y), _decoded(self.stencil))
        elif self.kind in ("polygon", "rotation"):
            pen.polygon(self.points, fill=value, outline=value)
        elif self.kind == "circle":
            pen.ellipse((self.low, self.high), fill=value, outline=value)
        else:
            pen.rectangle((self.low, self.high), fill=value, outline=value)


@dataclass(frozen=True)
class Annotated:
    """An image and what its JSON file says of it."""

    file: Path
    source: Path
    shapes: tuple[Shape, ...]
    flags: tuple[str, ...]
    flat: int  # shapes without an area

    def names(self, by_flags: bool) -> list[str]:
        """The classes that are on it."""
        found = self.flags if by_flags else (shape.name for shape in self.shapes)
        return sorted({*found} - {IGNORED, BACKGROUND})


# ---- files
def annotations_below(folder: Path) -> list[Path]:
    """JSON files at any depth, sorted; which of them are LabelMe's their content says."""
    return sorted(path for path in folder.rglob("*.json") if not is_hidden(path.name))


def looks_like_labelme(path: Path) -> bool:
    """Whether a JSON file has LabelMe's list of shapes: it may hold megabytes of image, too."""
    return b'"shapes"' in head_of(path)


def read_annotation(path: Path, root: Path) -> list[Annotated]:
    """What one file says: nothing where it is not LabelMe's. Faults with all that is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): write it anew") from error
    if not (isinstance(content, dict) and isinstance(content.get("shapes"), list)):
        return []
    faults: list[str] = []
    shapes: list[Shape] = []
    flat = 0
    for place, one in enumerate(content["shapes"], 1):
        try:
            if isinstance(one, dict) and one.get("shape_type") in FLAT:
                flat += 1
            else:
                shapes.append(_shape(one))
        except (ValueError, TypeError, KeyError, OSError) as error:
            faults.append(f"shape {place} of {path}: {plain(error)[:100]}")
    refuse(faults, str(path))
    said = content.get("flags")
    said = said if isinstance(said, dict) else {}
    flags = tuple(plain(name) for name, is_set in said.items() if is_set)
    return [Annotated(_photo(path, content, root), path, tuple(shapes), flags, flat)]


def _photo(path: Path, content: Mapping[str, Any], root: Path) -> Path:
    """Its `imagePath`, else the image of the file's name beside it, as people rename and move."""
    said = content.get("imagePath")
    with suppress(DataError):  # it leads out of the folder: it is of another machine
        if isinstance(said, str) and (named := inside(path.parent, said, root)).is_file():
            return named
    beside = (path.with_name(path.stem + suffix) for suffix in SUFFIXES)
    found = next((file for file in beside if file.is_file()), None)
    if found is None:
        raise DataError(f"{path} is of {plain(said)[:80]}, which is not there: put it beside")
    return found


# ---- shapes
def _shape(one: Mapping[str, Any]) -> Shape:
    """ValueError says what a shape takes."""
    name = " ".join(str(one["label"]).split())
    points = np.array(one["points"], np.float64)
    kind = one.get("shape_type") or "polygon"
    group = one.get("group_id")
    if not name:
        raise ValueError("it has no label: give it one")
    if not isinstance(group, int | str | None):
        raise ValueError(f"the group_id {plain(group)[:40]} is no number")
    if points.ndim != 2 or points.shape[1:] != (2,) or not np.isfinite(points).all():
        raise ValueError("points are pairs of numbers")
    if kind not in TAKES or len(points) not in TAKES[kind]:
        raise ValueError(f"{plain(kind)[:40]} with {counted(len(points), 'point')} is no shape")
    low, high = points.min(0), points.max(0)
    if kind == "mask":  # its last pixel is the second point
        high = high + 1
    if kind == "circle":  # a centre, and a point of its edge
        radius = np.linalg.norm(points[1] - points[0])
        low, high = points[0] - radius, points[0] + radius
    stencil = one["mask"] if kind == "mask" else ""
    if stencil:
        _decoded(stencil)
    first, last, *corners = [(float(x), float(y)) for x, y in (low, high, *points)]
    return Shape(name, group, first, last, kind, corners, stencil)


def _decoded(stencil: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(stencil))).convert("1")
