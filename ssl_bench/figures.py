"""Pictures: labelled grids of images."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from torch import Tensor

matplotlib.use("Agg")


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
        line[0].set_ylabel(label, fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=160)
    plt.close(figure)
