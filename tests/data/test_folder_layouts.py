"""`folder:PATH` as users bring it: names of splits, links, hidden names, a drawn test set."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.layout import split_of
from ssl_bench.data.survey import check
from ssl_bench.data.tree import LeftOut, images_below
from ssl_bench.errors import BenchError, DataError, UsageError

PHOTO = draw_photo(0, 16, 16)


def fill(root: Path, *folders: str, count: int = 2) -> Path:
    """Photographs in sub-folders of `root`."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            PHOTO.save(root / folder / f"{i}.png")
    return root


def names(root: Path, split: str = "train", options: str = "") -> list[str]:
    return list(catalogue.dataset(f"folder:{root}{options}").split(split).names)


def notes(root: Path, split: str = "train") -> str:
    return "\n".join(catalogue.dataset(f"folder:{root}").split(split).notes)


def refused(root: Path, *parts: str, split: str = "train", options: str = "") -> None:
    with pytest.raises(DataError) as raised:
        catalogue.dataset(f"folder:{root}{options}").split(split)
    assert [part for part in parts if part not in str(raised.value)] == []


# ---- names of splits


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("train", "train TRAIN Training train2017 train_images training_set Train-Set"),
        ("val", "val valid validation Valid val2017 dev validate val_set"),
        ("test", "test Testing test2015 test_set test1 TEST"),
        (None, "trains trainer testimony valley contest seg_train my_test strain vale device"),
    ],
)  # fmt: skip
def test_words_for_splits(split: str | None, words: str) -> None:
    assert {word: split_of(word) for word in words.split()} == dict.fromkeys(words.split(), split)


@pytest.mark.parametrize("train", ["Train", "training_set", "train2017"])
@pytest.mark.parametrize("test", ["Test", "val2017", "validation"])
def test_splits_by_other_names(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path, f"{train}/a", f"{train}/b", f"{test}/b")
    dataset = catalogue.dataset(f"folder:{tmp_path}")
    assert dataset.splits == ("train", "test")
    assert names(tmp_path) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    labels = dataset.split("test").labels
    assert labels is not None
    assert labels.tolist() == [1, 1]  # of train's classes
    assert f"train is {train}/" in notes(tmp_path)
    assert f"test is {test}/" in notes(tmp_path, "test")


def test_of_val_and_test_the_test_is_tested_on(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "valid/a", "test/a")
    PHOTO.save(tmp_path / "test/a/only.png")
    dataset = catalogue.dataset(f"folder:{tmp_path}")
    assert dataset.splits == ("train", "val", "test")
    assert "a/only.png" in names(tmp_path, "test")
    assert "a/only.png" not in names(tmp_path, "val")
    assert notes(tmp_path, "test") == "test is test/, not valid/"
    said = [line.strip() for line in check(dataset, None, 0)]
    assert "val is valid/" in said
    assert "test is test/, not valid/" in said


@pytest.mark.parametrize("test", ["test", "test/unknown"])
def test_a_test_without_labels_leaves_val(tmp_path: Path, test: str) -> None:
    """ImageNet's, and Kaggle's with one folder for all images."""
    fill(tmp_path, "train/a", "val/a", test)
    assert catalogue.dataset(f"folder:{tmp_path}").splits == ("train", "test")
    assert notes(tmp_path, "test") == "test is val/, as test/ has no labels"
    for file in (tmp_path / "val/a").iterdir():
        file.unlink()
    (tmp_path / "val/a").rmdir()
    (tmp_path / "val").rmdir()
    refused(tmp_path, "no test/ with classes of train/", "test=0.25", split="test")
    assert len(names(tmp_path, "test", ",test=0.5")) == 1


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    fill(tmp_path, "train2014/a", "train2017/a", "val2017/a")
    with pytest.raises(DataError, match=r"train2014/, train2017/.* one that counts train/"):
        catalogue.dataset(f"folder:{tmp_path}")
    (tmp_path / "train2014").rename(tmp_path / "train")
    assert names(tmp_path) == ["a/0.png", "a/1.png"]
    assert "not taken for any split: train2017/" in notes(tmp_path)


def test_splits_without_classes_have_no_labels(tmp_path: Path) -> None:
    """COCO's train2017/ and val2017/ hold images directly."""
    fill(tmp_path, "train2017", "val2017")
    for split in ("train", "test"):
        assert names(tmp_path, split) == ["0.png", "1.png"]
        assert catalogue.dataset(f"folder:{tmp_path}").split(split).labels is None


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (["test/a"], ["test/, but no train/", "test=0.25"]),
        (["valid", "invalid"], ["valid/, but no train/", "test=0.25"]),
        (["seg_train/a", "seg_test/a"], ["seg_train/ and seg_test/", "rename them"]),
        (["dataset/Train/a", "dataset/Test/a"], ["train and test in dataset/", "dataset"]),
        (["images/training", "annotations/training"], ["in images/: give folder:"]),
        (["images", "masks"], ["images/ and masks/", "give folder:", "/images"]),
        (["JPEGImages", "Annotations"], ["give voc:", "/JPEGImages"]),
        (["train", "car", "plane"], ["beside it are car/, plane/", "test=0.25"]),
        (["train/images", "train/labels"], ["images/, labels/, which are no classes"]),
    ],
)
def test_test_images_and_masks_are_not_pretrained_on(
    tmp_path: Path, folders: list[str], parts: list[str]
) -> None:
    refused(fill(tmp_path, *folders), *parts)


def test_a_flat_folder_says_what_it_takes(tmp_path: Path) -> None:
    fill(tmp_path, "summer", "winter/snow", ".")
    assert len(names(tmp_path)) == 6
    assert "all 6 images are taken, without labels, those of summer/, winter/" in notes(tmp_path)


# ---- what is left out


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """Also where they lead round, up, or to each other; what lies here itself keeps its path."""
    elsewhere = fill(tmp_path / "elsewhere", "more")
    root = fill(tmp_path / "set", "z")
    (elsewhere / "more" / "back").symlink_to(root)
    for name, target in [("a", root / "z"), ("b", elsewhere / "more"), ("c", elsewhere / "more"),
                         ("loop", root), ("up", tmp_path), ("self", root / "self")]:  # fmt: skip
        (root / name).symlink_to(target)
    left = LeftOut()
    found = [file.relative_to(root).as_posix() for file in images_below(root, left)]
    assert found == ["b/0.png", "b/1.png", "z/0.png", "z/1.png"]
    assert left.kinds["link to a folder that is read already"][0] == 5
    assert left.kinds["broken link"] == (1, "self")


def test_a_class_of_links(tmp_path: Path) -> None:
    stored = fill(tmp_path / "stored", "x", "y")
    (tmp_path / "set/train/b").mkdir(parents=True)
    (tmp_path / "set/train/a").symlink_to(stored / "x")
    (tmp_path / "set/train/b/part").symlink_to(stored / "y")
    assert names(tmp_path / "set") == ["a/0.png", "a/1.png", "b/part/0.png", "b/part/1.png"]


def test_hidden_names_are_no_classes_and_no_images(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "train/.ipynb_checkpoints", "train/a/@eaDir",
         "train/__MACOSX/a", "val/a", "val/.cache")  # fmt: skip
    PHOTO.save(tmp_path / "train/a/._0.png")
    (tmp_path / "train/b/Thumbs.db").write_bytes(b"\0")
    dataset = catalogue.dataset(f"folder:{tmp_path}")
    assert dataset.split("train").classes == ("a", "b")
    assert names(tmp_path) == ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    said = notes(tmp_path)
    for part in ("2 × hidden file (such as ._0.png)", "3 × hidden folder (such as"):
        assert part in said
    assert "1 × hidden folder (.cache)" in notes(tmp_path, "test")


def test_other_suffixes_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b")
    for name in ("x.heic", "y.HEIC", "z.avif", "README"):
        (tmp_path / "train/a" / name).write_text("x")
    PHOTO.save(tmp_path / "train/loose.png")
    said = notes(tmp_path)
    for part in ("2 × .heic file (such as x.heic)", "1 × .avif file (z.avif)", ".jfif",
                 "1 × file without a suffix (README)",
                 "1 × image outside the class folders (loose.png)"):  # fmt: skip
        assert part in said
    for file in (tmp_path / "train/b").iterdir():
        file.rename(file.with_suffix(".jxl"))
    refused(tmp_path, "b has no images", "1 × .avif file", "2 × .jxl file", "fill or remove it")


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".gif", ".pbm", ".pnm"])
def test_more_suffixes_are_read(tmp_path: Path, suffix: str) -> None:
    kind = {".gif": "gif", ".pbm": "ppm", ".pnm": "ppm"}.get(suffix.lower(), "jpeg")
    image = PHOTO.convert("1") if suffix == ".pbm" else PHOTO
    image.save(tmp_path / f"photo{suffix}", kind)
    split = catalogue.dataset(f"folder:{tmp_path}").split("train")
    with Image.open(tmp_path / f"photo{suffix}") as opened:
        np.testing.assert_array_equal(split.whole(0)[0], opened.convert("RGB"))


def test_of_an_animation_the_first_picture(tmp_path: Path) -> None:
    frames = [draw_photo(i, 16, 16).quantize(64) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    split = catalogue.dataset(f"folder:{tmp_path}").split("train")
    np.testing.assert_array_equal(split.whole(0)[0], frames[0].convert("RGB"))


def test_unreadable_folders_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "train/a/inner", "train/b/inner", "train/c")
    scan: Callable[[Path], object] = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "inner":  # the tests may run as root, whom no mode stops
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    refused(tmp_path, "2 faults", "a/inner cannot be read (Permission denied)", "b/inner")


def test_names_that_are_not_text_can_be_said(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.\n")) / "x").mkdir(parents=True)
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9.heic"))).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert notes(tmp_path).encode().count(b"\\udce9") == 2
    assert "\\n" in notes(tmp_path)


# ---- a test set that is drawn


def drawn(root: Path, options: str) -> tuple[set[str], set[str]]:
    train, test = names(root, "train", options), names(root, "test", options)
    assert not set(train) & set(test)
    return set(train), set(test)


def test_a_drawn_test_set_has_a_share_of_each_class(tmp_path: Path) -> None:
    counts = {"a": 40, "b": 10, "c": 3, "d": 2, "e": 1}
    for name, count in counts.items():
        fill(tmp_path, name, count=count)
    train, test = drawn(tmp_path, ",test=0.25")
    assert len(train | test) == sum(counts.values())
    in_test = {name: sum(file.startswith(f"{name}/") for file in test) for name in counts}
    assert in_test == {"a": 10, "b": 3, "c": 1, "d": 1, "e": 0}
    dataset = catalogue.dataset(f"folder:{tmp_path},test=0.25")
    assert dataset.name == f"folder:{tmp_path.name},test=0.25"
    for split in ("train", "test"):
        part = dataset.split(split)
        assert part.labels is not None
        assert [part.classes[i] for i in part.labels] == [name[0] for name in part.names]


def test_the_draw_follows_from_the_seed_and_the_names(tmp_path: Path) -> None:
    first = fill(tmp_path / "one", "a", "b", count=30)
    second = fill(tmp_path / "two" / "train", "a", "b", count=30)
    assert drawn(first, ",test=0.3") == drawn(second.parent, ",test=0.3,seed=0")
    assert drawn(first, ",test=0.3")[1] != drawn(first, ",test=0.3,seed=1")[1]
    assert catalogue.dataset(f"folder:{first},seed=1,test=0.3").name.endswith(",test=0.3,seed=1")
    # What comes later moves at most one of the others in each class.
    before = drawn(first, ",test=0.3")[1]
    PHOTO.save(first / "a" / "later.png")
    assert len(before - drawn(first, ",test=0.3")[1]) <= 1


def test_classes_may_be_called_like_splits_once_a_draw_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "valid", "invalid", "train")
    dataset = catalogue.dataset(f"folder:{tmp_path},test=0.5")
    assert dataset.split("test").classes == ("invalid", "train", "valid")


def test_draws_that_cannot_be(tmp_path: Path) -> None:
    root = fill(tmp_path / "own", "train/a", "test/a")
    cases: list[tuple[str, type[BenchError], str]] = [
        (f"{root},test=0.5", UsageError, "its own test set, test/"),
        (f"{root / 'train'},test=0", UsageError, "between 0 and 1"),
        (f"{root / 'train'},test=nan", UsageError, "between 0 and 1"),
        (f"{root / 'train'},test=half", UsageError, "not 'half'"),
        (f"{root / 'train'},seed=1", UsageError, "needs test="),
        (f"{root / 'train'},test=0.5,seed=-1", UsageError, "whole number"),
        (f"{root / 'train'},tset=0.5", UsageError, "did you mean test"),
        (f"{fill(tmp_path / 'few', 'a', 'b', count=1)},test=0.5", DataError, "two images or more"),
        (f"{root / 'train/a'},test=0.5", DataError, "no class folders"),
    ]
    for specification, kind, message in cases:
        with pytest.raises(kind, match=message):
            catalogue.dataset(f"folder:{specification}").split("test")


def test_a_path_with_commas(tmp_path: Path) -> None:
    fill(tmp_path / "a,b", "x", "y")
    fill(tmp_path / "c,test=0.5", "x")
    assert len(names(tmp_path / "a,b", "test", ",test=0.5")) == 2
    assert names(tmp_path / "c,test=0.5") == ["x/0.png", "x/1.png"]


def test_classes_without_a_split_are_told_the_way_out(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    refused(tmp_path, "pretraining only", f"folder:{tmp_path},test=0.25", split="test")


def test_masks_beside_photographs_are_said(tmp_path: Path) -> None:
    """As in BUSI, whose folders of classes have both."""
    for name in ("a/1.png", "a/1_mask.png", "a/1_mask_1.png", "b/with_mask_1.png"):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(b"")
    (note,) = catalogue.dataset(f"folder:{tmp_path}").split("train").notes
    assert note.startswith("2 images are called masks, such as a/1_mask.png")
