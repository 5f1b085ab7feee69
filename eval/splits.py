"""Parts of the training set: what a choice is made on, few labels, and some images."""

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from ssl_bench.counter import generator
from ssl_bench.errors import DataError, UsageError
from ssl_bench.stream import Stream


def check_labels(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """DataError unless there are two classes or more and train holds all that test asks for."""
    present = np.unique(train)
    if len(present) < 2:
        raise DataError(f"the training images hold {len(present)} class(es): two are needed")
    absent = np.setdiff1d(np.unique(test), present)
    if len(absent):
        raise DataError(f"class '{classes[absent[0]]}' is in the test images but not in train")


def held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (fitted, held out) of a stratified split; each class keeps its share.

    Raises DataError where a class has a single image.
    """
    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    try:
        fitted, held = next(splitter.split(np.zeros(len(labels)), labels))
    except ValueError as error:
        smallest = int(np.bincount(labels)[np.unique(labels)].min())
        raise DataError(
            f"cannot hold out {share:.0%} of {len(labels)} images, {smallest} in the smallest of "
            f"{len(np.unique(labels))} classes: add images, or raise --held-out"
        ) from error
    return np.sort(fitted), np.sort(held)


def few_labels(
    labels: np.ndarray, per_class: int, seed: int, classes: tuple[str, ...]
) -> np.ndarray:
    """Indices of `per_class` random images of each class. UsageError if a class has fewer."""
    random = Stream(seed)
    chosen = []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        if len(images) < per_class:
            raise UsageError(
                f"--labels {per_class}: class '{classes[label]}' has only {len(images)} images; "
                "ask for fewer, or 0 for all of train"
            )
        chosen.append(random.choice(images, per_class))
    return np.sort(np.concatenate(chosen))


def some_images(count: int, most: int, seed: int) -> np.ndarray:
    """Places of at most `most` of `count` images, in random order: those that scales are set by."""
    return torch.randperm(count, generator=generator(seed, "rescale"))[:most].numpy()
