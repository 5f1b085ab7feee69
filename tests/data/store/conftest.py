"""A cache of each test's own, and a folder like VOC2007's."""

from pathlib import Path

import pytest

from helpers.photos import draw_photo
from helpers.voc_folders import add_masks, draw_mask, make_year, write_mask
from helpers.whole import SIZES


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """For every test here."""


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """A folder like VOC2007's, its training images of four sizes; a test may spoil it."""
    root = add_masks(make_year(tmp_path / "VOC2007"))
    for i, (name, (width, height)) in enumerate(SIZES.items()):
        draw_photo(i, width, height).save(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root, name, draw_mask(i, height, width))
    return root
