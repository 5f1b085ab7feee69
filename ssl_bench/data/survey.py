"""What `bench data list` and `bench data check` say: which sets are there, and what is in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import numpy as np

from ssl_bench import catalogue
from ssl_bench.data.dataset import VOID, Dataset, Objects, Split, SplitName, Task, targets_of
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.errors import BenchError

Summary = tuple[str, list[list[str]]]  # a line about all images; a row for each class, after titles


def listing() -> Iterator[str]:
    """Every set by its name: where it is and how many images it has, or what it needs."""
    names = catalogue.names("data")
    width = max(map(len, names))
    for name in names:
        try:
            dataset = catalogue.dataset(name)
            said = [dataset.where, *counted(dataset)]
        except BenchError as error:
            said = str(error).splitlines()
        for head, line in zip_longest([name], said, fillvalue=""):
            yield f"{head:<{width}}  {line}"


def counted(dataset: Dataset) -> list[str]:
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
    results = list(samples(source, partial(_count, task=task), workers, f"reading {split}, {task}"))
    good = {i: one for i, one in enumerate(results) if not isinstance(one, Faulty)}
    bad = [one for one in results if isinstance(one, Faulty)]
    about, rows = _summary(source, task, good)
    grey = sum(one.grey for one in good.values())
    yield f"{split}, {task}: {len(good):,} images, {grey:,} grey{about}"
    yield from (f"  {note}" for note in source.notes)
    yield from _aligned(rows)
    refuse([line for one in bad for line in one.lines], f"{dataset.name} {split}, {task}")


@dataclass(frozen=True, eq=False)
class Count:
    """What is counted of one image; `pixels` is int64 (256,), how often an index is in its mask."""

    grey: bool
    objects: Objects | None
    pixels: np.ndarray | None


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


def _summary(source: Split, task: Task, good: dict[int, Count]) -> Summary:
    if task == "detection":
        return _boxes(source, [one.objects for one in good.values() if one.objects is not None])
    if task == "segmentation":
        return _pixels(source, [one.pixels for one in good.values() if one.pixels is not None])
    return _labels(source, list(good))


def _labels(source: Split, good: Sequence[int]) -> Summary:
    if source.labels is None:
        return ", no labels", []
    targets = targets_of(source.labels[list(good)], len(source.classes))
    rows = [["class", "images", "difficult only"]]
    for place, name in enumerate(source.classes):
        column = targets[:, place]
        rows.append([name, f"{(column == 1).sum():,}", f"{(column == -1).sum():,}"])
    return "", rows


def _boxes(source: Split, found: Sequence[Objects]) -> Summary:
    labels = np.concatenate([np.zeros(0, int), *(one.labels for one in found)])
    difficult = np.concatenate([np.zeros(0, bool), *(one.difficult for one in found)])
    empty = sum(len(one) == 0 for one in found)
    rows = [["class", "objects", "difficult", "images"]]
    for place, name in enumerate(source.classes):
        chosen = labels == place
        images = sum(bool((one.labels == place).any()) for one in found)
        hard = difficult[chosen].sum()
        rows.append([name, f"{chosen.sum():,}", f"{hard:,}", f"{images:,}"])
    about = f", {empty:,} without objects; {len(labels):,} objects, {difficult.sum():,} difficult"
    return about, rows


def _pixels(source: Split, found: Sequence[np.ndarray]) -> Summary:
    counts = np.array(found).reshape(-1, 256)  # (N, 256)
    share = counts.sum(0) / max(1, counts.sum())
    empty = int((counts[:, 1:VOID].sum(1) == 0).sum())
    rows = [["class", "images", "of the pixels"]]
    for place, name in enumerate(source.classes, 1):
        rows.append([name, f"{(counts[:, place] > 0).sum():,}", f"{share[place]:.2%}"])
    about = f", {empty:,} without objects; {share[VOID]:.1%} void, {share[0]:.1%} background"
    return about, rows


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        cells = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join(["", f"{name:<{widths[0]}}", *cells])
