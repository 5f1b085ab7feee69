"""voc07, voc12 and voc12+sbd: what is there under these names, and which images are left out."""

from pathlib import Path

import numpy as np
import pytest

from helpers.voc_folders import (
    LISTS,
    add_masks,
    draw_mask,
    make_year,
    refused,
    write_list,
    write_mat,
    write_sbd,
)
from ssl_bench import catalogue
from ssl_bench.data.voc import dataset as voc
from ssl_bench.data.voc import official
from ssl_bench.errors import DataError, UsageError

WIDTH, HEIGHT = 96, 80  # of all images here


def test_named_sets_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_BENCH_DATA", str(tmp_path))
    for name, folder in [("voc07", "VOC2007"), ("voc12", "VOC2012"), ("voc12+sbd", "VOC2012")]:
        get = f"`bench data get {name.removesuffix('+sbd')}`"
        refused(DataError, lambda n=name: catalogue.dataset(n), f"VOCdevkit/{folder}", get)
        refused(UsageError, lambda n=name: catalogue.dataset(f"{n}:x"), name, "remove ':x'")
    monkeypatch.delenv("SSL_BENCH_DATA")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused(DataError, lambda: catalogue.dataset("voc07"), "home/.cache/ssl-bench-data/VOCdevkit")


def devkit(root: Path, year: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small official set, below SSL_BENCH_DATA."""
    lists = {"VOC2007": ("trainval", "test"), "VOC2012": ("train", "val")}[year]
    official = [(lists[0], len(LISTS[lists[0]])), (lists[1], len(LISTS[lists[1]]))]
    sizes = {"Main": official, "Segmentation": official}
    monkeypatch.setitem(voc.OFFICIAL, {"VOC2007": "voc07", "VOC2012": "voc12"}[year], sizes)
    monkeypatch.setenv("SSL_BENCH_DATA", str(root))
    return add_masks(make_year(root / "VOCdevkit" / year))


def test_named_sets_and_their_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = devkit(tmp_path, "VOC2007", monkeypatch)
    dataset = catalogue.dataset("voc07")
    assert dataset.name == "voc07"
    assert dataset.split("train", "detection").names == LISTS["trainval"]
    write_list(root, "test", ["000005"], folder="Segmentation")
    parts = (root, "is not voc07", "test of 1 image", f"voc:{root},name=voc07-mini")
    refused(DataError, lambda: catalogue.dataset("voc07"), *parts)
    asked = f"voc:{root},name=voc07"
    refused(UsageError, lambda: catalogue.dataset(asked), "test of 1 image", "voc07-mini")
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    refused(DataError, lambda: catalogue.dataset("voc07"), "Main/test.txt", "bench data get voc07")


def test_voc12_stays_train_and_val_where_test_images_were_added(tmp_path, monkeypatch):
    devkit(tmp_path, "VOC2012", monkeypatch)  # has a test.txt
    dataset = catalogue.dataset("voc12")
    assert dataset.split("train", "segmentation").names == LISTS["train"]
    assert dataset.split("test").names == LISTS["val"]


# ---- SBD
# Of SBD's images: 000003 is in val by name, copy_of_4 by content; 000001 is in VOC's train.
EXTRA = {"train": ["000001", "000003", "2008_000001"], "val": ["copy_of_4", "2008_000002"]}


@pytest.fixture
def with_sbd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    photos = devkit(tmp_path, "VOC2012", monkeypatch) / "JPEGImages"
    monkeypatch.setattr(
        official, "SBD_SIZES", {name: len(images) for name, images in EXTRA.items()}
    )
    same = {"copy_of_4": photos / "000004.jpg"}
    return write_sbd(tmp_path / "benchmark_RELEASE" / "dataset", EXTRA, same)


def test_sbd_trains_without_any_image_of_val(with_sbd, capsys):
    dataset = catalogue.dataset("voc12+sbd")
    train, test = (dataset.split(split, "segmentation") for split in ("train", "test"))
    assert train.names == [*LISTS["train"], "2008_000001", "2008_000002"]
    assert test.names == LISTS["val"]
    assert dataset.split_for_pretraining("train").names == train.names
    said = "2 of SBD's 5 images are in VOC2012's val and left out (1 by name, 1 by content), 1 are"
    assert said in capsys.readouterr().err
    digests = [{split.whole(i)[1] for i in range(len(split.names))} for split in (train, test)]
    assert not digests[0] & digests[1]
    np.testing.assert_array_equal(train.mask(0), draw_mask(0))  # VOC's own, with void
    np.testing.assert_array_equal(train.mask(3), np.minimum(draw_mask(1), 20))
    assert train.mask(3).dtype == np.uint8


def test_sbd_serves_segmentation_only(with_sbd: Path) -> None:
    dataset = catalogue.dataset("voc12+sbd")
    for task in ("classification", "detection"):
        refused(DataError, lambda t=task: dataset.split("train", t), "voc12+sbd", task)


def test_sbd_that_is_missing_or_other(with_sbd: Path) -> None:
    (with_sbd / "val.txt").write_text("2008_000002\n")
    refused(DataError, lambda: catalogue.dataset("voc12+sbd"), "val.txt lists 1 image", "SBD's 2:")
    (with_sbd / "val.txt").unlink()
    refused(DataError, lambda: catalogue.dataset("voc12+sbd"), "val.txt", "unpack it anew")
    with_sbd.rename(with_sbd.parent / "data")
    refused(DataError, lambda: catalogue.dataset("voc12+sbd"), with_sbd, "get voc12+sbd")


def test_sbds_masks_are_checked(with_sbd: Path) -> None:
    path = with_sbd / "cls" / "2008_000001.mat"
    split = catalogue.dataset("voc12+sbd").split("train", "segmentation")

    def read() -> object:
        return split.mask(2)

    write_mat(path, np.full((HEIGHT, WIDTH), 21))
    refused(DataError, read, path, "index 21")
    write_mat(path, draw_mask(0, WIDTH, HEIGHT))
    refused(DataError, read, path, "80×96")
    for wrong in (np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH, 3), np.uint8)):
        refused(DataError, lambda w=wrong: read() if write_mat(path, w) else 0, path, "dimensions")
    whole = path.read_bytes()
    for content in (b"", b"no file of MATLAB", whole[:-20], whole[:150], bytes(2**20 + 1)):
        path.write_bytes(content)
        refused(DataError, read, path, "cannot be read as a mask", "unpack")
    path.unlink()
    refused(DataError, read, path, "missing", "train.txt lists 2008_000001")
