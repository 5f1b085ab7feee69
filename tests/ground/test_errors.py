"""What messages are made of: counts, and names of others."""

import pytest

from ssl_bench.errors import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "image", "0 images"), (1, "image", "1 image"), (2, "image", "2 images"),
     (1, "class", "1 class"), (21_642, "class", "21,642 classes"),
     (1, "test image", "1 test image"), (2, "other process", "2 other processes")],
)  # fmt: skip
def test_counts_read_as_people_say_them(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
