"""`folder:PATH`: one's own images in torchvision's ImageFolder layout, or a flat folder.

PATH/train/<class>/…  and  PATH/val/<class>/…  (or test/)   for training and evaluation
PATH/train/…          and  PATH/val/…                       images without labels
PATH/NAME/<class>/…                                         any other split that is asked for
PATH/<class>/…        as   folder:PATH,test=0.25[,seed=1]   a test set drawn from every class
PATH/…                as   folder:PATH,train=FILE,test=FILE lists of images (lists.py)
PATH/<a>/<class>/…    as   folder:PATH,depth=2              classes are folders of the second level
PATH/…                                                      images only, for pretraining
"""

import os
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw, is_share
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.image_files import ImageFiles
from ssl_bench.data.labelled import LabelledDataset, labelled_split
from ssl_bench.data.layout import Layout, check_classes, listed, split_of
from ssl_bench.data.lists import lists_of, read_annotations, read_lists
from ssl_bench.data.paths import asked, path_and_options, resolved
from ssl_bench.data.string_array import StringArray
from ssl_bench.data.tree import (
    SUFFIXES,
    LeftOut,
    count_beside,
    folders_at,
    has_images,
    is_image,
    names_below,
    shown,
)
from ssl_bench.errors import DataError, UsageError, plain, unknown

USE = "folder:PATH[,test=SHARE][,seed=NUMBER]"
LISTED = "folder:PATH,train=LIST[,val=LIST][,test=LIST]"
KNOWN = (*OPTIONS, "depth")
DEEPEST = 9  # levels of class folders


def folder(argument: str) -> Dataset:
    """Folders, or, with `train=LIST`, lists of images in them."""
    options = path_and_options(argument)[1]
    return from_lists(argument) if "train" in options else FolderDataset(argument)


class FolderDataset(Dataset):
    """Images in `train/<class>/` and `val/<class>/`, in `<class>/`, or directly in a folder."""

    def __init__(self, argument: str) -> None:
        path, options = path_and_options(argument)
        for key in options.keys() - set(KNOWN):
            raise unknown("option of folder", key, KNOWN)
        if not path:
            raise UsageError(f"a folder of images is asked for as {USE}")
        self.root = resolved(path)
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder: give folder:PATH an existing one")
        self.where = str(self.root)
        self.layout = Layout(self.root)
        self.train = self.layout.find("train")
        self.depth = _depth(options.get("depth", "1"))
        self.draw = Draw.of(options)
        given = [f",{key}={plain(options[key])}" for key in KNOWN if key in options]
        self.name = "".join([f"folder:{plain(self.root.name)}", *given])
        self.splits = self._splits()

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split, by the names of folders (ssl_bench/data/layout.py).

        `test` is the folder for it, unless its images have no labels and there is a val; without
        one, val is the test. Any other split is the folder of its name, of the classes of `train`.
        """
        self.check_task(task)
        if self.draw is not None:
            return self._drawn(name, self.draw)
        if self.train is None:
            return self._flat(name)
        folder = self._folder(name)
        notes = self._understood(name, folder)
        return (self._labelled if self._has_labels() else self._unlabelled)(folder, notes)

    # ---- which folders
    def _has_labels(self) -> bool:
        """Whether train has folders of classes."""
        return self.train is not None and bool(folders_at(self.train, self.depth))

    def _splits(self) -> tuple[SplitName, ...]:
        if self.draw is not None:
            return ("train", "test")
        if self.train is None:
            return ("train",)
        test, val = self._test(), self.layout.find("val")
        more = [("val", None if val == test else val), ("test", test)]
        return ("train", *(name for name, folder in more if folder))

    def _test(self) -> Path | None:
        """The folder that evaluations test on."""
        test, val = self.layout.find("test"), self.layout.find("val")
        return test if test and self._known(test) else val

    def _folder(self, name: SplitName) -> Path:
        if name == "test":
            if found := self._test():
                return found
            test = self.layout.find("test")
            lacks = f"{test.name}/ with classes of" if test else "val/ (or test/) beside"
            way = f"; a test set can be drawn from train: folder:{self.root},test=0.25"
            raise DataError(
                f"{self.root} has no {lacks} train/: nothing to test on"
                f"{way if self._has_labels() else ''}"
            )
        if found := self.layout.find(name):
            return found
        there = ", ".join(f"{folder}/" for folder in self.layout.folders)
        raise DataError(f"{self.root} has no {name}/, only {there}")

    def _known(self, folder: Path) -> bool:
        """Whether images of a folder have labels, if those of train do."""
        assert self.train is not None
        if not self._has_labels() or annotations_of(folder):
            return True
        return bool({*folders_at(self.train, self.depth)} & {*folders_at(folder, self.depth)})

    def _understood(self, name: SplitName, folder: Path) -> list[str]:
        """How the folders were read, where it is not plain from their names."""
        notes = [f"{name} is {folder.name}/"] if folder.name != name else []
        test, val = self.layout.find("test"), self.layout.find("val")
        if name == "test" and test and val:
            more = f"not {val.name}/" if folder == test else f"as {test.name}/ has no labels"
            notes = [f"test is {folder.name}/, {more}"]
        if name == "train":
            taken = {part.name for part in (folder, test, val) if part}
            if beside := [other for other in self.layout.folders if other not in taken]:
                notes.append(f"not taken for any split: {listed(beside)}")
        return notes

    # ---- their images
    def _labelled(self, root: Path, notes: list[str]) -> Split:
        """Labels count in the order of train's class folders; val may lack some of them."""
        assert self.train is not None
        classes = self._classes(self.train)
        if root != self.train and (listed := annotations_of(root)):
            return _annotated(root, listed, classes, notes)
        strange = set(self._classes(root)) - set(classes)
        if strange:
            raise DataError(f"{root} has class '{min(strange)}', which {self.train.name}/ lacks")
        left = LeftOut()
        each = _by_class(root, classes, left)
        empty = [name for name, found in each.items() if not found]
        if root == self.train and empty:
            raise _without_images(root / empty[0], left, ": fill or remove it")
        if not any(each.values()):
            raise _without_images(root, left)
        notes += [line for found in each.values() for line in _masks_among(found)]
        more = [*notes, *left.notes(), *(_deeper(each) if self.depth == 1 else [])]
        return ImageFiles(root, chain(*each.values()), _labels(each.values()), classes, more)

    def _classes(self, root: Path) -> list[str]:
        if classes := folders_at(root, self.depth):
            check_classes(root, classes)
            return classes
        level = "" if self.depth == 1 else f" {self.depth} levels down"
        raise DataError(f"{root} has no class folders{level}: expected {root}/<class>/…")

    def _unlabelled(self, root: Path, notes: list[str]) -> Split:
        """Images of a split without class folders, such as COCO's train2017/."""
        beside = [other for other in self.layout.folders if split_of(other) is None]
        if beside and not self._test() and has_images(root):
            raise DataError(
                f"{root} has images, but no class folders, and beside it are {listed(beside)}: "
                f"give folder:{root} if it is all there is to train on, or, where {root.name} is "
                f"one of the classes, draw a test set: folder:{self.root},test=0.25"
            )
        left = LeftOut()
        names = names_below(root, left)
        if not names:
            self._classes(root)
            raise _without_images(root, left)
        return ImageFiles(root, names, None, (), [*notes, *left.notes()])

    def _flat(self, name: SplitName) -> Split:
        self.layout.check_flat()
        folders = self.layout.folders
        if name != "train":
            way = f"; where {listed(folders)} are classes, draw a test set from them: "
            way = f"{way}folder:{self.root},test=0.25" if len(folders) > 1 else ""
            raise DataError(
                f"{self.root} has no train/ and val/ folders of classes: a flat folder serves "
                f"pretraining only{way}"
            )
        left = LeftOut()
        names = names_below(self.root, left)
        if not names:
            raise _without_images(self.root, left)
        note = (
            f"no train/: all {len(names):,} images are taken, without labels, those of "
            f"{listed(folders)} too"
        )
        notes = [*([note] if folders else []), *_masks_among(names), *left.notes()]
        return ImageFiles(self.root, names, None, (), notes)

    def _drawn(self, name: SplitName, draw: Draw) -> Split:
        """`train` or `test` of one folder of classes: PATH/train, else PATH."""
        self.check_split(name)
        root = self.root
        if self.train and self._has_labels():
            root = self.train
            if own := self._test():
                raise UsageError(f"{self.root} has its own test set, {own.name}/: leave out test=")
        left = LeftOut()
        each = _by_class(root, self._classes(root), left)
        for empty in [label for label, found in each.items() if not found]:
            left.add("folder without images", empty)
            del each[empty]
        if not each:
            raise _without_images(root, left)
        part = [StringArray.of(draw.part(name, found)) for found in each.values()]
        if not any(map(len, part)):
            raise DataError(f"{root} has no class of two images or more: no test set can be drawn")
        note = draw.note(name, sum(map(len, part)), sum(map(len, each.values())))
        notes = [note, *(line for found in part for line in _masks_among(found)), *left.notes()]
        return ImageFiles(root, chain(*part), _labels(part), tuple(each), notes)


def _by_class(root: Path, classes: Sequence[str], left: LeftOut) -> dict[str, StringArray]:
    """Each class's images in torchvision's order; Faults with all folders that are unreadable.

    They are paths relative to `root`.
    """
    # Of nested classes also what lies beside them on the levels above: a/x.jpg for a/cat/.
    above = {Path(name).parent for name in classes} | {Path()}
    for folder in sorted(root / one for one in above if (root / one).is_dir()):
        count_beside(folder, left)
    each = {name: StringArray.of([]) for name in classes}
    faults: list[str] = []
    for name in classes:
        if not (root / name).is_dir():  # a class may be in train only
            continue
        with collecting_faults(faults):
            found = names_below(root / name, left)
            found.sort(key=os.path.split)  # by folder, then by name
            each[name] = StringArray.of(f"{name}/{below}" for below in found)
    refuse(faults, str(root))
    return each


def _labels(each: Collection[Sequence[str]]) -> np.ndarray:
    """int64 (N,): of all classes' images, one class after another, the place of the class."""
    return np.repeat(np.arange(len(each)), [len(found) for found in each])


def _without_images(folder: Path, left: LeftOut, remedy: str = "") -> DataError:
    there = f"; left out: {left}" if str(left) else ""
    return DataError(f"{folder} has no images ({', '.join(SUFFIXES)}){there}{remedy}")


def _deeper(each: dict[str, StringArray]) -> list[str]:
    """A line where all classes have folders of images, and none an image of its own."""
    below = ({name.split("/")[1] for name in found} for found in each.values())
    if any(len(names) < 2 or any(map(is_image, names)) for names in below):
        return []
    name = next(iter(each))
    return [f"the images of {name}/ and all others lie in folders: depth=2 takes these as classes"]


def _masks_among(names: Sequence[str]) -> list[str]:
    """A line where masks lie beside their photographs, as in BUSI: a_mask.png of a.png."""
    # with_mask_1.jpg is a face: only what stands beside a photograph of its own name is a mask.
    called = [name for name in names if "_mask" in name]
    whole = {os.path.splitext(name)[0] for name in names} if called else set[str]()
    found = [name for name in called if name.rpartition("_mask")[0] in whole]
    if not found:
        return []
    return [
        f"{len(found):,} images are called masks, such as {shown(found[0])}, and taken as images: "
        "move them away if they are masks"
    ]


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= DEEPEST):
        raise UsageError(f"depth= takes the level that class folders are on, as 2, not '{text}'")
    return int(text)


# ---- lists
def annotations_of(folder: Path) -> Path | None:
    """Tiny ImageNet's list of a split without class folders: val/val_annotations.txt."""
    path = folder / f"{folder.name}_annotations.txt"
    return path if path.is_file() else None


def _annotated(root: Path, listed: Path, classes: list[str], notes: list[str]) -> Split:
    rows = read_annotations(listed, root)
    return labelled_split(root, rows, classes, False, [*notes, f"its classes are {listed.name}'s"])


def from_lists(argument: str) -> Dataset:
    """`folder:PATH,train=LIST,test=LIST`: see lists.py."""
    root, options, name = asked("folder", argument, ("train", "val", *OPTIONS), LISTED)
    drawn = (
        "test" in options and is_share(options["test"]) and not (root / options["test"]).is_file()
    )
    own = {split: options[split] for split in ("train", "val", "test") if split in options}
    draw = None
    if drawn or "seed" in options:
        draw = Draw.of(options)
        del own["test"]
    return LabelledDataset(name, root, read_lists(root, lists_of(root, own)), draw)
