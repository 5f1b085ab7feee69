"""Which folders of a set are its train, val and test, by the names that are in use for them.

`train` also goes by Train, training, train2017, train_images, training_set …; the same holds for
val (valid, validation, validate, dev) and test (testing). Where one folder has the plain name, it
is the one; two others for one split are refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.data.dataset import SplitName
from ssl_bench.data.tree import LeftOut, folders_in, images_below, shown
from ssl_bench.errors import DataError

WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing"),
}
MORE = r"(?:[-_ .]?(?:set|data|images|imgs|split|\d+))*"
IMAGES = {"images", "image", "imgs", "img", "jpegimages"}
TRUTH = {"masks", "mask", "labels", "label", "annotations", "annotation", "ground_truth", "gt",
         "segmentationclass", "segmentationobject", "segmentations"}  # fmt: skip


def split_of(folder: str) -> SplitName | None:
    """The split that a folder's name stands for, if any."""
    for split, words in WORDS.items():
        if re.fullmatch(f"(?:{'|'.join(words)}){MORE}", folder.lower()):
            return split
    return None


def split_in(path: Path, root: Path) -> SplitName | None:
    """The split that a word of a file's name says, or else its folder's name, below `root`."""
    words = set(re.findall("[a-z]+", path.name.lower()))
    named = next((split for split, known in WORDS.items() if words & set(known)), None)
    return named or (None if path.parent == root else split_of(path.parent.name))


def files_by_split(paths: Sequence[Path], root: Path) -> dict[SplitName, list[Path]]:
    """Files by the split that their names say; all are train where none says any.

    Raises DataError where some say one and others none: nobody knows what these are.
    """
    found: dict[SplitName, list[Path]] = {}
    unnamed = [path for path in paths if split_in(path, root) is None]
    if unnamed and len(unnamed) < len(paths):
        raise DataError(
            f"{unnamed[0]} says no split by its name, though others do: call it train, val or "
            "test, or move it away"
        )
    for path in paths:
        found.setdefault(split_in(path, root) or "train", []).append(path)
    return found


class Layout:
    """The sub-folders of a set, and which of them is which split."""

    def __init__(self, root: Path) -> None:
        self.root, self.folders = root, folders_in(root)

    def find(self, split: SplitName) -> Path | None:
        """The folder of a split: of its very name, else by the words for it. DataError for two."""
        if split in self.folders:
            return self.root / split
        found = [name for name in self.folders if split_of(name) == split]
        if len(found) > 1:
            raise DataError(
                f"{self.root} has {listed(found)}, all by their names for {split}: call the one "
                f"that counts {split}/"
            )
        return self.root / found[0] if found else None

    def check_flat(self) -> None:
        """DataError where a folder without train would give test images or masks to training."""
        names = [name for name in self.folders if split_of(name)]
        if names:
            self._refuse(f"{names[0]}/, but no train/", f"rename folders, {self._classes()}")
        marked = {split: self._with_word(split) for split in WORDS}
        if marked["train"] and (tests := marked["test"] + marked["val"]):
            what = f"{marked['train'][0]}/ and {tests[0]}/, which look like train/ and test/"
            self._refuse(what, f"rename them, {self._classes()}")
        for name in [*self._images(), *self.folders]:
            if any(split_of(below) == "train" for below in folders_in(self.root / name)):
                self._refuse(f"train and test in {name}/", f"give folder:{self.root / name}")
        for name in self._images():
            for mask in self._truth():
                voc = f"voc:{self.root} or " if mask == "Annotations" else ""
                if voc or images_below(self.root / mask, LeftOut()):
                    what = f"{name}/ and {mask}/, which is no part of the images"
                    self._refuse(what, f"give {voc}folder:{self.root / name}")

    def _images(self) -> list[str]:
        return [name for name in self.folders if name.lower() in IMAGES]

    def _truth(self) -> list[str]:
        return [name for name in self.folders if name.lower() in TRUTH]

    def _with_word(self, split: SplitName) -> list[str]:
        """Folders such as seg_train: a split's word among others."""
        words = WORDS[split]
        return [n for n in self.folders if set(re.split("[^a-z]+", n.lower())) & set(words)]

    def _classes(self) -> str:
        return f"or, where they are classes, draw a test set: folder:{self.root},test=0.25"

    def _refuse(self, what: str, remedy: str) -> None:
        raise DataError(f"{self.root} has {what}: {remedy}")


def check_classes(root: Path, folders: Sequence[str]) -> None:
    """DataError where the folders are images and their labels (YOLO's layout), not classes."""
    images = [name for name in folders if name.lower() in IMAGES]
    if images and {name.lower() for name in folders} & TRUTH:
        raise DataError(
            f"{root} has {listed(folders)}, which are no classes: give folder:{root / images[0]} "
            "to train on these images without labels"
        )


def listed(names: Sequence[str]) -> str:
    """`a/, b/, c/, …`"""
    return ", ".join([f"{shown(name)}/" for name in names[:3]] + ["…"] * (len(names) > 3))
