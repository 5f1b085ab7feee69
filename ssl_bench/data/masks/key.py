"""What the values of masks mean: a class list or a palette in a small file.

classes.txt, codes.txt     a name a line, of the indices 0, 1, …
label_colors.txt           three numbers and a name a line, as CamVid's
labelmap.txt               name:r,g,b:… a line, as CVAT's
class_dict.csv             name,r,g,b with titles
_classes.csv               Pixel Value, Class with titles, as Roboflow's: any list that numbers each
                           of its lines, such as `0: road`

A line called background is our 0, one called void (unlabelled, ignore) is not judged; without a
background every line is a class. 255 is void where no line says what it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.data.dataset import VOID
from ssl_bench.data.faults import refuse
from ssl_bench.data.images import exchanged, read_image
from ssl_bench.data.voc.masks import MOST, grey_of, read_indices
from ssl_bench.errors import DataError, counted, plain

FILES = ("classes.txt", "codes.txt", "label_colors.txt", "labelmap.txt", "class_dict.csv",
         "classes.csv", "_classes.csv")  # fmt: skip
BACKGROUND = {"background", "_background_", "__background__", "bg"}
UNJUDGED = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "unknown"}
REMEDY = "save masks as PNG: indices, or the colours of the class list"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Key:
    """Classes, and what they are in the files: by index or, where there are `colours`, by these.

    The numbers are ours: 0 background, 1 + class, 255 void.
    """

    classes: tuple[str, ...]
    indices: Mapping[int, int]
    colours: Mapping[Colour, int] | None = None

    def read(self, path: Path, height: int, width: int) -> np.ndarray:
        """uint8 (height, width) of a mask; DataError for another size, or a value without a class.

        With colours, palette files are read by their colours, else by their indices.
        """
        if self.colours is None:
            return self._looked_up(path, read_indices(path, height, width), self.indices)
        pixels, _ = read_image(path, lambda image: np.asarray(image.convert("RGB")), REMEDY)
        if pixels.shape[:2] != (height, width):
            found = f"{pixels.shape[1]}×{pixels.shape[0]}"
            hint = exchanged(pixels.shape[:2], (height, width))
            raise DataError(
                f"{path} is {found} px, but its image is {width}×{height}: {REMEDY}{hint}"
            )
        table = {_number(colour): value for colour, value in self.colours.items()}
        packed = pixels.astype(np.int64) @ (65536, 256, 1)  # a colour as one number
        return self._looked_up(path, packed, table)

    def _looked_up(self, path: Path, values: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
        found, places = np.unique(values, return_inverse=True)
        if unknown := [int(value) for value in found if int(value) not in table]:
            shown = ", ".join(map(self._shown, unknown[:3])) + (", …" if len(unknown) > 3 else "")
            raise DataError(f"{path} has {shown}, which the class list lacks: {REMEDY}")
        ours = np.array([table[int(value)] for value in found], np.uint8)
        return ours[places].reshape(values.shape)

    def _shown(self, value: int) -> str:
        if self.colours is None:
            return f"the index {value}"
        return f"the colour {value >> 16},{value >> 8 & 255},{value & 255}"

    def grouped(self, groups: Mapping[str, str], classes: tuple[str, ...]) -> "Key":
        """The same files read as fewer `classes`; names that are in no group are void."""
        ours = {VOID: VOID, 0: VOID}
        for place, name in enumerate(self.classes):
            group = groups.get(name.lower())
            ours[1 + place] = 1 + classes.index(group) if group else VOID
        colours = self.colours and {colour: ours[v] for colour, v in self.colours.items()}
        indices = {index: ours[value] for index, value in self.indices.items()}
        return replace(self, classes=classes, indices=indices, colours=colours)


def _number(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


# ---- from a file
def key_file(*folders: Path) -> Path | None:
    """The class list or palette of the first folder that has one."""
    return next((at / name for at in folders for name in FILES if (at / name).is_file()), None)


def read_key(path: Path) -> Key:
    """Raises Faults with all lines that cannot be used."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a class list ({error}): {REMEDY}") from error
    rows: list[tuple[str, Colour | None]] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#") and not (number == 1 and _is_title(line)):
            try:
                rows.append(_row(line))
            except ValueError as error:
                faults.append(f"line {number} of {path} is {plain(line)[:60]!r}: {error}")
    numbered = [re.fullmatch(r"(\d+)[\s,:;=]+(\S.*)", name) for name, _ in rows]
    indices = None
    if all(numbered) and not any(colour for _, colour in rows):
        indices = [int(line[1]) for line in numbered if line]
        rows = [(line[2], None) for line in numbered if line]
        if max(indices, default=0) > VOID or len({*indices}) < len(indices):
            faults.append(f"{path} numbers its lines: each takes its own index from 0 to {VOID}")
    faults += _twice(path, rows)
    if len({colour is None for _, colour in rows}) > 1 or not rows:
        faults.append(f"{path} has colours for some classes only: write one for each, or none")
    refuse(faults, str(path))
    return key_of(rows, path, indices)


def key_of(
    rows: list[tuple[str, Colour | None]], path: Path, indices: list[int] | None = None
) -> Key:
    """Of names, with or without colours, in the order of their indices, else of the `indices`."""
    names = [name for name, _ in rows]
    classes = tuple(n for n in names if n.lower() not in BACKGROUND | UNJUDGED)
    if len(classes) > MOST:
        raise DataError(f"{path} has {len(classes)} classes: a mask tells {MOST} apart at most")

    def ours(name: str) -> int:
        if name.lower() in BACKGROUND:
            return 0
        return VOID if name.lower() in UNJUDGED else 1 + classes.index(name)

    places = range(len(names)) if indices is None else indices
    own = {VOID: VOID} | {place: ours(name) for place, name in zip(places, names, strict=True)}
    colours = {colour: ours(name) for name, colour in rows if colour is not None}
    return Key(classes, own, colours or None)


def _is_title(line: str) -> bool:
    titles = r"\W*(name|class|label|pixel|index|value|id\b)[\w ]*\W*,.*"
    return bool(re.fullmatch(titles, line.strip(), re.IGNORECASE))


def _row(line: str) -> tuple[str, Colour | None]:
    """A name, and the colour that stands before or behind it."""
    line = line.strip()
    before = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)", line)
    behind = re.fullmatch(r"(.*\S)\s*[:,\t]\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*(:.*)?", line)
    if before:
        name, colour = before[4], before.groups()[:3]
    elif behind:
        name, colour = behind[1], behind.groups()[1:4]
    else:
        return " ".join(line.split()), None
    red, green, blue = map(int, colour)
    if max(red, green, blue) > 255:
        raise ValueError("a colour takes three numbers from 0 to 255")
    return " ".join(name.split()), (red, green, blue)


def _twice(path: Path, rows: list[tuple[str, Colour | None]]) -> list[str]:
    names = [name for name, _ in rows]
    colours = [colour for _, colour in rows if colour is not None]
    lines = [
        f"{path} has the class '{n}' twice" for n in dict.fromkeys(names) if names.count(n) > 1
    ]
    return lines + [
        f"{path} has the colour {colour} for two classes"
        for colour in dict.fromkeys(colours)
        if colours.count(colour) > 1
    ]


# ---- from the masks themselves
def key_of_masks(paths: list[Path], names: tuple[str, ...] = ()) -> tuple[Key, str]:
    """Of index masks without a class list: a class for each value that is there, and a note.

    0 is background and 255 void. Masks of nothing but 0 and one value, be it 255, are of one
    class, called `names`' own where it is given.
    """
    seen = set[int]()
    for path in paths:
        size, _ = read_image(path, _index_size, REMEDY)
        seen.update(np.unique(read_indices(path, *size)).tolist())
    values = sorted(seen - {0, VOID}) or sorted(seen - {0})
    indices = {0: 0, VOID: VOID} | {value: 1 + place for place, value in enumerate(values)}
    single = len(values) == 1
    classes = ("class 1",) if single else tuple(f"class {value}" for value in values)
    if single and values != [1]:
        said = f"{values[0]} in its masks is the class" + ", not void" * (values == [VOID])
    else:
        said = f"{counted(len(values), 'class')} by its masks, without names: {_naming(values)}"
    return Key(names if single and names else classes, indices), said


def _naming(values: list[int]) -> str:
    """How classes get names; values that are not 1, 2, … are grey levels, or have gaps."""
    if values == [*range(1, len(values) + 1)]:
        return "a classes.txt gives them"
    first = values[0]
    shown = ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
    return (
        f"they are {shown}; a classes.txt with a line for each index gives names, or a "
        f"label_colors.txt with lines as '{first} {first} {first} NAME'"
    )


def _index_size(image: Image.Image) -> tuple[int, int]:
    """Height and width; ValueError for colours, of which nothing says what they mean."""
    if image.mode.startswith(("RGB", "CMYK", "YCbCr")) and grey_of(image) is None:
        raise ValueError(f"colours, and none of {', '.join(FILES)} says what they mean")
    return image.height, image.width
