"""Parts of the training set: what a choice is made on, few labels, and some images."""

from collections.abc import Mapping

import numpy as np

from ssl_bench.data.dataset import targets_of
from ssl_bench.errors import DataError, counted
from ssl_bench.progress import say_once
from ssl_bench.stream import Stream

SHOWN = 10  # classes that a line names


def check_labels(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """DataError unless train holds two classes or more, and what test asks for.

    Both are int64 (N,), or int8 (N, C) of 1, 0 and −1, which is not judged. Of several labels an
    image a class that train lacks is left out (see `judged`), and it is said.
    """
    known, asked = present(train), present(test)
    if len(known) < 2:
        raise DataError(f"the training images hold {counted(len(known), 'class')}: two are needed")
    absent = np.setdiff1d(asked, known)
    if len(absent) and (test.ndim == 1 or len(absent) == len(asked)):
        raise DataError(f"class '{classes[absent[0]]}' is in the test images but not in train")
    if len(absent):
        names = ", ".join(classes[c] for c in absent)
        say_once(f"warning: no training image has {names}: left out of the mean over the classes")
    if not len(asked):
        raise DataError("the test images hold no class: there is nothing to find")


def judged(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Targets (N, C) of test; −1, not to be judged, of classes that no training image has."""
    kept = test.copy()
    kept[:, np.setdiff1d(present(test), present(train))] = -1
    return kept


def left_out(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """For a record's selection: the classes that `judged` takes out."""
    names = [classes[c] for c in np.setdiff1d(present(test), present(train))]
    return {"left_out": names} if names else {}


def scarce(annotations: np.ndarray, wanted: int, classes: tuple[str, ...]) -> dict[str, int]:
    """The classes with fewer images than `wanted`, and how many they have."""
    targets = targets_of(annotations, len(classes))
    counts = (targets == 1).sum(0)
    return {classes[c]: int(counts[c]) for c in np.flatnonzero((counts > 0) & (counts < wanted))}


def listed(counts: Mapping[str, int]) -> str:
    """Classes with a number each, the lowest first, in a line."""
    ordered = sorted(counts.items(), key=lambda pair: pair[1])
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(f"{name} ({count})" for name, count in ordered[:SHOWN]) + more


def present(annotations: np.ndarray) -> np.ndarray:
    """The classes that an image has, ascending, by labels (N,) or targets (N, C)."""
    if annotations.ndim == 1:
        return np.unique(annotations)
    return np.flatnonzero((annotations == 1).any(0))


def held_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (fitted, held out) of a stratified split; each class keeps its share.

    Where scikit-learn's needs more images, each class gives its share by itself, an image at least
    and all but one at most: a class of one image gives none. DataError if none gives any.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
    try:
        fitted, held = next(splitter.split(np.zeros(len(labels)), labels))
    except ValueError:
        fitted, held = _held_out_by_class(labels, share, seed)
    return np.sort(fitted), np.sort(held)


def _held_out_by_class(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    random, chosen = Stream([seed, len(labels)]), []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(images))), len(images) - 1)
        chosen.append(random.choice(images, count))
    held = np.concatenate(chosen)
    if not len(held):
        raise DataError(f"each of {len(labels)} images is a class of its own: none can be held out")
    return np.setdiff1d(np.arange(len(labels)), held), held


def not_held_out(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """For a record's selection: the classes of one image, which chooses nothing; said, too."""
    alone = [*scarce(labels, 2, classes)]
    if alone:
        names = ", ".join(alone[:SHOWN]) + (", …" if len(alone) > SHOWN else "")
        say_once(f"warning: a single training image has {names}: it is fitted, and chooses nothing")
    return {"not_held_out": alone} if alone else {}


def few_labels(annotations: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of `per_class` random images with each class, ascending; all images if it is 0.

    Annotations are labels (N,), or targets (N, C): then an image may be drawn for several of its
    classes, and all its labels are learnt, so there are at most `per_class`·C. Of a class with
    fewer, all are taken.
    """
    if not per_class:
        return np.arange(len(annotations))
    random = Stream(seed)
    chosen = []
    for label in present(annotations):
        has = annotations == label if annotations.ndim == 1 else annotations[:, label] == 1
        images = np.flatnonzero(has)
        chosen.append(random.choice(images, min(per_class, len(images))))
    return np.unique(np.concatenate(chosen))


def fewer_labels(
    annotations: np.ndarray, per_class: int, classes: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """For a record's selection: the classes that have fewer images than asked for; said, too."""
    found = scarce(annotations, per_class, classes)
    if found:
        say_once(f"warning: fewer training images than {per_class} have {listed(found)}: all taken")
    return {"fewer": found} if found else {}


def some_images(count: int, most: int, seed: int) -> np.ndarray:
    """Places of at most `most` of `count` images, in random order: those that scales are set by."""
    import torch

    from ssl_bench.counter import generator

    return torch.randperm(count, generator=generator(seed, "rescale"))[:most].numpy()
