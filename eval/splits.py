"""Parts of the training set: what a choice is made on, few labels, and some images."""

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from ssl_bench.counter import generator
from ssl_bench.errors import DataError, UsageError
from ssl_bench.stream import Stream


def check_labels(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """DataError unless train holds two classes or more, and all that test asks for, at least one.

    Both are int64 (N,), or int8 (N, C) of 1, 0 and −1, which is not judged.
    """
    known, asked = present(train), present(test)
    if len(known) < 2:
        raise DataError(f"the training images hold {len(known)} class(es): two are needed")
    absent = np.setdiff1d(asked, known)
    if len(absent):
        raise DataError(f"class '{classes[absent[0]]}' is in the test images but not in train")
    if not len(asked):
        raise DataError("the test images hold no class: there is nothing to find")


def present(annotations: np.ndarray) -> np.ndarray:
    """The classes that an image has, ascending, by labels (N,) or targets (N, C)."""
    if annotations.ndim == 1:
        return np.unique(annotations)
    return np.flatnonzero((annotations == 1).any(0))


def held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (fitted, held out) of a stratified split; each class keeps its share.

    Raises DataError where a class has a single image, or a side has fewer images than classes.
    """
    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    try:
        fitted, held = next(splitter.split(np.zeros(len(labels)), labels))
    except ValueError as error:
        counts = np.bincount(labels)[np.unique(labels)]
        single = int((counts == 1).sum())
        why = (
            f"{single} of {len(counts)} classes have a single one, and it takes two: add images, "
            "or leave these classes out"
            if single
            else f"each side needs one of all {len(counts)} classes: add images, or set --held-out "
            "nearer to a half"
        )
        raise DataError(
            f"cannot hold out {share:.0%} of {len(labels)} training images to choose by: {why}"
        ) from error
    return np.sort(fitted), np.sort(held)


def few_labels(
    annotations: np.ndarray, per_class: int, seed: int, classes: tuple[str, ...]
) -> np.ndarray:
    """Indices of `per_class` random images with each class, ascending; all images if it is 0.

    Annotations are labels (N,), or targets (N, C): then an image may be drawn for several of its
    classes, and all its labels are learnt, so there are at most `per_class`·C. UsageError if a
    class has fewer.
    """
    if not per_class:
        return np.arange(len(annotations))
    random = Stream(seed)
    chosen = []
    for label in present(annotations):
        has = annotations == label if annotations.ndim == 1 else annotations[:, label] == 1
        images = np.flatnonzero(has)
        if len(images) < per_class:
            raise UsageError(
                f"--labels {per_class}: class '{classes[label]}' has only {len(images)} images; "
                "ask for fewer, or 0 for all of train"
            )
        chosen.append(random.choice(images, per_class))
    return np.unique(np.concatenate(chosen))


def some_images(count: int, most: int, seed: int) -> np.ndarray:
    """Places of at most `most` of `count` images, in random order: those that scales are set by."""
    return torch.randperm(count, generator=generator(seed, "rescale"))[:most].numpy()
