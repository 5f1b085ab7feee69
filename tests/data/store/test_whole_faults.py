"""The store of whole images: what is checked, and refused or left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.voc_folders import (
    LISTS,
    THINGS,
    annotate,
    draw_mask,
    refused,
    thing,
    write_list,
    write_mask,
)
from helpers.whole import opened, spoil
from ssl_bench.data.faults import Faults, lines_of
from ssl_bench.errors import DataError


def test_all_faults_are_in_one_report(year: Path, cache: Path) -> None:
    expected = spoil(year)
    with pytest.raises(Faults) as raised:
        opened(year)
    report = str(raised.value).splitlines()
    assert report[0] == "5 faults in voc:VOC2007 train, detection:"
    assert [part in line for part, line in zip(expected, report[1:-1], strict=True)] == [True] * 5
    assert report[-1] == "mend them, or pass --skip-bad-images to leave these images out"
    assert not any("--skip-bad-images" in line for line in report[:-1])
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_missing_files_of_one_image_are_all_named(year: Path) -> None:
    write_list(year, "trainval", ["000001", "000099"])
    with pytest.raises(Faults) as raised:
        opened(year)
    photo, annotation = lines_of(raised.value)
    for line, name in ((photo, "000099.jpg"), (annotation, "000099.xml")):
        assert f"{name} is missing" in line
        assert "though trainval.txt lists 000099" in line


def test_faults_of_masks_are_in_one_report(year: Path) -> None:
    (year / "SegmentationClass" / "000001.png").unlink()
    write_mask(year, "000002", draw_mask(0))
    write_mask(year, "000003", np.full((40, 200), 77))
    Image.new("RGB", (64, 64)).save(year / "SegmentationClass" / "000004.png")
    with pytest.raises(Faults) as raised:
        opened(year, "segmentation")
    parts = ["missing", "its image is 50×120", "index 77", "has colours"]
    lines = lines_of(raised.value)
    assert [part in line for part, line in zip(parts, lines, strict=True)] == [True] * 4


def test_a_single_fault_is_one_line(year: Path) -> None:
    path = year / "JPEGImages" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    remedy = "mend or remove it, or pass --skip-bad-images to leave these images out"
    refused(DataError, lambda: opened(year), path, remedy)


def test_hundreds_of_faults_are_counted(year: Path) -> None:
    write_list(year, "trainval", [f"{i:06}" for i in range(1, 301)])
    with pytest.raises(Faults) as raised:
        opened(year)
    report = str(raised.value).splitlines()
    assert report[0].startswith(f"{2 * (300 - len(THINGS))} faults in")
    assert report.count("  … and 291 more like these") == 2  # photographs, and annotations
    assert len(report) == 10


def test_images_with_faults_are_left_out_on_demand(year: Path) -> None:
    whole = opened(year)
    annotate(year, "000001", thing("dog", box=(1, 1, 500, 50)))
    (year / "JPEGImages" / "000003.jpg").unlink()
    store = opened(year, skip_bad_images=True)
    assert store.index.names == ["000002", "000004"]
    assert len(store.index.skipped) == 2
    for said, part in zip(store.index.skipped, ("500", "000003.jpg is missing"), strict=True):
        assert part in said
    np.testing.assert_array_equal(store.targets, whole.targets[[1, 3]])
    np.testing.assert_array_equal(store.sizes, whole.sizes[[1, 3]])
    for i, before in enumerate([1, 3]):
        np.testing.assert_array_equal(store.objects(i).boxes, whole.objects(before).boxes)
        np.testing.assert_array_equal(store.images(np.array([i])), whole.images(np.array([before])))
    with pytest.raises(DataError, match=r"500"):
        opened(year)


def test_nothing_left_is_refused_without_advice_to_skip(year: Path) -> None:
    for name in LISTS["trainval"]:
        (year / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(Faults) as raised:
        opened(year, skip_bad_images=True)
    assert "--skip" not in str(raised.value)


def test_huge_photo_is_refused(year: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(year, "test", ["000005"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(DataError, lambda: opened(year, split="test"), "000005.jpg", "exceeds limit", "mend")
