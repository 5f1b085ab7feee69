"""What a dataset is: named splits of images that can be decoded one at a time.

A dataset is found by its entry point (`ssl_bench.data`) and opened from a specification
`NAME` or `NAME:ARGUMENT`, such as `scenes:train=500,test=200` or `folder:photos`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image

from ssl_bench.errors import DataError

SplitName = Literal["train", "test"]


class Split(ABC):
    """The images of one split, before decoding.

    `names` identify the images in messages and predictions; `labels` is int64 (N,) into
    `classes`, or int8 (N, C) for several labels an image (1 there, 0 not there, −1 not to be
    judged), or None where there are none; `fingerprint` is cheap and changes whenever a pixel or
    label may have changed.
    """

    names: Sequence[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    fingerprint: str

    @abstractmethod
    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one image: uint8 (size, size, 3) and the hexadecimal digest of its content.

        Raises DataError, naming the image, if it cannot be decoded or if its short side is
        below `smallest`.
        """


class Dataset(ABC):
    """A named set of images with a training split and, unless it is flat, a test split."""

    name: str

    @abstractmethod
    def __init__(self, argument: str) -> None:
        """Read what stands after the colon of the specification."""

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """Raises DataError where the dataset has no such split."""


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


def _rgb(image: Image.Image) -> Image.Image:
    """Pillow's RGB, where it is right: it cuts 16-bit grey at 255 and warns of some palettes."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the short side to `size` (bilinear, antialiased), crop the centre: (size, size, 3)."""
    image = _rgb(image)
    scale = size / min(image.size)
    if scale != 1:
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))
