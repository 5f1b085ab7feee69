"""Grids of pictures: none is larger than a page, and no words lie on others."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.gallery import DPI, WIDTH
from ssl_bench.pictures import gallery
from ssl_bench.pictures.gallery import Grid

PAGE = 11.0  # inches high
SIZES: dict[str, list[tuple[str, list[int]]]] = {  # count of images, and pictures in the rows
    "1 image of masks": [("mask", [1] * 6)],
    "2 images of masks": [("mask", [2] * 6)],
    "20 images across": [("input", [20] * 3)],
    "20 images down": [("", [6] * 20)],
    "4 encoders' filters": [("random", [1] * 4)],
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Grid], tuple[Any, list[Any]]]:
    """What a grid is drawn as: the figure's size, and the box of each text in it, in inches."""
    from matplotlib import pyplot as plt

    found: list[tuple[Any, list[Any]]] = []

    def measure(figure: Any, _path: Path, _suffixes: Any) -> list[Path]:
        figure.set_dpi(DPI)  # letters are set on whole pixels
        boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
        inches = [box.transformed(figure.dpi_scale_trans.inverted()) for box in boxes]
        found.append((figure.get_size_inches(), inches))
        plt.close(figure)
        return []

    monkeypatch.setattr(gallery, "save_for_print", measure)

    def drawn(grid: Grid) -> tuple[Any, list[Any]]:
        grid.draw(Path("never written"))
        return found[-1]

    return drawn


@pytest.mark.parametrize("kind", SIZES)
def test_no_grid_is_larger_than_a_page(measured, kind):
    blank = np.ones((8, 8, 3))
    (width, height), _ = measured(
        Grid(kind, [(label, [blank] * n) for label, counts in SIZES[kind] for n in counts])
    )
    assert width == pytest.approx(WIDTH)
    assert height <= PAGE


LONG = "inpainting\nmask=random-region\nwidth=0.5"  # one of two networks for holes anywhere


def test_labels_of_rows_lie_on_the_page(measured):
    blank = np.ones((8, 8, 3))
    (width, height), boxes = measured(Grid("rows", [(LONG, [blank] * 6), (LONG, [blank] * 6)]))
    assert len(boxes) == 3
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_headings_lie_beside_each_other(measured):
    """Seven columns: what `methods` shows of two networks."""
    blank = np.ones((8, 8, 3))
    (width, height), (title, *headings) = measured(Grid("columns", [("", [blank] * 7)], [LONG] * 7))
    assert title.y1 <= height
    assert headings[0].x0 >= 0
    assert headings[-1].x1 <= width
    assert all(heading.y1 <= title.y0 for heading in headings)
    assert all(one.x1 <= other.x0 for one, other in pairwise(headings))
