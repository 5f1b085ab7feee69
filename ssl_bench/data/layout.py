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

    def beside(self) -> list[str]:
        """The folders that are no split by their names."""
        return [name for name in self.folders if split_of(name) is None]

    def check_flat(self) -> None:
        """DataError where a folder without train would give test images or masks to training."""
        for name in self.folders:
            if split_of(name):
                self._refuse(f"{name}/, but no train/", name)
            if any(split_of(below) == "train" for below in folders_in(self.root / name)):
                self._refuse(f"train and test below {name}/", name)
        marked = {split: self._with_word(split) for split in WORDS}
        if marked["train"] and (tests := marked["test"] + marked["val"]):
            found = marked["train"][0]
            self._refuse(f"{found}/ and {tests[0]}/, which look like train/ and test/", found)
        for name in self.folders:
            masks = [mask for mask in self.folders if mask.lower() in TRUTH]
            masks = masks if name.lower() in IMAGES else []
            if any(images_below(self.root / mask, LeftOut()) for mask in masks):
                self._refuse(f"{name}/ and images in {masks[0]}/ beside it", name)

    def _with_word(self, split: SplitName) -> list[str]:
        """Folders such as seg_train: a split's word among others."""
        words = WORDS[split]
        return [n for n in self.folders if set(re.split("[^a-z]+", n.lower())) & set(words)]

    def _refuse(self, what: str, folder: str) -> None:
        raise DataError(
            f"{self.root} has {what}: give folder:{self.root / folder}, rename folders to train/ "
            f"and test/, or, where they are classes, draw a test set: folder:{self.root},test=0.25"
        )


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
