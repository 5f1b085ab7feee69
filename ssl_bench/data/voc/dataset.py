"""`voc:PATH`: a year's folder in PASCAL VOC's layout: several labels an image, boxes, masks.

PATH/JPEGImages/<image>.jpg
PATH/Annotations/<image>.xml              the image's objects: class, box, difficult
PATH/SegmentationClass/<image>.png        class indices, with a palette or grey
PATH/ImageSets/Main/<list>.txt            an image a line: classification and detection
PATH/ImageSets/Main/<class>_<list>.txt    an image and 1, −1 or 0 a line; compared, where present
PATH/ImageSets/Segmentation/<list>.txt    an image a line: segmentation

`voc:PATH,name=NAME,train=LIST,test=LIST` gives the set a name of one's own and takes other lists
than the year's custom: trainval and test where there is a test.txt (VOC2007), else train and val
(VOC2012, whose test labels are not public).

The classes are VOC's 20 where no annotation names another one, else the names in the annotations of
both lists, sorted. `classes=A,B,…` gives them, and the names of a mask's indices 1, 2, …
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.faults import Faults
from ssl_bench.data.paths import resolved
from ssl_bench.data.voc.files import (
    CLASSES,
    LONGEST,
    PLAIN,
    count_names,
    list_names,
    read_list,
)
from ssl_bench.data.voc.masks import MOST
from ssl_bench.data.voc.split import VOCImage, VOCSplit, indices_of, listed_images
from ssl_bench.errors import DataError, UsageError, counted, unknown
from ssl_bench.progress import say, say_once

# Names that readers take for the official splits: the lists to train and test on, and their sizes.
OFFICIAL = {
    "voc07": {
        "Main": [("trainval", 5011), ("test", 4952)],
        "Segmentation": [("trainval", 422), ("test", 210)],
    },
    "voc12": {
        "Main": [("train", 5717), ("val", 5823)],
        "Segmentation": [("train", 1464), ("val", 1449)],
    },
}
SPLITS: tuple[SplitName, ...] = ("train", "test")
OPTIONS = ("name", *SPLITS, "classes")
USE = "voc:PATH[,name=NAME][,train=LIST][,test=LIST][,classes=A,B,…]"
SHOWN = 20  # classes that a line names


class _Lists:
    """The lists of one folder of ImageSets: the year's custom, unless others are `given`."""

    def __init__(self, folder: Path, given: Mapping[SplitName, str]) -> None:
        self.folder, self.known, self.given = folder, list_names(folder), given
        usual = ("trainval", "test") if "test" in self.known else ("train", "val")
        self.usual: dict[SplitName, str] = dict(zip(SPLITS, usual, strict=True))
        # Whoever writes a test.txt may leave out trainval, or write no list but that one.
        other = {"trainval": "train", "train": "trainval"}[usual[0]]
        if usual[0] not in self.known and other in self.known:
            self.usual["train"] = other
        self.chosen = self.usual | dict(given)

    def has(self, split: SplitName) -> bool:
        """Whether there is a list for it."""
        return self.chosen[split] in self.known

    def path(self, split: SplitName) -> Path:
        """Where a split's list is; UsageError with those there are, if there is no such list."""
        name = self.chosen[split]
        if self.has(split):
            return self.folder / f"{name}.txt"
        if split in self.given:
            raise unknown(f"list of {self.folder}", name, self.known)
        raise UsageError(
            f"{self.folder} has no {name}.txt to {split} on, only "
            f"{', '.join(self.known) or 'no list at all'}: name another list, as in "
            f"voc:PATH,{split}=LIST, or have a test set drawn, voc:PATH,test=0.25"
        )

    def sizes(self) -> list[tuple[str, int]]:
        """The two lists' names and how many images they have."""
        paths = [self.path(split) for split in SPLITS]
        return [(path.stem, len(read_list(path))) for path in paths]


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
        self.where = str(self.root)
        given: dict[SplitName, str] = {
            split: options[split] for split in SPLITS if split in options
        }
        folders = {name: self.root / "ImageSets" / name for name in ("Main", "Segmentation")}
        self.lists = {name: _Lists(folder, given) for name, folder in folders.items()}
        self.tasks = self._tasks()
        if not any(lists.has("test") for lists in self.lists.values()):
            self.splits = ("train",)
        self.given = given_classes(options["classes"]) if "classes" in options else ()
        self.name = self._usual_name(given)
        if "name" in options:
            self.name = self._checked_name(options["name"])

    def split(self, name: SplitName, task: Task = "classification") -> VOCSplit:
        """The images of one list, with what the task takes: labels, boxes or masks.

        Raises UsageError for a list that is not there; DataError for a damaged list and, for
        classification, with all faults of its files. Those of the other tasks' files are raised
        when they are read.
        """
        path = self.path(name, task)
        classes = self.mask_classes if task == "segmentation" else self.classes
        split = VOCSplit(self.root, listed_images(self.root, path, task), classes)
        if task == "classification":
            split.read_labels(path)
        return split

    def split_for_pretraining(self, name: SplitName) -> Split:
        """Annotations with a fault, or none, are said and left aside."""
        task: Task = self.tasks[0]
        if task == "classification":
            try:
                return self.split(name)
            except Faults as error:
                say(
                    f"warning: {self.name} {name} is taken without labels: its annotations have "
                    f"{len(error.lines):,} faults, which `bench data check` names"
                )
        return VOCSplit(self.root, listed_images(self.root, self.path(name, task), task), ())

    # ---- classes
    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of labels and boxes: those given, or VOC's, or the annotations' names, sorted."""
        if self.given or self._is_official:
            return self.given or CLASSES
        return chosen_classes(self.name, self._names)

    @cached_property
    def mask_classes(self) -> tuple[str, ...]:
        """Of the indices 1, 2, … of masks: those given, or VOC's, or numbers.

        Nothing in a set of one's own says which name an index has.
        """
        if self.given or (self._is_vocs and (self._names or self._is_official)):
            return self.given or CLASSES
        lists = self.lists["Segmentation"]
        paths = [lists.path(split) for split in SPLITS if lists.has(split)]
        images = [one for path in paths for one in listed_images(self.root, path, "segmentation")]
        found = indices_of(images)
        count = max(found, default=0)
        used = f" ({len(found):,} of them used)" if len(found) < count else ""
        say_once(
            f"{self.name}: {counted(count, 'class')} by its masks{used}, without names: "
            "voc:PATH,classes=A,B,… gives them, in the order of the indices 1, 2, …"
        )
        return tuple(f"class {index}" for index in range(1, count + 1))

    @cached_property
    def _is_official(self) -> bool:
        """Whether the lists have the sizes of a year's: a strange name is a fault there."""
        lists = self.lists["Main"]
        sizes = lists.sizes() if all(map(lists.has, SPLITS)) else []
        return any(sizes == official["Main"] for official in OFFICIAL.values())

    @property
    def _is_vocs(self) -> bool:
        return self._is_official or self._names.keys() <= set(CLASSES)

    @cached_property
    def _names(self) -> Counter[str]:
        """How often each name stands in the annotations of both lists."""
        lists = self.lists["Main" if self.lists["Main"].known else "Segmentation"]
        paths = [lists.path(split) for split in SPLITS if lists.has(split)]
        images: list[VOCImage] = []
        for path in paths:
            images += listed_images(self.root, path, "detection")
        return count_names({image.truth: None for image in images})

    def count(self, name: SplitName, task: Task) -> int:
        """How many images the list has."""
        return len(read_list(self.path(name, task)))

    def path(self, name: SplitName, task: Task) -> Path:
        """The list of a split; DataError for a task, UsageError for a list that is not there."""
        if task not in self.tasks:
            raise DataError(
                f"{self.root} has no lists in ImageSets/Segmentation/: segmentation takes them, "
                "and masks in SegmentationClass/"
            )
        return self.lists["Segmentation" if task == "segmentation" else "Main"].path(name)

    def _tasks(self) -> tuple[Task, ...]:
        """What there are lists for; without annotations classification has no labels."""
        boxes = ("detection",) if (self.root / "Annotations").is_dir() else ()
        main = ("classification", *boxes) if self.lists["Main"].known else ()
        return (*main, *(("segmentation",) if self.lists["Segmentation"].known else ()))

    def _usual_name(self, given: Mapping[SplitName, str]) -> str:
        """Other lists are other images, which a table must not take for the usual ones.

        UsageError for a list that is in no folder: now, before a split is decoded.
        """
        there = [lists for lists in self.lists.values() if lists.known]
        known = {name for lists in there for name in lists.known}
        other = []
        for split, chosen in given.items():
            if chosen not in known:
                raise unknown(f"list of {self.root / 'ImageSets'}", chosen, known)
            if any(lists.usual[split] != chosen for lists in there):
                other.append(f",{split}={chosen}")
        return "".join([f"voc:{self.root.name}", *other])

    def _checked_name(self, name: str) -> str:
        """UsageError for a name that is not plain, or stands for other images than these."""
        official = OFFICIAL.get(name.lower(), {})
        reserved = name in catalogue.names("data") and not official
        if not re.fullmatch(PLAIN, name) or reserved:
            raise UsageError(
                f"'{name[:60]}' cannot be the name of a set: voc:PATH,name= takes letters, "
                "digits, '.', '_' and '-', and no other dataset's name"
            )
        for folder, sizes in official.items():
            lists = self.lists[folder]
            if (lists.known or folder == "Main") and (there := lists.sizes()) != sizes:
                raise UsageError(
                    f"the name {name} is kept for the official {_counts(sizes)}, and this is "
                    f"{_counts(there)}: take another, such as {name}-mini"
                )
        return name.lower() if official else name


def _checked_root(path: str) -> Path:
    root = resolved(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give an existing one, as {USE}")
    if not (root / "JPEGImages").is_dir():
        raise DataError(
            f"{root} has no JPEGImages/: give the folder of one year, such as VOCdevkit/VOC2007"
        )
    if not any(list_names(root / "ImageSets" / name) for name in ("Main", "Segmentation")):
        raise DataError(
            f"{root} has no lists in ImageSets/Main/: write train.txt and val.txt there, an "
            f"image's name a line, or pretrain on folder:{root / 'JPEGImages'}"
        )
    return root


def chosen_classes(name: str, counts: Counter[str]) -> tuple[str, ...]:
    """VOC's classes where no annotation names another one, else the names, sorted; said once."""
    if counts.keys() <= set(CLASSES):
        return CLASSES
    found = sorted(counts)
    shown = [f"{each} ({counts[each]:,})" for each in found[:SHOWN]]
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    say_once(
        f"{name}: {counted(len(found), 'class')} by its annotations, with objects: "
        f"{', '.join(shown)}{more}"
    )
    return tuple(found)


def given_classes(text: str) -> tuple[str, ...]:
    """UsageError for names that are empty, long or twice there."""
    names = tuple(" ".join(name.split()) for name in text.split(","))
    if len(set(names)) < len(names) or not all(0 < len(name) <= LONGEST for name in names):
        raise UsageError(
            f"classes={text[:60]}: give each class once, with commas between them, as in "
            "classes=bolt,nut"
        )
    if len(names) > MOST:
        raise UsageError(f"classes= has {len(names)} names: a mask tells {MOST} apart at most")
    return names


def _counts(lists: Iterable[tuple[str, int]]) -> str:
    return " and ".join(f"{name} of {counted(count, 'image')}" for name, count in lists)
