"""Pictures: labelled grids of images, boxes over images, precision-recall curves."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_bench.files import written_at_once
from ssl_bench.pictures.style import styled, wrapped
from ssl_bench.runtime import is_main_process

LETTER = 0.075  # inches, of a title's mean letter; a wide one is 0.1
BESIDE = 18  # letters of size 8 along a picture of 1.25 inches


@styled
def picture_grid(rows: Mapping[str, Tensor], path: Path, title: str) -> None:
    """Draw one labelled row per entry, each float (B, 3, S, S) in [0, 1], to a PNG."""
    from matplotlib import pyplot as plt

    count = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(
        len(rows), count, figsize=(1.25 * count + 0.9, 1.25 * len(rows) + 0.4),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for cell, image in zip(line, images, strict=False):
            cell.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="lanczos")
        for cell in line:
            cell.set_xticks([])
            cell.set_yticks([])
            cell.set_frame_on(False)
        line[0].set_ylabel(wrapped(label, BESIDE), fontsize=8)
    _entitle(figure, title)
    _save(figure, path, 160)


@styled
def precision_recall_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, title: str
) -> None:
    """Draw one small panel per entry, recalls and precisions in [0, 1] by recall, to a PNG."""
    from matplotlib import pyplot as plt

    columns = min(5, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns + 0.5, 1.5 * rows + 0.5),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for cell in axes.flat:
        cell.set_axis_off()
    for cell, (label, (recall, precision)) in zip(axes.flat, curves.items(), strict=False):
        cell.set_axis_on()
        cell.step(recall, precision, where="pre", linewidth=1)
        cell.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        cell.tick_params(labelsize=7)
        cell.set_title(wrapped(label, BESIDE), fontsize=8)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    _entitle(figure, title)
    _save(figure, path, 160)


def voc_palette() -> np.ndarray:
    """The colours of VOC's masks, uint8 (256, 3): the bits of a class, dealt to red, green, blue.

    As the devkit's VOClabelcolormap: background is black, class 1 dark red, void (255) cream.
    """
    colours = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = np.arange(256) >> (3 * place + channel) & 1
            # The lowest bits of a class become the highest of its colour: neighbours differ most.
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours


@styled
def mask_grid(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    names: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw images, uint8 (h, w, 3), above their true and predicted masks, uint8 (h, w), to a PNG.

    In VOC's colours, with a legend of the classes that occur; `names` begin with the background.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    colours = voc_palette()
    rows = {"image": images, "true": truths, "predicted": predictions}
    figure, axes = plt.subplots(
        3, len(images), figsize=(1.6 * len(images) + 1.6, 4.8), squeeze=False, layout="constrained"
    )
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for cell, picture in zip(line, pictures, strict=True):
            cell.imshow(picture if picture.ndim == 3 else colours[picture], interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
        line[0].set_ylabel(label, fontsize=8)
    seen = np.unique(np.concatenate([mask.ravel() for mask in (*truths, *predictions)]))
    # Masks may hold 255, which is no class but a border that is not judged.
    called = {c: names[c] if c < len(names) else "void" for c in seen.tolist()}
    patches = [Patch(color=tuple(colours[c] / 255), label=name) for c, name in called.items()]
    figure.legend(handles=patches, loc="outside right center", fontsize=7)
    _entitle(figure, title)
    _save(figure, path, 160)


@styled
def box_grid(
    images: Sequence[np.ndarray],
    detections: np.ndarray,
    objects: np.ndarray,
    names: Sequence[str],
    path: Path,
    title: str,
    certain: float = 0.3,
) -> None:
    """Draw boxes over images, uint8 (h, w, 3), three a row, to a PNG.

    `detections` (N, D, 6) hold class, score and box, best first, `objects` (N, M, 6) class,
    difficult and box; class −1 is an empty place. Objects are dashed and white. Detections are
    coloured by class as in masks, with a legend: those of score `certain` or more, the best eight
    of an image, and at least one.
    """
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    columns = min(3, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns + 1.4, 2.9 * rows + 0.3), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    # Half as bright again: most of the masks' colours are too dark for lines over photographs.
    colours = np.clip(1.5 * voc_palette() / 255, 0, 1)  # background first
    seen = set[int]()
    for cell in axes.flat:
        cell.set_axis_off()
    for cell, image, found, truth in zip(axes.flat, images, detections, objects, strict=False):
        cell.imshow(image)
        for row in truth[truth[:, 0] >= 0]:
            _box(cell, row, "white", "--", "")
        # The first of an image is its best: it is drawn however uncertain.
        kept = found[(found[:, 0] >= 0) & ((found[:, 1] >= certain) | (np.arange(len(found)) == 0))]
        for row in kept[:8]:
            label, score = int(row[0]), row[1]
            seen.add(label)
            _box(cell, row, tuple(colours[(label + 1) % 255]), "-", f"{names[label]} {score:.2f}")
    patches = [Patch(color=tuple(colours[(c + 1) % 255]), label=names[c]) for c in sorted(seen)]
    truth = Patch(fill=False, edgecolor="grey", linestyle="--", label="object (white)")
    figure.legend(handles=[truth, *patches], loc="outside right center", fontsize=7)
    _entitle(figure, title)
    _save(figure, path, 120)


def _box(cell: Any, row: np.ndarray, colour: Any, line: str, text: str) -> None:
    """One box with its name at the upper left corner, outside if there is room.

    Pixel centres are at whole numbers.
    """
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = row[2:].tolist()
    cell.add_patch(
        Rectangle(
            (x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0,
            fill=False, edgecolor=colour, linestyle=line, linewidth=1.2,
        )
    )  # fmt: skip
    if text:
        outside = y0 > 0.06 * cell.get_ylim()[0]  # the axis points down
        cell.text(
            x0, y0, text, fontsize=6, color="white", va="bottom" if outside else "top",
            clip_on=True,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
        )  # fmt: skip


def _entitle(figure: Any, title: str) -> None:
    """A title in as many lines as the figure's width asks for."""
    letters = max(20, int(figure.get_figwidth() / LETTER))
    figure.suptitle("\n".join(textwrap.wrap(title, letters, break_on_hyphens=False)), fontsize=9)


def _save(figure: Any, path: Path, dpi: int) -> None:
    """Write a PNG, in the process that writes, and close the figure."""
    from matplotlib import pyplot as plt

    if is_main_process():  # all devices draw, so that none waits; one writes
        with written_at_once(path) as scratch:
            figure.savefig(scratch, dpi=dpi, format=path.suffix[1:])
    plt.close(figure)
