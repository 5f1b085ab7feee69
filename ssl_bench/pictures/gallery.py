"""Figures for print from one's own runs: `bench figures`, each a PNG and a PDF.

What a figure shows is a function found through the entry points `ssl_bench.figure`: it takes a
Gallery, which opens encoders and images, and returns a Grid of labelled pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.style import save_for_print
from ssl_bench.stream import Stream
from ssl_bench.tables.names import varying
from ssl_bench.training.augment import center_crop
from ssl_bench.training.pretext import Inpaints

WIDTH, HIGHEST = 6.9, 9.5  # inches of a page's text
MARGIN = 0.95  # of them for the labels of rows
LINE = 0.17  # inches of a line of text
SMALL = 7  # points
LETTER = 0.64  # mean width of a letter over the size of its font, on the safe side
POINTS = 72  # of an inch


@dataclass(frozen=True)
class Grid:
    """Rows of pictures, float (H, W, 3) in [0, 1], or None for an empty place.

    `square` is the top, left and side of an outline, in px, that `outlined` columns carry.
    """

    title: str
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]
    headings: Sequence[str] = ()
    square: tuple[int, int, int] | None = None
    outlined: Sequence[int] = ()
    gap: float = 0.03  # between pictures, inches

    def draw(self, path: Path) -> list[Path]:
        """Write `path` with .png, at 300 dpi, and with .pdf; returns both."""
        from matplotlib import pyplot as plt
        from matplotlib.patches import Rectangle

        columns = max(len(pictures) for _, pictures in self.rows)
        margin = MARGIN if any(label for label, _ in self.rows) else 0.03
        side = (WIDTH - margin) / columns
        # Inches by hand: matplotlib's layouts give every row one height, these have their own.
        lines = 1 + max((h.count("\n") for h in self.headings), default=-1)
        top = LINE * (1.8 + 0.75 * lines)
        aspects = [max(_aspect(p) for p in pictures) for _, pictures in self.rows]
        side = min(side, (HIGHEST - top) / sum(aspects))  # narrower where the page is full
        tallest = [aspect * side for aspect in aspects]
        height = sum(tallest) + top + 0.05
        figure = plt.figure(figsize=(WIDTH, height))
        figure.text(0.005, 1 - LINE / height, self.title, fontsize=SMALL + 1, va="center")
        for i, heading in enumerate(self.headings):
            middle = (margin + side * (i + 0.5)) / WIDTH
            figure.text(
                middle, 1 - (top - 0.04) / height, heading, fontsize=_fitting(heading, side - 0.04),
                ha="center", va="bottom",
            )  # fmt: skip
        at = top  # inches from above; matplotlib counts shares of the figure from below
        for (label, pictures), tall in zip(self.rows, tallest, strict=True):
            figure.text(
                (margin - 0.06) / WIDTH, 1 - (at + tall / 2) / height, label,
                fontsize=_fitting(label, margin - 0.08), ha="right", va="center",
            )  # fmt: skip
            for i, picture in enumerate(pictures):
                if picture is not None:
                    place = ((margin + side * i) / WIDTH, 1 - (at + tall) / height)
                    extent = ((side - self.gap) / WIDTH, (tall - self.gap) / height)
                    cell = figure.add_axes((*place, *extent))
                    cell.imshow(picture, interpolation="nearest")
                    cell.set_axis_off()
                    if self.square and i in self.outlined:
                        y, x, length = self.square
                        cell.add_patch(
                            Rectangle(  # pixel centres are at whole numbers
                                (x - 0.5, y - 0.5), length, length, fill=False, color="yellow",
                                linewidth=0.6,
                            )
                        )  # fmt: skip
            at += tall
        return save_for_print(figure, path, (".png", ".pdf"))  # of pictures, not of lines


def _fitting(text: str, width: float) -> float:
    """Points at which the longest line of `text` is at most `width` inches wide."""
    longest = max(len(line) for line in text.split("\n"))
    return min(SMALL, POINTS * width / (LETTER * max(1, longest)))


def _aspect(picture: np.ndarray | None) -> float:
    return 1.0 if picture is None else picture.shape[0] / picture.shape[1]


@dataclass
class Gallery:
    """What figures are drawn from; `count` images of the test split, or of a set without one."""

    encoders: Sequence[Reference]
    dataset: Dataset
    count: int = 6
    seed: int = 0
    workers: int = 2
    _stores: dict[tuple[SplitName, int], ImageStore] = field(default_factory=dict)

    def store(self, split: SplitName, size: int) -> ImageStore:
        """The decoded images of a split, for crops of `size`."""
        if (split, size) not in self._stores:
            self._stores[split, size] = open_store(
                self.dataset, split, size, workers=self.workers, labelled=False
            )
        return self._stores[split, size]

    @cached_property
    def shown_split(self) -> SplitName:
        """`test`, or `train` where that is all there is."""
        return "test" if "test" in self.dataset.splits else "train"

    def chosen(self, size: int) -> np.ndarray:
        """int64 (count,): which images are shown, by the seed alone."""
        store = self.store(self.shown_split, size)
        order = Stream(self.seed).permutation(len(store))
        return np.sort(order[: self.count])

    def images(self, size: int) -> Tensor:
        """uint8 (count, 3, size, size): central crops of the chosen images."""
        return center_crop(self.store(self.shown_split, size).images(self.chosen(size)), size)

    def inpainting(self) -> list[tuple[str, Reference, Inpaints]]:
        """The encoders whose pretext fills holes, with their labels."""
        found = []
        for label, reference in zip(self.labels, self.encoders, strict=True):
            pretext = reference.pretext() if reference.pretext else None
            if isinstance(pretext, Inpaints):
                found.append((label, reference, pretext))
        return found

    @cached_property
    def labels(self) -> list[str]:
        """Each encoder's name, and the settings that tell runs of one method apart."""
        configs = [
            {**r.run.identity.config, "kept": r.run.identity.kept or "end"} if r.run else {}
            for r in self.encoders
        ]
        labels = []
        for reference, config in zip(self.encoders, configs, strict=True):
            same = [
                c for r, c in zip(self.encoders, configs, strict=True) if r.name == reference.name
            ]
            differing = [
                config[name] if isinstance(config[name], str) else f"{name}={config[name]}"
                for name in sorted(varying(same))
                if name in config
            ]
            labels.append("\n".join([reference.name, *differing]))
        return [
            f"{label}\n{f'@{r.run.key[:6]}' if r.run else r.digest[:6]}"
            if labels.count(label) > 1
            else label
            for label, r in zip(labels, self.encoders, strict=True)
        ]


def pictures(images: Tensor) -> list[np.ndarray]:
    """uint8 or float (B, 3, H, W) -> float (H, W, 3) each, in [0, 1]."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return list(values.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy())
