"""A folder like VOC2007's for each test, and a cache of its own."""

from pathlib import Path

import pytest

from helpers.voc_folders import make_year


@pytest.fixture(autouse=True)
def _own_cache(cache: Path) -> None:
    """For every test here."""


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """A folder like VOC2007's: six images of 96×80 px; a test may spoil it."""
    return make_year(tmp_path / "VOC2007")
