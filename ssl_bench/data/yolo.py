"""`yolo:PATH`: boxes in YOLO's text files, as Ultralytics, Darknet and label tools write them.

PATH/data.yaml                      names: and, if the folders have other names, train:, val:, test:
PATH/classes.txt                    or the names alone, a line each (also obj.names)
PATH/images/train/…, PATH/labels/train/…       the labels of images/…/a.jpg are labels/…/a.txt,
PATH/train/images/…, PATH/train/labels/…       or a.txt beside the image
PATH/images/…, PATH/labels/…        as  yolo:PATH,test=0.25   a test set is drawn

A line of a label file is class, centre x, centre y, width and height, in shares of the image, or a
class and a polygon's points, of which the box is taken. Where data.yaml has `kpt_shape`, key points
stand behind the box, and are not read. An image without a file, or with an empty one, has no
objects.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssl_bench.data.boxes import clipped
from ssl_bench.data.dataset import Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.images import read_image, upright_size
from ssl_bench.data.labelled import checked_draw, no_test, targets, with_test
from ssl_bench.data.layout import IMAGES, split_of
from ssl_bench.data.paths import asked_folder, inside
from ssl_bench.data.tree import LeftOut, folders_in, images_below
from ssl_bench.errors import DataError, plain

USE = "yolo:PATH[,test=SHARE][,seed=NUMBER]"
NAMES = ("classes.txt", "obj.names", "labels/classes.txt", "predefined_classes.txt")
KEYS: dict[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid"),
                                          "test": ("test",)}  # fmt: skip
Rows = list[tuple[int, np.ndarray]]  # class, and x0, y0, x1, y1 in shares of the image


class YoloSplit(ImageFiles):
    """Images with their label files; turned upright as EXIF says, as the tools show them."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        classes: tuple[str, ...],
        notes: Sequence[str],
        pose: bool = False,
    ) -> None:
        """Raises Faults with all lines of the label files that cannot be used."""
        truth = [label_file(file) for file in files]
        faults: list[str] = []
        self.rows: list[Rows] = []
        for path in truth:
            with collecting_faults(faults):
                self.rows.append(read_labels(path, classes, pose))
        refuse(faults, str(root))
        names = [{classes[label] for label, _ in rows} for rows in self.rows]
        labels = targets([sorted(each) for each in names], classes)
        super().__init__(root, names_of(files, root), labels, classes, notes, truth)

    def objects(self, index: int) -> Objects:
        """The boxes in pixels; Faults for those outside the image or without any pixel."""
        path = self.root / self.names[index]
        width, height = read_image(path, upright_size)[0]
        shares = np.array([box for _, box in self.rows[index]], np.float64).reshape(-1, 4)
        boxes, wrong = clipped(shares * (width, height, width, height), width, height)
        refuse(
            [
                f"{label_file(path)} has a box at {', '.join(f'{edge:g}' for edge in share)} "
                f"(shares of {width}×{height} px), which is empty or lies outside: correct it"
                for share, is_wrong in zip(shares, wrong, strict=True)
                if is_wrong
            ],
            str(path),
        )
        labels = [label for label, _ in self.rows[index]]
        return Objects.of(boxes, labels, [False] * len(labels))


class YoloDataset(Dataset):
    """Images and label files in folders that go together by their names."""

    tasks = ("classification", "detection")

    def __init__(self, argument: str) -> None:
        self.root, options, self.name = asked_folder("yolo", argument, OPTIONS, USE)
        self.where, self.draw = str(self.root), Draw.of(options)
        self.classes, said, self.pose = _described(self.root)
        self.folders = with_test(said or find_folders(self.root))
        checked_draw(self.draw, self.folders, self.name)
        if "train" not in self.folders:
            raise DataError(f"{self.root} has no images to train on: expected images/train/")
        self.splits = tuple(self.folders) if self.draw is None else ("train", "test")

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split; DataError where none of them has a label file."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "yolo")
        self.check_split(name)
        sources = self.folders["train" if self.draw else name]
        left = LeftOut()
        files = _images(sources, self.root, left)
        if not any(label_file(file).is_file() for file in files):
            looked = f", such as {label_file(files[0])}" if files else ""
            raise DataError(f"the images of {self.root} have no label files{looked}")
        shown = ", ".join(str(source.relative_to(self.root)) for source in sources)
        notes = [f"{name} is {shown}", *left.notes()]
        if self.draw is not None:
            total = len(files)
            files = self.draw.divided(
                files, lambda file: file.relative_to(self.root).as_posix(), lambda _: ""
            )[name]
            notes.append(self.draw.note(name, len(files), total, "all images"))
        return YoloSplit(self.root, files, self.classes, notes, self.pose)


# ---- which files
def find_folders(root: Path) -> dict[SplitName, list[Path]]:
    """Folders of images by split: images/train/, train/images/, or images/ as train."""
    images = [root / name for name in folders_in(root) if name.lower() in IMAGES]
    found: dict[SplitName, list[Path]] = {}
    for base in (*images, root):
        for name in folders_in(base):
            if (split := split_of(name)) and split not in found:
                own = base / name / "images"
                found[split] = [own if own.is_dir() else base / name]
    return found or {"train": images or [root]}


def _images(sources: Sequence[Path], root: Path, left: LeftOut) -> list[Path]:
    """Of folders, and of text files that list images a line each; Faults for any outside."""
    faults: list[str] = []
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += images_below(source, left)
        else:
            for line in filter(str.strip, source.read_text(encoding="utf-8-sig").split("\n")):
                with collecting_faults(faults):
                    files.append(_listed(source.parent, line.strip(), root))
    refuse(faults, str(root))
    return files


def _listed(base: Path, text: str, root: Path) -> Path:
    """An image of a list, below its folder whatever leads there: CVAT writes data/images/… ."""
    tails = (base / tail for tail in _tails(Path(text)))
    there = (path for path in tails if path.is_file() and path.resolve().is_relative_to(root))
    found = None if (base / text).exists() else next(there, None)
    return found or inside(base, text, root)


def label_file(image: Path) -> Path:
    """labels/…/a.txt of images/…/a.jpg, as Ultralytics finds it; else a.txt beside it.

    Labels/ of Images/, too: people write both.
    """
    parts = list(image.parts)
    name = f"{image.stem}.txt"
    for place in range(len(parts) - 2, 0, -1):
        if parts[place].lower() == "images":
            parts[place] = "Labels" if parts[place].istitle() else "labels"
            if (found := Path(*parts).with_name(name)).parent.is_dir():
                return found
            break
    return image.with_name(name)


# ---- names
def _described(root: Path) -> tuple[tuple[str, ...], dict[SplitName, list[Path]], bool]:
    """The classes, the folders that data.yaml names, and whether lines have key points."""
    if found := described_in(root):
        content = _yaml(found)
        names = content.get("names")
        names = dict(enumerate(names)) if isinstance(names, list) else names
        if not isinstance(names, dict) or set(names) != {*range(len(names))} or not names:
            raise DataError(f"{found} has no names: of the classes 0, 1, …: write them")
        classes = _checked([names[i] for i in range(len(names))], found)
        return classes, _folders(found, content), "kpt_shape" in content
    for name in NAMES:
        if (path := root / name).is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return _checked([line for line in lines if line.strip()], path), {}, False
    raise DataError(f"{root} has no data.yaml with names: of the classes, and no classes.txt")


def described_in(root: Path) -> Path | None:
    """data.yaml, whatever it is called: the first .yaml with names."""
    there = sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda p: p.stem != "data")
    for path in there:
        try:
            if "names" in _yaml(path):
                return path
        except DataError:
            if path.stem == "data":
                raise
    return None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as YAML ({reason}): correct it") from error
    return content if isinstance(content, dict) else {}


def _checked(names: Sequence[object], path: Path) -> tuple[str, ...]:
    # Aliases of YAML nest without end, so that nothing but plain values is written out.
    if not all(isinstance(name, str | int | float) for name in names):
        raise DataError(f"{path} has a class that is no name: give each a word")
    classes = tuple(" ".join(str(name).split()) for name in names)
    if len(set(classes)) < len(classes) or "" in classes:
        raise DataError(f"{path} has a class twice, or one without a name: give each its own")
    return classes


def _folders(path: Path, content: Mapping[str, Any]) -> dict[SplitName, list[Path]]:
    """Those of `train:`, `val:`, `test:`; Faults for all that are not there."""
    faults: list[str] = []
    found: dict[SplitName, list[Path]] = {}
    for split, keys in KEYS.items():
        said = next((content[key] for key in keys if content.get(key)), [])
        if split == "test" and "val" in found and not isinstance(said, list):
            # Roboflow writes the line whether there is a test set or not.
            with suppress(DataError):
                found[split] = [_folder(path, split, said, content.get("path"))]
            continue
        for text in said if isinstance(said, list) else [said]:
            with collecting_faults(faults):
                found.setdefault(split, []).append(_folder(path, split, text, content.get("path")))
    refuse(faults, str(path))
    return found


def _folder(path: Path, split: SplitName, said: object, base: object) -> Path:
    """Below the folder of data.yaml, whatever leads there: `path:` is often another machine's."""
    if not isinstance(said, str):
        raise DataError(f"{path} has a {split}: that is no path: name a folder, or a list of them")
    root, text = path.parent, said
    # Roboflow writes ../train/images for what lies beside data.yaml.
    tail = Path(*[part for part in Path(text).parts if part not in ("..", "/", ".")])
    tries = [root / base / text] if isinstance(base, str) else []
    for found in (*tries, root / text, root / tail, *(root / p for p in _tails(tail))):
        if found.exists() and found.resolve().is_relative_to(root):
            return found.resolve()
    raise DataError(
        f"{path} says {split}: {plain(text)[:80]}, which is not below {root}: correct it"
    )


def _tails(path: Path) -> list[Path]:
    return [Path(*path.parts[start:]) for start in range(1, len(path.parts))]


# ---- labels
def read_labels(path: Path, classes: Sequence[str], pose: bool = False) -> Rows:
    """The objects of one label file; none where there is no file. Faults with all wrong lines."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as labels ({error}): write it anew") from error
    rows: Rows = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                rows.append(_row(line, len(classes), pose))
        except ValueError as error:
            faults.append(f"line {number} of {path} is {plain(line)[:60]!r}: {error}")
    refuse(faults, str(path))
    return rows


def _row(line: str, classes: int, pose: bool) -> tuple[int, np.ndarray]:
    """Class and corners; ValueError says what a line takes."""
    label, *numbers = map(float, line.split())
    if pose:  # behind the box are key points, which would pass for a polygon's
        numbers = numbers[:4]
    if not (label.is_integer() and 0 <= label < classes):
        raise ValueError(f"the class is a number from 0 to {classes - 1}")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("shares of the image are numbers from 0 to 1")
    values = np.array(numbers)
    if len(values) == 4:
        centre, half = values[:2], values[2:] / 2
        corners = np.concatenate([centre - half, centre + half])
    elif len(values) >= 6 and len(values) % 2 == 0:
        points = values.reshape(-1, 2)
        corners = np.concatenate([points.min(0), points.max(0)])
    else:
        raise ValueError("a line takes a class and 4 numbers, or a class and a polygon's points")
    if values.max() > 2 or values.min() < -1:
        raise ValueError("shares of the image are numbers from 0 to 1, not pixels")
    return int(label), corners
