"""`voc:PATH`: a year's folder in PASCAL VOC's layout: several labels an image, boxes, masks.

PATH/JPEGImages/<image>.jpg
PATH/Annotations/<image>.xml              the image's objects: class, box, difficult, truncated
PATH/SegmentationClass/<image>.png        class indices, with a palette or grey
PATH/ImageSets/Main/<list>.txt            an image a line: classification and detection
PATH/ImageSets/Main/<class>_<list>.txt    an image and 1, −1 or 0 a line; compared, where present
PATH/ImageSets/Segmentation/<list>.txt    an image a line: segmentation

`voc:PATH,name=NAME,train=LIST,test=LIST` gives the set a name of one's own and takes other lists
than the year's custom: trainval and test where there is a test.txt (VOC2007), else train and val
(VOC2012, whose test labels are not public).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.data.paths import resolved
from ssl_bench.data.voc.files import PLAIN, list_names, read_list
from ssl_bench.data.voc.split import VOCSplit, listed_images
from ssl_bench.errors import DataError, UsageError, unknown

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
OPTIONS = ("name", *SPLITS)
USE = "voc:PATH[,name=NAME][,train=LIST][,test=LIST]"


class _Lists:
    """The lists of one folder of ImageSets: the year's custom, unless others are `given`."""

    def __init__(self, folder: Path, given: Mapping[SplitName, str]) -> None:
        self.folder, self.known = folder, list_names(folder)
        usual = ("trainval", "test") if "test" in self.known else ("train", "val")
        self.usual: dict[SplitName, str] = dict(zip(SPLITS, usual, strict=True))
        self.chosen = self.usual | dict(given)

    def path(self, split: SplitName) -> Path:
        """Where a split's list is; UsageError with those there are, if there is no such list."""
        name = self.chosen[split]
        if name not in self.known:
            raise unknown(f"list of {self.folder}", name, self.known)
        return self.folder / f"{name}.txt"

    def sizes(self) -> list[tuple[str, int]]:
        """The two lists' names and how many images they have."""
        paths = [self.path(split) for split in SPLITS]
        return [(path.stem, len(read_list(path))) for path in paths]


class VOCDataset(Dataset):
    """One year of PASCAL VOC, or any folder laid out like it."""

    tasks = ("classification", "detection")

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
        if self.lists["Segmentation"].known:
            self.tasks = ("classification", "detection", "segmentation")
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
        split = VOCSplit(self.root, listed_images(self.root, path, task))
        if task == "classification":
            split.read_labels(path)
        return split

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
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        if not (root / part).is_dir():
            raise DataError(
                f"{root} has no {part}/: give the folder of one year, such as VOCdevkit/VOC2007"
            )
    return root


def _counts(lists: Iterable[tuple[str, int]]) -> str:
    return " and ".join(f"{name} of {count:,} images" for name, count in lists)
