"""PASCAL VOC's files of text: annotations in XML, lists of images, class files.

A box in an annotation counts pixels from 1 and has both ends: xmin = 1, xmax = 10 are ten columns.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_bench.data.boxes import clipped
from ssl_bench.data.dataset import Objects
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.errors import DataError, unknown

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
# Our label of a class -> what VOC's own class files say for it (the devkit's manual): 1 an object
# that is not difficult, −1 no object, 0 difficult ones only.
OFFICIAL_LABEL = {1: "1", 0: "-1", -1: "0"}
PLAIN = r"(\w[\w.-]{0,99})"  # no separator: a name cannot lead out of the folder
CLASS_LINE = PLAIN + r"\s+(1|-1|0)"  # of a class file
LONGEST = 100  # letters of a class's name


@dataclass(frozen=True)
class VOCObject:
    """One object of an annotation; `box` is xmin, ymin, xmax, ymax in pixels counted from 1."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


# ---- annotations
class _NoDoctype(ET.TreeBuilder):
    """Builds trees of documents without a DOCTYPE, so that there is no entity to expand."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a DOCTYPE, which no annotation needs")


def _elements(path: Path) -> list[ET.Element]:
    """The objects of an annotation. DataError for one that cannot be read, or of another image."""
    try:
        root = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_NoDoctype()))
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise DataError(
            f"{path} cannot be read as an annotation ({error}): unpack it anew from the archive"
        ) from error
    named = root.findtext("filename", "").strip()
    if Path(named).stem != path.stem:  # whatever the suffix: tools write .png for a .jpg
        raise DataError(
            f"{path} has the filename {named[:100]!r} instead of {path.stem}.jpg: put the image's "
            "own annotation there"
        )
    return root.findall("object")


def _name(element: ET.Element) -> str:
    """Only children are looked at: a person's <part> has a name and a box, too."""
    return " ".join(element.findtext("name", "").split())


def count_names(paths: Iterable[Path]) -> Counter[str]:
    """How many objects of each name there are in those of the annotations that can be read."""
    found = Counter[str]()
    for path in paths:
        with suppress(DataError):  # said when its image is read
            found.update(map(_name, _elements(path)))
    return Counter({name: n for name, n in found.items() if 0 < len(name) <= LONGEST})


def read_objects(path: Path, classes: Sequence[str] = CLASSES) -> list[VOCObject]:
    """The objects of one image, in the file's order.

    Raises DataError for a file that cannot be read as XML or declares a DOCTYPE, whose `filename`
    is another image's, and, with a line for each, for objects of no class or without a box.
    """
    found: list[VOCObject] = []
    faults: list[str] = []
    for element in _elements(path):
        with collecting_faults(faults):
            found.append(_object(path, element, classes))
    refuse(faults, str(path))
    return found


def _object(path: Path, element: ET.Element, classes: Sequence[str]) -> VOCObject:
    name = _name(element)
    if name not in classes:
        wrong = unknown("class", name[:40], classes)
        raise DataError(
            f"{path} has an object of an {wrong}; correct it, take the object out, or name all "
            "classes in voc:PATH,classes=A,B,…"
        )
    edges = [element.findtext(f"bndbox/{edge}", "") for edge in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = map(float, edges)
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (-math.inf < x0 <= x1 < math.inf and -math.inf < y0 <= y1 < math.inf):
        shown = ", ".join(edges)[:100]
        raise DataError(
            f"{path} has a {name} with the box {shown!r}: it takes numbers for xmin, ymin, xmax, "
            "ymax, none below its opposite"
        )
    return VOCObject(name, (x0, y0, x1, y1), _is_difficult(path, element))


def _is_difficult(path: Path, element: ET.Element) -> bool:
    """0 where it is left out, as in some objects of VOC2012."""
    text = element.findtext("difficult", "").strip() or "0"
    if text not in ("0", "1"):
        raise DataError(f"{path} has difficult {text[:40]!r} for an object: set it to 0 or 1")
    return text == "1"


def labels_of(objects: Iterable[VOCObject], classes: Sequence[str] = CLASSES) -> np.ndarray:
    """int8 (C,): 1 for a class that is there, −1 if its objects are all difficult, else 0."""
    labels = np.zeros(len(classes), np.int8)
    for found in objects:
        place = classes.index(found.name)
        if not found.difficult:
            labels[place] = 1  # for good: one that is not difficult is enough
        elif not labels[place]:
            labels[place] = -1
    return labels


def boxes_of(
    path: Path,
    found: Sequence[VOCObject],
    height: int,
    width: int,
    classes: Sequence[str] = CLASSES,
) -> Objects:
    """The objects of the annotation at `path` in pixels of an image of height × width.

    From VOC's counting from 1 with both ends to counting from 0 with the end exclusive:
    x0 = xmin − 1, x1 = xmax. What ends outside the image by up to a pixel is clipped. Raises
    DataError, with a line for each, for boxes farther out and for what clipping leaves empty.
    """
    # Pixels 1 … 10 are ten columns, 0 … 10 with the end exclusive: only the first corner moves.
    boxes = np.array([one.box for one in found], np.float64).reshape(-1, 4) - (1, 1, 0, 0)
    inside, wrong = clipped(boxes, width, height)
    faults = [
        f"{path} has a {one.name} with the box {', '.join(f'{edge:g}' for edge in one.box)}, which "
        f"lies outside its image of {width}×{height} px: correct it, or put the image's own "
        "annotation there"
        for one, is_wrong in zip(found, wrong, strict=True)
        if is_wrong
    ]
    refuse(faults, str(path))
    labels = [classes.index(one.name) for one in found]
    return Objects.of(inside, labels, [one.difficult for one in found])


# ---- lists
def _rows(path: Path, pattern: str, what: str) -> dict[str, str]:
    """The first and last group of `pattern`, line by line; DataError where one is not `what`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # \r\n has become \n
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): unpack it anew") from error
    rows: dict[str, str] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(pattern, line.strip())
        if found and found[1] not in rows:
            rows[found[1]] = found[found.re.groups]
        elif found:
            faults.append(f"line {number} of {path} repeats {found[1]}: leave one of the two")
        elif line.strip():
            faults.append(f"line {number} of {path} is {line[:60]!r}: a line takes {what}")
    refuse(faults, str(path))
    return rows


def read_list(path: Path) -> list[str]:
    """The names of a list's images, without folder and suffix.

    Raises DataError for lines that are no plain name, for names twice, and for none at all.
    """
    names = list(_rows(path, PLAIN, "an image's plain name"))
    if not names:
        raise DataError(f"{path} lists no images: unpack it anew, or name another list")
    return names


def list_names(folder: Path) -> list[str]:
    """The lists in a folder, without the class files that go with them."""
    found = {path.stem for path in folder.glob("*.txt")}
    # `train` is a class, too: train_val goes with val, and trainval with nothing.
    found -= {f"{name}_{other}" for name in CLASSES for other in found}
    maybe = {name for name in found if any(name.endswith(f"_{other}") for other in found)}
    return sorted(found - {name for name in maybe if _is_class_file(folder / f"{name}.txt")})


def _is_class_file(path: Path) -> bool:
    """Whether it goes with a list: of a class that is none of VOC's, only its lines can tell."""
    try:
        first = path.read_text(encoding="utf-8-sig").lstrip().partition("\n")[0]
    except (OSError, ValueError):
        return False
    return re.fullmatch(CLASS_LINE, first.strip()) is not None


def compare(
    names: Path, images: Sequence[str], labels: np.ndarray, classes: Sequence[str] = CLASSES
) -> None:
    """DataError where class files beside the list `names` contradict its labels (N, C)."""
    faults: list[str] = []
    for place, class_name in enumerate(classes):
        if "/" in class_name:  # no file can be called so, and no name leads out of the folder
            continue
        path = names.with_name(f"{class_name}_{names.name}")
        if path.is_file():
            with collecting_faults(faults):
                _compare(path, names, dict(zip(images, labels[:, place].tolist(), strict=True)))
    refuse(faults, f"the class files of {names}")


def _compare(path: Path, names: Path, labels: dict[str, int]) -> None:
    remedy = f"mend the wrong one, or remove {path.name}"
    said = _rows(path, CLASS_LINE, "an image's plain name and 1, -1 or 0")
    if only := sorted(said.keys() ^ labels.keys()):
        raise DataError(f"{path} and {names.name}: only one of them lists {only[0]}; {remedy}")
    faults = [
        f"{path} says {said[image]} for {image}, but its annotation says {OFFICIAL_LABEL[label]}: "
        f"{remedy}"
        for image, label in labels.items()
        if said[image] != OFFICIAL_LABEL[label]
    ]
    refuse(faults, str(path))
