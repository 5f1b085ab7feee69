"""Hostile files in a folder like VOC's are named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.hostile_files import EPS, IMAGES, text_bomb
from helpers.voc_folders import add_masks, annotate, make_year, thing

VOC: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bomb": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["30,000 px.png"]())),
    "text": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["text.png"]())),
    "large": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(IMAGES["12,000 px.png"]())),
    "script": ("JPEGImages/000001.jpg", lambda path: path.write_bytes(EPS)),
    "mask": (
        "SegmentationClass/000001.png",
        lambda path: path.write_bytes(text_bomb(b"iTXt", b"a\0\1\0\0\0")),
    ),
    "script as mask": ("SegmentationClass/000001.png", lambda path: path.write_bytes(EPS)),
    "nested": (
        "Annotations/000001.xml",
        lambda path: path.write_text(f"<annotation>{'<a>' * 30_000}{'</a>' * 30_000}</annotation>"),
    ),
    "unclosed": ("Annotations/000001.xml", lambda path: path.write_text("<annotation>" * 30_000)),
    "huge box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, 1e300, 40))),
    ),
    "no box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, "nan", 40))),
    ),
    "infinite box": (
        "Annotations/000001.xml",
        lambda path: annotate(path.parent.parent, "000001", thing("dog", box=(1, 1, "1e999", 40))),
    ),
}


@pytest.mark.parametrize("kind", VOC)
def test_a_hostile_file_of_voc_is_named(bench, tmp_path, ghostscript, kind):
    year, (name, spoil) = add_masks(make_year(tmp_path / "VOC2007")), VOC[kind]
    spoil(year / name)
    result = bench("data", "check", f"voc:{year}", "--workers", 0)
    assert result.code == 1, result
    assert str(year / name) in result.err
    assert "000002" not in result.err
    assert not ghostscript.exists()
