"""What `bench data list` and `bench data check` say: which sets are there, and what is in them."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np

from ssl_bench import catalogue
from ssl_bench.data.dataset import VOID, Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.errors import BenchError, counted

Summary = tuple[str, list[list[str]]]  # a line about all images; a row for each class, after titles


def listing() -> Iterator[str]:
    """Every set by its name: where it is and how many images it has, or what it needs."""
    names = catalogue.names("data")
    width = max(map(len, names))
    for name in names:
        try:
            dataset = catalogue.dataset(name)
            said = [dataset.where, *image_counts(dataset)]
        except BenchError as error:
            said = str(error).splitlines()
        for head, line in zip_longest([name], said, fillvalue=""):
            yield f"{head:<{width}}  {line}"


def image_counts(dataset: Dataset) -> list[str]:
    """How many images there are, a line for each task."""
    lines = []
    for task in dataset.tasks:
        counts = [f"{split} {dataset.count(split, task):,}" for split in dataset.splits]
        lines.append(f"{task}: {', '.join(counts)}")
    return lines


def check(dataset: Dataset, task: Task | None, workers: int) -> Iterator[str]:
    """Read every image of every split for a task, or for all; yields what there is, line by line.

    Raises Faults at the end, with all that is wrong.
    """
    if task is not None:
        dataset.check_task(task)
    faults: list[str] = []
    for one in dataset.tasks if task is None else (task,):
        for split in dataset.splits:
            with collecting_faults(faults):
                yield from _check(dataset, split, one, workers)
    refuse(faults, dataset.name)


def _check(dataset: Dataset, split: SplitName, task: Task, workers: int) -> Iterator[str]:
    from ssl_bench.data.store.packing import Faulty, samples  # torch, which listing does not need

    source = dataset.split(split, task)
    counts, faults, good = Counts(len(source.classes)), list[str](), array("q")
    results = samples(source, partial(_count, task=task), workers, f"reading {split}, {task}")
    for place, one in enumerate(results):
        if isinstance(one, Faulty):
            faults += one.lines
        else:
            counts.add(one)
            good.append(place)
    about, rows = _summary(source, task, counts, good)
    yield f"{split}, {task}: {counted(len(good), 'image')}, {counts.grey:,} grey{about}"
    yield from (f"  {note}" for note in source.notes)
    yield from _aligned(rows)
    refuse(faults, f"{dataset.name} {split}, {task}")


@dataclass(frozen=True, eq=False)
class Count:
    """What is counted of one image; `pixels` is int64 (256,), how often an index is in its mask."""

    grey: bool
    objects: Objects | None
    pixels: np.ndarray | None


class Counts:
    """The same of all images, of which none is kept: (C,) by class, (256,) by index of a mask."""

    def __init__(self, classes: int) -> None:
        self.grey, self.empty = 0, 0
        self.objects, self.difficult, self.images = np.zeros((3, classes), int)
        self.pixels, self.masks = np.zeros((2, 256), int)

    def add(self, one: Count) -> None:
        """Count one more image."""
        self.grey += one.grey
        if one.objects is not None:
            labels, classes = one.objects.labels, len(self.objects)
            found = np.bincount(labels, minlength=classes)
            self.empty += not len(labels)
            self.objects += found
            self.images += found > 0
            self.difficult += np.bincount(labels[one.objects.difficult], minlength=classes)
        if one.pixels is not None:
            self.empty += not one.pixels[1:VOID].any()
            self.pixels += one.pixels
            self.masks += one.pixels > 0


def _count(source: Split, place: int, task: Task) -> Count:
    """Grey is an image whose three channels are the same."""
    from ssl_bench.data.store.samples import read_sample
    from ssl_bench.data.store.squares import LEAST

    sample = read_sample(source, place, task)
    if min(sample.pixels.shape[:2]) < LEAST:
        source.load(place, LEAST, LEAST)  # raises what the store of squares would
    grey = bool((sample.pixels == sample.pixels[..., :1]).all())
    if sample.mask is None:
        return Count(grey, sample.objects, None)
    return Count(grey, sample.objects, np.bincount(sample.mask.ravel(), minlength=256))


def _summary(source: Split, task: Task, counts: Counts, good: Sequence[int]) -> Summary:
    if task == "detection":
        return _boxes(source, counts)
    if task == "segmentation":
        return _pixels(source, counts)
    return _labels(source, good)


def _labels(source: Split, good: Sequence[int]) -> Summary:
    if source.labels is None:
        return ", no labels", []
    labels, classes = source.labels[good], len(source.classes)
    if labels.ndim == 1:  # not as targets, which would be a million times a thousand numbers
        counts = np.bincount(labels, minlength=classes), np.zeros(classes, int)
    else:
        counts = (labels == 1).sum(0), (labels == -1).sum(0)
    rows = [["class", "images", "difficult only"]]
    for name, there, hard in zip(source.classes, *counts, strict=True):
        rows.append([name, f"{there:,}", f"{hard:,}"])
    return "", rows


def _boxes(source: Split, counts: Counts) -> Summary:
    rows = [["class", "objects", "difficult", "images"]]
    columns = zip(counts.objects, counts.difficult, counts.images, strict=True)
    for name, numbers in zip(source.classes, columns, strict=True):
        rows.append([name, *(f"{number:,}" for number in numbers)])
    about = (
        f", {counts.empty:,} without objects; {counted(counts.objects.sum(), 'object')}, "
        f"{counts.difficult.sum():,} difficult"
    )
    return about, rows


def _pixels(source: Split, counts: Counts) -> Summary:
    share = counts.pixels / max(1, counts.pixels.sum())
    rows = [["class", "images", "of the pixels"]]
    for place, name in enumerate(source.classes, 1):
        rows.append([name, f"{counts.masks[place]:,}", f"{share[place]:.2%}"])
    about = f", {counts.empty:,} without objects; {share[VOID]:.1%} void, {share[0]:.1%} background"
    return about, rows


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join(["", f"{name:<{widths[0]}}", *cells])
