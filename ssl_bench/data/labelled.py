"""Images with the names of their classes, by split, as list files and tables give them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.draw import Draw
from ssl_bench.data.faults import refuse
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.tree import SUFFIXES
from ssl_bench.errors import DataError, UsageError, plain
from ssl_bench.progress import say_once

T = TypeVar("T")


@dataclass(frozen=True)
class Labelled:
    """An image's file and its classes: none at all, one, or of a set of several any number.

    `unjudged` are classes of which it is not said whether they are there; `listed` says that its
    list can give several, so that none at all is an answer, too.
    """

    file: Path
    labels: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    listed: bool = False


# ---- splits
def with_test(parts: Mapping[SplitName, T]) -> dict[SplitName, T]:
    """Splits in their order; where there is no test, val is what evaluations test on."""
    found = {name: parts[name] for name in ("train", "val", "test") if name in parts}
    if "test" not in found and "val" in found:
        found["test"] = found.pop("val")
    return found | {name: part for name, part in parts.items() if name not in ("val", *found)}


def judged(
    parts: Mapping[SplitName, T], labels: Mapping[SplitName, Sequence[Sequence[str]]], name: str
) -> dict[SplitName, T]:
    """Without the splits whose images have no labels, though train's have: hidden test sets."""
    hidden = [s for s in parts if any(labels["train"]) and not any(labels[s])]
    for split in hidden:
        say_once(f"{name}: the images of {split} have no labels, and are left out")
    return {split: part for split, part in parts.items() if split not in hidden}


def checked_draw(draw: Draw | None, splits: Iterable[SplitName], name: str) -> None:
    """UsageError where a test set is to be drawn from a set that has its own.

    A split of another name (`extra`, `unsupervised`) is none.
    """
    if draw is not None and (own := [split for split in splits if split in ("val", "test")]):
        raise UsageError(f"{name} has its own {own[0]} set: leave out test=")


def no_test(root: Path, layout: str) -> DataError:
    """What to do where a set has nothing to test on."""
    return DataError(
        f"{root} has nothing to test on: draw a test set from it, {layout}:{root},test=0.25"
    )


# ---- classes
def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Names of classes, sorted: as numbers where all of them are."""
    found = set(names)
    if all(name.isascii() and name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def targets(
    labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    unjudged: Iterable[Sequence[str]] = (),
) -> np.ndarray:
    """int8 (N, C): 1 for a class that is there, −1 for one that is not judged, else 0."""
    place = {name: index for index, name in enumerate(classes)}
    made = np.zeros((len(labels), len(classes)), np.int8)
    for value, each in ((-1, unjudged), (1, labels)):
        for row, names in zip(made, each, strict=False):
            row[[place[name] for name in names]] = value
    return made


def have_several(
    labels: Mapping[SplitName, Sequence[Sequence[str]]], name: str, listed: bool
) -> bool:
    """Whether images have several labels each: where they are `listed` so, or any has two.

    Raises Faults where one each is meant, and some images of a split have none.
    """
    if listed or any(len(one) > 1 for each in labels.values() for one in each):
        return True
    lacking = {split: sum(not one for one in each) for split, each in labels.items()}
    refuse(
        [
            f"{count:,} of the {len(labels[split]):,} images of {name} {split} have no class, and "
            "the others one: give each its own"
            for split, count in lacking.items()
            if 0 < count < len(labels[split])
        ],
        name,
    )
    return False


def label_array(
    labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    several: bool,
    unjudged: Iterable[Sequence[str]] = (),
) -> np.ndarray | None:
    """int64 (N,), or int8 (N, C) where there are `several` an image; None where none has any."""
    if not classes or not (several or any(labels)):
        return None
    if several:
        return targets(labels, classes, unjudged)
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place[name] for (name,) in labels], np.int64)


def labelled_split(
    root: Path,
    rows: Sequence[Labelled],
    classes: Sequence[str],
    several: bool,
    notes: Sequence[str] = (),
) -> ImageFiles:
    """Images with labels that count in the order of `classes`; Faults for any other class."""
    named = ((name, row.file) for row in rows for name in (*row.labels, *row.unjudged))
    strange = {name: file for name, file in named if name not in classes}
    refuse(
        [
            f"{plain(file)} has the class '{plain(name)}', which no training image has: correct it"
            for name, file in strange.items()
        ],
        str(root),
    )
    names = names_of((row.file for row in rows), root)
    unjudged = [row.unjudged for row in rows]
    found = label_array([row.labels for row in rows], classes, several, unjudged)
    # A list for one label each: the fingerprint is that of the same images in folders.
    labels = found if found is None or several else found.tolist()
    return ImageFiles(root, names, labels, classes, notes)


class LabelledDataset(Dataset):
    """Images with the names of their classes, by split; classes are those of train."""

    def __init__(
        self,
        name: str,
        root: Path,
        parts: Mapping[SplitName, Sequence[Labelled]],
        draw: Draw | None = None,
    ) -> None:
        """Raises Faults for an image that is there twice, DataError without train; as Draw, too."""
        refuse(repeated(parts), name)
        if not parts.get("train"):
            raise DataError(
                f"{name} has no image to train on, only splits {', '.join(parts)}: call one train"
            )
        self.name, self.root, self.where, self.draw = name, root, str(root), draw
        labels = {split: [row.labels for row in rows] for split, rows in parts.items()}
        rows = [row for each in parts.values() for row in each]
        # Columns of 0 and 1 with exactly one 1 everywhere are one label each.
        listed = any(row.listed and (len(row.labels) != 1 or row.unjudged) for row in rows)
        self.several = have_several(labels, name, listed)
        parts = judged(parts, labels, name)
        self.given = len(parts["train"])
        if draw is not None:
            checked_draw(draw, parts, name)
            # By all labels together, so that rare combinations are on both sides, too.
            parts = draw.divided(parts["train"], self._name, lambda row: "|".join(row.labels))
        self.parts = with_test(parts)
        named = ((*row.labels, *row.unjudged) for row in self.parts["train"])
        self.classes = by_number(label for labels in named for label in labels)
        self.splits = tuple(self.parts)

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split; without a test, val is it."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, self.name.partition(":")[0])
        self.check_split(name)
        rows = self.parts[name]
        notes = [] if self.draw is None else [self.draw.note(name, len(rows), self.given)]
        return labelled_split(self.root, rows, self.classes, self.several, notes)

    def count(self, name: SplitName, task: Task) -> int:
        """How many images are listed."""
        return len(self.parts[name])

    def _name(self, row: Labelled) -> str:
        return row.file.relative_to(self.root).as_posix()


# ---- files
def image_file(path: Path) -> Path:
    """`path`, or the image of that name with a suffix, as lists and tables often leave it out."""
    if path.suffix.lower() in SUFFIXES or path.exists():
        return path
    # Not with_suffix: the name may have a point of its own.
    found = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return next((file for file in found if file.exists()), path)


def repeated(parts: Mapping[SplitName, Sequence[Labelled]]) -> list[str]:
    """A line for each image that is there twice, in one split or in two."""
    faults: list[str] = []
    first: dict[Path, tuple[SplitName, tuple[str, ...]]] = {}
    for split, rows in parts.items():
        for row in rows:
            if row.file in first:
                there, labels = first[row.file]
                where = "twice in" if there == split else f"in {there} and in"
                hint = ""
                if there == split and labels != row.labels:  # a row for each class
                    hint = f", or write one row of {'|'.join((*labels, *row.labels))}"
                hint = f"leave one of the two{plain(hint)[:80]}"
                faults.append(f"{plain(row.file)} is {where} {split}: {hint}")
            first.setdefault(row.file, (split, row.labels))
    return faults
