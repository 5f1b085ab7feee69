"""What a dataset is: named splits of images that can be decoded one at a time.

A dataset is found by its entry point (`ssl_bench.data`) and opened from a specification
`NAME` or `NAME:ARGUMENT`, such as `scenes:train=500,test=200` or `folder:photos`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ssl_bench.errors import DataError

SplitName: TypeAlias = str  # what a dataset calls a part of it: train, test, query, gallery …
Task: TypeAlias = str  # what there is ground truth for: classification, detection, segmentation …
VOID = 255  # in a mask: pixels that no class is claimed for, such as VOC's borders of objects


class SmallImage(DataError):
    """An image that has fewer pixels than were asked for."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    `boxes` is float32 (M, 4): x0, y0, x1, y1 in pixels of the whole image, counted from 0, right
    and bottom exclusive, so that x1 − x0 is the width. `labels` is int64 (M,) into the split's
    classes, `difficult` bool (M,). M may be 0.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

    @classmethod
    def of(cls, boxes: ArrayLike, labels: ArrayLike, difficult: ArrayLike) -> "Objects":
        """The same from plain sequences, with the types and shapes above."""
        return cls(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.int64),
            np.array(difficult, bool),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def resized(self, across: float, down: float) -> "Objects":
        """In an image that has become `across` times as wide and `down` times as high."""
        factors = np.array([across, down, across, down], np.float32)
        return replace(self, boxes=self.boxes * factors)

    def flipped(self, width: float) -> "Objects":
        """In the mirrored image of `width` px."""
        # The right edge becomes the left one: without a "− 1", as ends are exclusive.
        left, right = width - self.boxes[:, [2]], width - self.boxes[:, [0]]
        mirrored = [left, self.boxes[:, [1]], right, self.boxes[:, [3]]]
        return replace(self, boxes=np.concatenate(mirrored, 1).astype(np.float32))


class Split(ABC):
    """The images of one split, before decoding.

    `names` identify the images in messages and predictions; `labels` is int64 (N,) into
    `classes`, or int8 (N, C) for several labels an image (1 there, 0 not there, −1 not to be
    judged), or None where there are none; `fingerprint` is cheap and changes whenever a pixel or
    label may have changed. `notes` are lines on how a folder was understood and what was left out:
    they are said when the images are decoded, and stand in records. `metric` is what the set is
    reported by, where it is not top-1: `mean_per_class`.

    A split asked for detection has `objects`, one asked for segmentation has `mask`. A fault of
    one image is raised when that image is read, so that all of them can be reported together.
    """

    names: Sequence[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    metric: str = "top1"

    @abstractmethod
    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one image: uint8 (size, size, 3) and the hexadecimal digest of its content.

        Raises DataError, naming the image, if it cannot be decoded, and SmallImage if its short
        side is below `smallest`: whoever asks may then ask for less, and count it as enlarged.
        """

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Decode one whole image: uint8 (H, W, 3) RGB and the digest of its content.

        Raises DataError, naming the image, if it cannot be decoded.
        """
        raise DataError("images of this set have no size of their own: take scenes or voc:PATH")

    def objects(self, index: int) -> Objects:
        """The objects of one image, none of them outside it or empty.

        Raises DataError, with a line for each fault, for annotations that cannot be used.
        """
        raise DataError(
            "these images have no boxes: detection takes scenes, voc:, coco:, yolo: or labelme:"
        )

    def mask(self, index: int) -> np.ndarray:
        """uint8 (H, W) of the image's size: 0 background, 1 + class index, 255 void.

        Raises DataError for a mask that cannot be used.
        """
        raise DataError(
            "these images have no masks: segmentation takes scenes, voc:, coco:, masks: or labelme:"
        )


class Dataset(ABC):
    """A named set of images with a training split and, unless it is flat, a test split.

    `tasks` are those that it has ground truth for, `splits` those that it has, which may be others
    and more, `where` says which folder it lies in.
    """

    name: str
    where: str = "nothing is stored"
    tasks: tuple[Task, ...] = ("classification",)
    splits: tuple[SplitName, ...] = ("train", "test")

    @abstractmethod
    def __init__(self, argument: str) -> None:
        """Read what stands after the colon of the specification."""

    @abstractmethod
    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """Raises DataError where the dataset has no such split, or nothing for that task."""

    def split_for_pretraining(self, name: SplitName) -> Split:
        """A split of which the images are needed, and nothing that is said of them: to pretrain on.

        Where it has labels that can be read they are in it.
        """
        return self.split(name)

    def count(self, name: SplitName, task: Task) -> int:
        """How many images a split has."""
        return len(self.split(name, task).names)

    def check_split(self, name: SplitName) -> None:
        """DataError with the splits that there are, if `name` is not one of them."""
        if name not in self.splits:
            raise DataError(f"{self.name} has no split {name}, only {', '.join(self.splits)}")

    def check_task(self, task: Task) -> None:
        """DataError with the tasks that there are, if `task` is not one of them."""
        if task not in self.tasks:
            raise DataError(
                f"{self.name} has nothing for {task}, only for {', '.join(self.tasks)}: "
                "take another set, such as scenes or voc:PATH"
            )


def one_label_each(annotations: np.ndarray) -> np.ndarray:
    """Labels int64 (N,) as they are; DataError for int8 (N, C), several labels an image."""
    if annotations.ndim == 2:
        raise DataError(
            "these images carry several labels each, and this protocol needs one: "
            "`bench svm` takes several"
        )
    return annotations


def targets_of(annotations: np.ndarray, classes: int) -> np.ndarray:
    """int8 (N, C): 1 for a class that is there, 0 for one that is not, −1 not to be judged."""
    if annotations.ndim == 2:
        return annotations
    return np.eye(classes, dtype=np.int8)[annotations]
