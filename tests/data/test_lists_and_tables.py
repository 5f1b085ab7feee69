"""Images that list files, nested folders and tables name."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from helpers.layouts import assert_refused, labels_of, photographs, refuses, split_of
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store

NAMES = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return photographs(tmp_path / "set", *NAMES)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# ---- nested folders
def test_classes_of_the_second_level(tmp_path: Path) -> None:
    root = photographs(tmp_path, *(f"train/{n}" for n in ("pet/cat/a.png", "pet/dog/b.png")))
    photographs(root, "train/wild/lynx/c.png", "train/wild/x.png", "val/pet/dog/d.png")
    split = split_of(f"folder:{root},depth=2")
    assert split.classes == ("pet/cat", "pet/dog", "wild/lynx")
    assert labels_of(split) == list(split.classes)
    assert any("image outside the class folders (x.png)" in note for note in split.notes)
    assert labels_of(split_of(f"folder:{root},depth=2", "test")) == ["pet/dog"]
    assert catalogue.dataset(f"folder:{root},depth=2").name == f"folder:{root.name},depth=2"
    assert split_of(f"folder:{root}").classes == ("pet", "wild")
    refuses(f"folder:{root},depth=two", "depth= takes the level")


def test_classes_that_have_only_folders_are_said(tmp_path: Path) -> None:
    photographs(tmp_path, *(f"train/pet/{n}/a.png" for n in ("cat", "dog")))
    assert any("depth=2" in note for note in split_of(f"folder:{tmp_path}").notes)


def test_tiny_imagenet(tmp_path: Path) -> None:
    """train/<class>/images/ and val/images/ with a list: the set's own layout."""
    root = photographs(tmp_path, "train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG")
    photographs(root, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    lines = ("val_0.JPEG\tn2\t0\t32\t44\t62", "val_1.JPEG\tn1\t1\t2\t3\t4")
    write(root / "val/val_annotations.txt", *lines)
    dataset = catalogue.dataset(f"folder:{root}")
    assert dataset.splits == ("train", "test")
    assert labels_of(dataset.split("train")) == ["n1", "n2"]
    test = dataset.split("test")
    assert dict(zip(test.names, labels_of(test), strict=True)) == {
        "images/val_0.JPEG": "n2",
        "images/val_1.JPEG": "n1",
    }
    write(root / "val/val_annotations.txt", "val_0.JPEG\tn3", "val_1.JPEG\tn4", "../../x.png\tn1")
    assert_refused(lambda: dataset.split("test"), "leads out of")
    write(root / "val/val_annotations.txt", "val_0.JPEG\tn3", "val_1.JPEG\tn4")
    assert_refused(lambda: dataset.split("test"), "class 'n3'", "class 'n4'")


# ---- lists
@pytest.mark.parametrize(
    "lines",
    [
        ("cat/a.png", "dog/c.png"),
        ("cat/a", "dog/c"),  # as Food-101's meta/train.txt
        ("cat/a.png cat", "dog/c.png dog"),
        ("cat/a.png,cat", "dog/c.png,dog"),
        ("cat/a.png\tcat\t1", "", "dog/c.png\tdog\t2"),
        ("cat/a.png cat 0.5 0.5", "dog/c.png  dog 1"),
    ],
)
def test_lists(root: Path, lines: tuple[str, ...]) -> None:
    write(root / "lists/train.txt", *lines)
    write(root / "lists/test.txt", "dog/d.png")
    spec = f"folder:{root},train=lists/train.txt,test=lists/test.txt"
    assert list(split_of(spec).names) == ["cat/a.png", "dog/c.png"]
    assert labels_of(split_of(spec)) == ["cat", "dog"]
    assert labels_of(split_of(spec, "test")) == ["dog"]
    assert catalogue.dataset(spec).name == spec.replace(str(root), root.name)


def test_lists_with_a_drawn_test_set_and_numbers(root: Path) -> None:
    write(root / "all.txt", "cat/a.png 10", "cat/b.png 10", "dog/c.png 9", "dog/d.png 9")
    spec = f"folder:{root},train=all.txt,test=0.5"
    train, test = split_of(spec), split_of(spec, "test")
    assert train.classes == ("9", "10")  # as numbers
    assert sorted([*train.names, *test.names]) == sorted(NAMES)
    assert labels_of(train) == labels_of(test) == ["10", "9"]
    assert "50% of each class" in train.notes[0]


def test_bad_lists_are_one_report(root: Path) -> None:
    lines = ("cat/a.png cat", "cat/a.png dog", "/etc/x.png cat", "../b.png cat", "dog/c.png")
    write(root / "train.txt", *lines)
    spec = f"folder:{root},train=train.txt"
    refuses(spec, "line 3 of", "line 4 of", "leads out of")
    write(root / "train.txt", "cat/a.png cat", "cat/a.png dog")
    refuses(spec, "cat/a.png is twice in train")
    refuses(f"folder:{root},train=none.txt", "none.txt is no file")
    refuses(f"folder:{root},train=train.txt,test=cat", "cat is no file")
    write(root / "train.txt", "cat/a.png cat", "cat/gone.png cat")
    refuses(spec, "gone.png cannot be read as an image")
    write(root / "test.txt", "cat/a.png cat")
    refuses(f"{spec},test=test.txt", "a.png is in train and in test")


# ---- tables
def test_a_table_by_pandas_is_the_folder_that_it_names(root: Path) -> None:
    """The same images, names and labels have the same digest, however they are said."""
    table = pd.DataFrame({"path": NAMES, "label": [name.split("/")[0] for name in NAMES]})
    table.to_csv(root / "table.csv", index=False)
    by_table = open_store(catalogue.dataset(f"csv:{root / 'table.csv'}"), "train", 16, workers=0)
    photographs(root.parent / "folders", *(f"train/{name}" for name in NAMES))
    folders = catalogue.dataset(f"folder:{root.parent / 'folders'}")
    assert by_table.index.digest == open_store(folders, "train", 16, workers=0).index.digest


def test_a_column_says_the_split(root: Path) -> None:
    lines = ("cat/a;cat;Training", "dog/c;dog;train", "cat/b;cat;valid", "dog/d;dog;test")
    write(root.parent / "t.csv", "Image;Class;Set", *lines)
    dataset = catalogue.dataset(f"csv:{root.parent / 't.csv'},images=set")
    assert dataset.splits == ("train", "val", "test")
    assert [labels_of(dataset.split(name)) for name in dataset.splits] == [
        ["cat", "dog"],
        ["cat"],
        ["dog"],
    ]
    assert dataset.name == "csv:t.csv,images=set"


def test_several_labels(root: Path) -> None:
    lines = ("cat/a.png,cat|pet", "dog/c.png,", "dog/d.png,pet|dog|dog")
    write(root / "t.csv", "file,tags", *lines)
    assert labels_of(split_of(f"csv:{root / 't.csv'}")) == [{"cat", "pet"}, set(), {"pet", "dog"}]
    write(root / "u.csv", "file,cat,dog", "cat/a.png,1,0", "dog/c.png,-1,1", "dog/d.png,0.0,0")
    split = split_of(f"csv:{root / 'u.csv'}")
    assert split.labels is not None
    assert split.labels.tolist() == [[1, 0], [-1, 1], [0, 0]]
    write(root / "v.csv", "file,cat,dog", "cat/a.png,1,0", "dog/c.png,0,1")
    assert labels_of(split_of(f"csv:{root / 'v.csv'}")) == ["cat", "dog"]  # exactly one each


@pytest.mark.parametrize(
    "cells",
    [
        ("\"['cat', 'pet']\"", "[]", "['pet']"),  # as pandas writes a column of lists
        ('"[""cat"", ""pet""]"', "", '"[""pet""]"'),
        ('"[cat, pet]"', "[]", "[pet]"),
    ],
)
def test_cells_that_are_lists(root: Path, cells: tuple[str, str, str]) -> None:
    lines = (f"{name},{cell}" for name, cell in zip(NAMES, cells, strict=False))
    write(root / "t.csv", "file,tags", *lines)
    assert labels_of(split_of(f"csv:{root / 't.csv'}")) == [{"cat", "pet"}, set(), {"pet"}]
    frame = pd.DataFrame({"file": NAMES[:2], "tags": [["a, b", "1"], ["1"]]})
    frame.to_csv(root / "u.csv", index=False)
    assert labels_of(split_of(f"csv:{root / 'u.csv'}")) == [{"a, b", "1"}, {"1"}]
    write(root / "v.csv", "file,tags", "cat/a.png,[cat]", "dog/c.png,[dog]")
    assert labels_of(split_of(f"csv:{root / 'v.csv'}")) == ["cat", "dog"]  # exactly one each


@pytest.mark.parametrize("separator", [" ", ";", ", "])
def test_labels_that_look_like_several_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], separator: str
) -> None:
    """Planet's tags: 7 words make 21 pairs; two words that name each of some breeds do not."""
    words = ("haze", "clear", "primary", "road", "water", "cloudy", "mine")
    pairs = [separator.join(pair) for pair in itertools.combinations(words, 2)]
    root = photographs(tmp_path / "set", *(f"{i}.png" for i in range(len(pairs))))
    write(root / "t.csv", "image\ttags", *(f"{i}.png\t{pair}" for i, pair in enumerate(pairs)))
    split = split_of(f"csv:{root / 't.csv'}")
    assert len(split.classes) == len(pairs)
    said = capfd.readouterr().err
    assert f"such as 'haze{separator}clear', is taken as one class" in said
    breeds = ("golden retriever", "labrador retriever", "border collie", "bearded collie", "pug")
    write(root / "u.csv", "image\ttags", *(f"{i}.png\t{name}" for i, name in enumerate(breeds)))
    split_of(f"csv:{root / 'u.csv'}")
    assert "one class" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("encoding", "before"), [("utf-8-sig", ""), ("utf-8-sig", "sep=;\r\n"), ("utf-8", "SEP=;\r\n")]
)
def test_a_table_as_excel_writes_it(root: Path, encoding: str, before: str) -> None:
    rows = ("Datei;Klasse;fuzzy", "cat\\a;Käse, alt;TRUE", "dog\\c.png;Brot;FALSE", ";;")
    text = before + "".join(f"{row}\r\n" for row in rows)
    (root / "t.csv").write_bytes(text.encode(encoding))
    split = split_of(f"csv:{root / 't.csv'},path=Datei,label=Klasse")
    assert list(split.names) == ["cat/a.png", "dog/c.png"]
    assert labels_of(split) == ["Käse, alt", "Brot"]
    (root / "t.csv").write_bytes(text.replace(".png", "/../../../x").encode(encoding))
    number = 3 + bool(before)
    refuses(f"csv:{root / 't.csv'},path=Datei", f"line {number} of", "leads out of")
    for other in ("cp1252", "utf-16"):
        (root / "t.csv").write_bytes(text.encode(other))
        refuses(f"csv:{root / 't.csv'},path=Datei", "is not in UTF-8", "CSV UTF-8")


def test_columns_of_true_and_false(root: Path) -> None:
    table = pd.DataFrame({"file": NAMES, "cat": [True, False] * 2, "dog": [True, True] * 2})
    table.to_csv(root / "t.csv", index=False)
    assert labels_of(split_of(f"csv:{root / 't.csv'}")) == [{"cat", "dog"}, {"dog"}] * 2


def test_images_in_another_folder_are_looked_for(root: Path) -> None:
    """Kaggle's train.csv names images by their ids; they lie in train/."""
    write(root / "train.csv", "id,label", "a,cat", "b,cat")
    refuses(f"csv:{root / 'train.csv'}", "none of the 2 images", "csv:FILE,images=cat")
    assert labels_of(split_of(f"csv:{root / 'train.csv'},images=cat")) == ["cat", "cat"]
    write(root / "train.csv", "id,label", "x,cat", "y,cat")
    refuses(f"csv:{root / 'train.csv'}", "set/x: say where they are, csv:FILE,images=FOLDER")


def test_a_split_of_another_name_is_no_test_set(root: Path) -> None:
    lines = ("a,cat,train", "b,cat,train", "c,cat,holdout", "d,cat,2")
    lines = [f"{name},{line[2:]}" for name, line in zip(NAMES, lines, strict=True)]
    spec = f"csv:{write(root / 't.csv', 'file,label,split', *lines)}"
    assert catalogue.dataset(spec).splits == ("train", "holdout", "2")
    assert_refused(lambda: split_of(spec, "test"), "test=0.25")
    assert [len(split_of(f"{spec},test=0.5", name).names) for name in ("train", "test")] == [1, 1]


def test_two_tables_and_a_draw(root: Path) -> None:
    write(root / "a.csv", "path,label", *(f"{name},{name[:3]}" for name in NAMES[:3]))
    write(root / "b.csv", "path,label", f"{NAMES[3]},dog")
    spec = f"csv:{root / 'a.csv'},test=b.csv"
    assert list(split_of(spec, "test").names) == [NAMES[3]]
    drawn = split_of(f"csv:{root / 'a.csv'},test=0.5", "test")
    assert len(drawn.names) == 1  # a class's only image is for training
    refuses(f"csv:{root / 'a.csv'},val=none.csv", "none.csv is no file")
    assert_refused(lambda: split_of(f"csv:{root / 'a.csv'}", "test"), "test=0.25")


def test_a_table_without_labels_is_no_test_set(root: Path) -> None:
    """Kaggle's test.csv has paths only: nothing can be measured on it."""
    write(root / "train.csv", "id,label", "cat/a,cat", "dog/c,dog")
    write(root / "test.csv", "id", "cat/b", "dog/d")
    dataset = catalogue.dataset(f"csv:{root / 'train.csv'},test=test.csv")
    assert dataset.splits == ("train",)
    assert labels_of(dataset.split("train")) == ["cat", "dog"]
    unlabelled = split_of(f"csv:{root / 'test.csv'}")
    assert (len(unlabelled.names), unlabelled.labels) == (2, None)


@pytest.mark.parametrize(
    ("lines", "parts"),
    [
        (("path,label", "cat/a.png,cat,1", "dog/c.png"), ("line 2 of", "line 3 of", "1 cells")),
        (("path,label", "cat/a.png,", "/x.png,cat", "../y.png,cat"),
         ("line 2", "is empty", "line 3", "line 4", "leads out")),
        (("path,label", "cat/a.png,cat", "cat/a.png,dog"),
         ("a.png is twice in train", "or write one row of cat|dog")),
        (("one,two", "a,b"), ("columns one, two", "path=COLUMN")),
        (("path,breed", "cat/a.png,cat"), ("columns path, breed", "label=COLUMN")),
        (("path,label,split", "cat/a.png,cat,test"), ("no image to train on", "test")),
        (("path,label,split", "cat/a.png,cat,train", "dog/c.png,dog,test"), ("class 'dog'",)),
        (("path,label,label", "cat/a.png,cat,x"), ("two columns 'label'",)),
        (("cat/a.png,cat", "dog/c.png,dog"), ("no titles in its first line",)),
        (("path,label",), ("no lines below its titles",)),
    ],
)  # fmt: skip
def test_bad_tables_are_one_report(
    root: Path, lines: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    refuses(f"csv:{write(root / 't.csv', *lines)}", *parts)


def test_columns_by_name(root: Path) -> None:
    write(root / "t.csv", "a,b,label", "cat/a.png,x,1", "dog/c.png,y,2")
    assert labels_of(split_of(f"csv:{root / 't.csv'},path=a,label=b")) == ["x", "y"]
    refuses(f"csv:{root / 't.csv'},path=c", "unknown column of", "'c'")
    refuses(f"csv:{root / 'none.csv'}", "is not there")
    refuses(f"csv:{root}", "cannot be read as a table")
