"""VOC's layout with other classes than VOC's: where they come from, and what images alone allow."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bench import TOY, Bench
from helpers.photos import draw_photo
from helpers.voc_folders import (
    add_masks,
    annotate,
    make_year,
    refused,
    thing,
    write_list,
    write_mask,
)
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.survey import check
from ssl_bench.data.voc.files import CLASSES
from ssl_bench.errors import DataError, UsageError

PARTS = {"a": ["nut"], "b": ["bolt", "nut"], "c": ["washer"], "d": []}
LISTS = {"train": ["a", "b"], "val": ["c", "d"]}


def write_parts(
    root: Path, lists: dict[str, Sequence[str]] | None = None, suffix: str = ".jpg"
) -> Path:
    (root / "JPEGImages").mkdir(parents=True)
    for i, (image, names) in enumerate(PARTS.items()):
        annotate(root, image, *(thing(name) for name in names), filename=f"{image}.png")
        draw_photo(i).save(root / "JPEGImages" / f"{image}{suffix}")
    for name, images in (LISTS if lists is None else lists).items():
        write_list(root, name, images)
    return root


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return write_parts(tmp_path / "parts")


# ---- where classes come from
def test_the_annotations_of_both_lists_name_them(
    parts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train = catalogue.dataset(f"voc:{parts}").split("train")
    assert train.classes == ("bolt", "nut", "washer")
    assert train.labels is not None
    assert train.labels.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert "3 classes by its annotations" in capfd.readouterr().err
    found = catalogue.dataset(f"voc:{parts}").split("train", "detection").objects(1)
    assert found.labels.tolist() == [0, 1]


def test_names_of_vocs_alone_are_vocs_twenty(parts: Path) -> None:
    """Digests of committed records hold all twenty, of reduced packs, too."""
    for image in PARTS:
        annotate(parts, image, thing("cat"))
    dataset = catalogue.dataset(f"voc:{parts}")
    assert dataset.split("train").classes == CLASSES
    assert catalogue.dataset(f"voc:{parts},classes=cat").split("train").classes == ("cat",)


def test_given_classes_have_the_given_order_and_must_be_all(parts: Path) -> None:
    asked = f"voc:{parts},classes=washer,nut, bolt ,name=hardware"
    assert catalogue.dataset(asked).split("train").classes == ("washer", "nut", "bolt")
    asked = f"voc:{parts},classes=nut,washer"
    refused(
        DataError, lambda: catalogue.dataset(asked).split("train"),
        "b.xml", "unknown class 'bolt'", "classes=A,B,",
    )  # fmt: skip


@pytest.mark.parametrize("given", ["", "a,,b", "a,a", "a" * 101])
def test_classes_that_are_none(parts: Path, given: str) -> None:
    refused(
        UsageError, lambda: catalogue.dataset(f"voc:{parts},classes={given}"), "each class once"
    )


def test_an_official_year_has_vocs_classes_only(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"Main": [("train", 2), ("val", 2)], "Segmentation": []}
    monkeypatch.setattr("ssl_bench.data.voc.dataset.OFFICIAL", {"voc12": sizes})
    with pytest.raises(DataError, match="unknown class 'nut'"):
        catalogue.dataset(f"voc:{parts}").split("train")


def test_class_files_of_own_classes_are_no_lists_and_are_compared(parts: Path) -> None:
    write_list(parts, "nut_train", ["a  1", "b -1"])
    assert "nut_train" not in catalogue.dataset(f"voc:{parts}").lists["Main"].known  # type: ignore[attr-defined]
    refused(
        DataError, lambda: catalogue.dataset(f"voc:{parts}").split("train"),
        "nut_train.txt says -1 for b", "annotation says 1",
    )  # fmt: skip


def test_data_check_lists_them(parts: Path) -> None:
    lines = "\n".join(check(catalogue.dataset(f"voc:{parts}"), "detection", 0))
    assert "washer" in lines
    assert "aeroplane" not in lines


# ---- masks
def test_indices_without_names_and_with_them(
    parts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for image in PARTS:
        write_mask(parts, image, np.pad([[0, 3, 255]], ((0, 79), (0, 93))))
    for name, images in LISTS.items():
        write_list(parts, name, images, folder="Segmentation")
    split = catalogue.dataset(f"voc:{parts}").split("train", "segmentation")
    assert split.classes == ("class 1", "class 2", "class 3")
    assert "3 classes by its masks (1 of them used), without names" in capfd.readouterr().err
    assert set(np.unique(split.mask(0))) == {0, 3, 255}
    named = catalogue.dataset(f"voc:{parts},classes=x,y,z").split("train", "segmentation")
    assert named.classes == ("x", "y", "z")
    few = catalogue.dataset(f"voc:{parts},classes=x,y").split("train", "segmentation")
    refused(DataError, lambda: few.mask(0), "index 3", "takes 0 to 2")


def test_masks_of_a_set_of_vocs_have_vocs_names(tmp_path: Path) -> None:
    year = add_masks(make_year(tmp_path / "VOC2007"))
    assert catalogue.dataset(f"voc:{year}").split("train", "segmentation").classes == CLASSES


def test_a_mask_of_16_bits_is_indices(tmp_path: Path) -> None:
    year = add_masks(make_year(tmp_path / "VOC2007"))
    path = year / "SegmentationClass" / "000001.png"
    indices = np.zeros((80, 96), np.uint16)
    indices[3:5] = 20
    Image.fromarray(indices).save(path)
    split = catalogue.dataset(f"voc:{year}").split("train", "segmentation")
    np.testing.assert_array_equal(split.mask(0), indices)
    indices[0, 0] = 300  # as 8 bits it would be 44
    Image.fromarray(indices).save(path)
    refused(DataError, lambda: split.mask(0), "index 300")


# ---- what is not read cannot refuse
def test_pretraining_takes_images_whatever_the_annotations_are(
    parts: Path, bench: Bench, workspace: Path
) -> None:
    (parts / "Annotations" / "a.xml").write_text("<annotation>")
    dataset = catalogue.dataset(f"voc:{parts}")
    assert len(open_store(dataset, "train", 64, workers=0, labelled=False)) == 2
    with pytest.raises(DataError, match=r"a\.xml"):
        open_store(dataset, "train", 64, workers=0)
    for path in (parts / "Annotations").iterdir():
        path.unlink()
    (parts / "Annotations").rmdir()
    made = bench("pretrain", "random", *TOY, "--workspace", workspace, "--data", f"voc:{parts}")
    assert made.code == 0, made.err
    assert "taken without labels" in made.err


def test_readable_labels_keep_their_digest(parts: Path) -> None:
    dataset = catalogue.dataset(f"voc:{parts}")
    stores = [open_store(dataset, "train", 64, workers=0, labelled=b) for b in (True, False)]
    assert stores[0].index.digest == stores[1].index.digest


def test_a_fractional_truncated_is_not_read(parts: Path) -> None:
    annotate(parts, "a", thing("nut").replace("truncated>1", "truncated>0.34"))
    assert catalogue.dataset(f"voc:{parts}").split("train").labels is not None


def test_photos_of_another_suffix(tmp_path: Path) -> None:
    split = catalogue.dataset(f"voc:{write_parts(tmp_path / 'p', suffix='.png')}").split("train")
    assert split.whole(0)[0].shape == (80, 96, 3)


# ---- lists
@pytest.mark.parametrize(
    ("lists", "names"),
    [
        (("train", "val", "test"), ("train", "test")),
        (("trainval", "test"), ("trainval", "test")),
        (("trainval",), ("trainval", None)),
        (("train", "val", "trainval"), ("train", "val")),
    ],
)
def test_lists_that_are_there(
    tmp_path: Path, lists: Sequence[str], names: tuple[str, str | None]
) -> None:
    root = write_parts(
        tmp_path / "p", {name: [image] for name, image in zip(lists, PARTS, strict=False)}
    )
    dataset = catalogue.dataset(f"voc:{root}")
    assert dataset.split("train").names == [list(PARTS)[lists.index(names[0])]]
    if names[1]:
        assert dataset.split("test").names == [list(PARTS)[lists.index(names[1])]]
    else:
        refused(UsageError, lambda: dataset.split("test"), "to test on, only trainval", "test=LIST")
        assert "trainval" not in "".join(dataset.splits)
        assert list(check(dataset, "classification", 0))


# ---- without ImageSets
def test_no_lists_at_all(parts: Path) -> None:
    """Images and annotations alone: all are there to train on, and a test set can be drawn."""
    for path in (parts / "ImageSets" / "Main").iterdir():
        path.unlink()
    dataset = catalogue.dataset(f"voc:{parts}")
    assert (dataset.splits, dataset.tasks) == (("train",), ("classification", "detection"))
    assert dataset.split("train").classes == ("bolt", "nut", "washer")
    refused(DataError, lambda: dataset.split("test"), f"voc:{parts},test=0.25")
    shutil.rmtree(parts / "Annotations")
    refused(DataError, lambda: catalogue.dataset(f"voc:{parts}"), "no lists", "JPEGImages")


def annotated(root: Path, photos: str, annotations: str, names: Sequence[str] = "abcd") -> Path:
    for place, name in enumerate(names):
        (root / photos).mkdir(parents=True, exist_ok=True)
        draw_photo(place).save(root / photos / f"{name}.jpg")
        path = annotate(root / "scratch", name, thing("nut"), filename=f"{name}.jpg")
        (root / annotations).mkdir(parents=True, exist_ok=True)
        path.rename(root / annotations / path.name)
    shutil.rmtree(root / "scratch")
    return root


@pytest.mark.parametrize(
    ("photos", "annotations"),
    [(".", "."), ("images", "annots"), ("JPEGImages", "Annotations"), (".", "xml"), ("img", ".")],
)
def test_a_drawn_test_set(tmp_path: Path, photos: str, annotations: str) -> None:
    """The draw is by names: the same wherever the files lie, and the same images as of VOC's."""
    root = annotated(tmp_path / "set", photos, annotations)
    dataset = catalogue.dataset(f"voc:{root},test=0.25,seed=3")
    assert dataset.name == "voc:set,test=0.25,seed=3"
    train, test = dataset.split("train", "detection"), dataset.split("test", "detection")
    assert sorted([*train.names, *test.names]) == list("abcd")
    assert len(test.names) == 1
    # Of VOC's (1, 2, 30, 40), from 1 with both ends: from 0 with the end exclusive.
    assert train.objects(0).boxes.tolist() == [[0, 1, 30, 40]]
    assert any("drawn by seed 3" in note for note in test.notes)
    other = annotated(tmp_path / "other", "images", "annots")
    assert test.names == catalogue.dataset(f"voc:{other},test=0.25,seed=3").split("test").names


def test_roboflows_folders_by_split(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        annotated(tmp_path, folder, folder, folder[:2])
    (tmp_path / "valid/v.xml").unlink()
    dataset = catalogue.dataset(f"voc:{tmp_path}")
    assert dataset.splits == ("train", "test")
    assert dataset.split("test").names == ["a"]
    assert "1 × image without an annotation (v.jpg)" in dataset.split("test").notes[0]
    refused(UsageError, lambda: catalogue.dataset(f"voc:{tmp_path},test=0.5"), "its own test set")


def test_faults_without_lists_are_one_report(tmp_path: Path) -> None:
    root = annotated(tmp_path, "images", "annots")
    (root / "images/a.jpg").unlink()
    annotate(root, "b", thing("nut", difficult=5)).rename(root / "annots/b.xml")
    annotate(root, "c", filename="z.jpg").rename(root / "annots/c.xml")
    with pytest.raises(DataError) as raised:
        catalogue.dataset(f"voc:{root}").split("train")
    for part in ("3 faults", "a.jpg is missing", "difficult '5'", "filename 'z.jpg'"):
        assert part in str(raised.value)
