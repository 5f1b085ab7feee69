"""`voc:PATH`: images with several labels each, from a year's folder in PASCAL VOC's layout.

PATH/JPEGImages/<image>.jpg
PATH/Annotations/<image>.xml              the image's objects: class, box, difficult, truncated
PATH/ImageSets/Main/<list>.txt            an image a line
PATH/ImageSets/Main/<class>_<list>.txt    an image and 1, −1 or 0 a line; compared, where present

`voc:PATH,name=NAME,train=LIST,test=LIST` gives the set a name of one's own and takes other lists
than the year's custom: trainval and test where there is a test.txt (VOC2007), else train and val
(VOC2012, whose test labels are not public).
"""

import hashlib
import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset, Split, SplitName
from ssl_bench.data.folder import load_image, stamp
from ssl_bench.errors import DataError, UsageError, unknown

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
# Our label of a class -> what VOC's own class files say for it (the devkit's manual): 1 an object
# that is not difficult, −1 no object, 0 difficult ones only.
OFFICIAL_LABEL = {1: "1", 0: "-1", -1: "0"}
# Names that readers take for the official splits: the lists to train and test on, and their sizes.
OFFICIAL = {
    "voc07": [("trainval", 5011), ("test", 4952)],
    "voc12": [("train", 5717), ("val", 5823)],
}
OPTIONS = ("name", "train", "test")
USE = "voc:PATH[,name=NAME][,train=LIST][,test=LIST]"
PLAIN = r"(\w[\w.-]{0,99})"  # no separator: a name cannot lead out of the folder


@dataclass(frozen=True)
class VOCObject:
    """One object of an annotation; `box` is xmin, ymin, xmax, ymax in pixels counted from 1."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


# ---- annotations


class _NoDoctype(ET.TreeBuilder):
    """Builds trees of documents without a DOCTYPE, so that there is no entity to expand."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a DOCTYPE, which no annotation needs")


def read_objects(path: Path) -> list[VOCObject]:
    """The objects of one image, in the file's order.

    Raises DataError for a file that cannot be read as XML or declares a DOCTYPE, whose `filename`
    is another image's, and for an object of no class of VOC's or without a box.
    """
    try:
        root = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_NoDoctype()))
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise DataError(
            f"{path} cannot be read as an annotation ({error}): unpack it anew from the archive"
        ) from error
    image, named = f"{path.stem}.jpg", root.findtext("filename", "").strip()
    if named != image:
        raise DataError(
            f"{path} has the filename {named[:100]!r} instead of {image}: put the image's own "
            "annotation there"
        )
    return [_object(path, element) for element in root.findall("object")]


def _object(path: Path, element: ET.Element) -> VOCObject:
    """Only children are looked at: a person's <part> has a name and a box, too."""
    name = element.findtext("name", "").strip()
    if name not in CLASSES:
        wrong = unknown("class", " ".join(name.split())[:40], CLASSES)
        raise DataError(f"{path} has an object of an {wrong}; correct it or take the object out")
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
    flags = (_flag(path, element, flag) for flag in ("difficult", "truncated"))
    return VOCObject(name, (x0, y0, x1, y1), *flags)


def _flag(path: Path, element: ET.Element, name: str) -> bool:
    """0 where it is left out, as in some objects of VOC2012."""
    text = element.findtext(name, "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"{path} has {name} {text[:40]!r} for an object: set it to 0 or 1")
    return text == "1"


def labels_of(objects: Iterable[VOCObject]) -> np.ndarray:
    """int8 (20,): 1 for a class that is there, −1 if its objects are all difficult, else 0."""
    labels = np.zeros(len(CLASSES), np.int8)
    for found in objects:
        place = CLASSES.index(found.name)
        if not found.difficult:
            labels[place] = 1
        elif not labels[place]:
            labels[place] = -1
    return labels


# ---- lists


def _rows(path: Path, pattern: str, what: str) -> dict[str, str]:
    """The first and last group of `pattern`, line by line; DataError where one is not `what`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # \r\n has become \n
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): unpack it anew") from error
    rows: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = re.fullmatch(pattern, line.strip())
        if not found:
            raise DataError(f"line {number} of {path} is {line[:60]!r}: a line takes {what}")
        if found[1] in rows:
            raise DataError(f"line {number} of {path} repeats {found[1]}: leave one of the two")
        rows[found[1]] = found[found.re.groups]
    return rows


def read_list(path: Path) -> list[str]:
    """The names of a list's images, without folder and suffix.

    Raises DataError for a line that is no plain name, for a name twice, and for none at all.
    """
    names = list(_rows(path, PLAIN, "an image's plain name"))
    if not names:
        raise DataError(f"{path} lists no images: unpack it anew, or name another list")
    return names


def list_names(folder: Path) -> list[str]:
    """The lists in a folder, without the class files that go with them."""
    found = {path.stem for path in folder.glob("*.txt")}
    # `train` is a class, too: train_val goes with val, and trainval with nothing.
    return sorted(found - {f"{name}_{other}" for name in CLASSES for other in found})


def _compare(names: Path, images: Sequence[str], labels: np.ndarray) -> None:
    """DataError where a class file beside the list `names` contradicts its labels (N, 20)."""
    for place, class_name in enumerate(CLASSES):
        path = names.with_name(f"{class_name}_{names.name}")
        if not path.is_file():
            continue
        remedy = f"mend the wrong one, or remove {path.name}"
        said = _rows(path, PLAIN + r"\s+(1|-1|0)", "an image's plain name and 1, -1 or 0")
        if only := sorted(said.keys() ^ set(images)):
            raise DataError(f"{path} and {names.name}: only one of them lists {only[0]}; {remedy}")
        for image, label in zip(images, labels[:, place].tolist(), strict=True):
            if said[image] != OFFICIAL_LABEL[label]:
                raise DataError(
                    f"{path} says {said[image]} for {image}, but its annotation says "
                    f"{OFFICIAL_LABEL[label]}: {remedy}"
                )


# ---- the dataset


class VOCSplit(Split):
    """The images of the list at `path`, with int8 labels (N, 20)."""

    def __init__(self, root: Path, path: Path) -> None:
        self.images = root / "JPEGImages"
        self.names = read_list(path)
        self.classes = CLASSES
        digest = hashlib.sha256(repr((str(root), CLASSES)).encode(errors="backslashreplace"))
        labels = []
        for image in self.names:
            annotation = root / "Annotations" / f"{image}.xml"
            stamps = _stamp(self.images / f"{image}.jpg", path), _stamp(annotation, path)
            digest.update(repr((image, stamps)).encode())
            labels.append(labels_of(read_objects(annotation)))
        self.fingerprint = digest.hexdigest()
        self.labels = np.stack(labels)
        _compare(path, self.names, self.labels)

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one file; see Split.load."""
        return load_image(self.images / f"{self.names[index]}.jpg", size, smallest)


def _stamp(path: Path, names: Path) -> tuple[int, int, int]:
    try:
        return stamp(path.stat())
    except OSError as error:
        # VOC2012's test images, where somebody added them, have no annotations.
        other = "a list" if path.suffix == ".jpg" else "annotated lists (train=train,test=val)"
        raise DataError(
            f"{path} is missing ({error.strerror}), though {names.name} lists {path.stem}: unpack "
            f"it, take it off the list, or name {other}"
        ) from error


class VOCDataset(Dataset):
    """One year of PASCAL VOC, or any folder laid out like it."""

    def __init__(self, argument: str) -> None:
        path, *items = re.split(r",(?=\w*=)", argument)  # a path may have commas
        options = dict(item.split("=", 1) for item in items)
        for key in options.keys() - set(OPTIONS):
            raise unknown("option of voc", key, OPTIONS)
        if not path:
            raise UsageError(f"a folder of PASCAL VOC is asked for as {USE}")
        self.root = _checked_root(path)
        self._folder = self.root / "ImageSets" / "Main"
        self._known = list_names(self._folder)
        usual = ("trainval", "test") if "test" in self._known else ("train", "val")
        self.lists: dict[SplitName, str] = {
            "train": options.get("train", usual[0]),
            "test": options.get("test", usual[1]),
        }
        for split in options.keys() & self.lists.keys():  # now, before a split is decoded
            self._path(options[split])
        # Other lists are other images, which a table must not take for the usual ones.
        pairs = zip(self.lists.items(), usual, strict=True)
        other = [f",{split}={chosen}" for (split, chosen), u in pairs if chosen != u]
        self.name = "".join([f"voc:{self.root.name}", *other])
        if "name" in options:
            self.name = self._checked_name(options["name"])

    def split(self, name: SplitName) -> Split:
        """The images of one list.

        Raises UsageError for a list that is not there; DataError for files that are missing or
        damaged, or contradict each other.
        """
        return VOCSplit(self.root, self._path(self.lists[name]))

    def _path(self, name: str) -> Path:
        """Where a list is; UsageError with the lists there are, if it is not one of them."""
        if name not in self._known:
            raise unknown(f"list of {self._folder}", name, self._known)
        return self._folder / f"{name}.txt"

    def _checked_name(self, name: str) -> str:
        """UsageError for a name that is not plain, or stands for other images than these."""
        if not re.fullmatch(PLAIN, name) or name in catalogue.names("data"):
            raise UsageError(
                f"'{name[:60]}' cannot be the name of a set: voc:PATH,name= takes letters, "
                "digits, '.', '_' and '-', and no other dataset's name"
            )
        official = OFFICIAL.get(name.lower())
        if official is None:
            return name
        there = [(name, len(read_list(self._path(name)))) for name in self.lists.values()]
        if there != official:
            raise UsageError(
                f"the name {name} is kept for the official {_counts(official)}, and this is "
                f"{_counts(there)}: take another, such as {name}-mini"
            )
        return name.lower()


def _checked_root(path: str) -> Path:
    root = Path(os.path.expandvars(path)).expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"{path} is not a folder: give an existing one, as {USE}")
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        if not (root / part).is_dir():
            raise DataError(
                f"{root} has no {part}/: give the folder of one year, such as VOCdevkit/VOC2007"
            )
    return root


def _counts(lists: Iterable[tuple[str, int]]) -> str:
    return " and ".join(f"{name} of {count:,} images" for name, count in lists)
