"""`bench data guess` and what `bench data check` says of a folder that it does not understand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.layouts import photographs
from helpers.refusals import fails
from helpers.voc_folders import add_masks, annotate, make_year, thing
from ssl_bench import catalogue
from ssl_bench.data.guess import guesses

SIZE = (24, 16)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(*SIZE[::-1], dtype=np.uint8)).save(path)


# ---- a small set of each layout
def voc_year(root: Path) -> None:
    add_masks(make_year(root))


def voc_by_a_tool(root: Path) -> None:
    for name in "abcd":
        photographs(root, f"images/{name}.jpg", width=96, height=80)
        annotate(root, name, thing("nut")).rename(root / f"{name}.xml")
    (root / "Annotations").rename(root / "annots")
    for name in "abcd":
        (root / f"{name}.xml").rename(root / f"annots/{name}.xml")


def coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        photographs(root, f"{split}/a.jpg")
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        image = {"id": 1, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}
        content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a"}]}
        text(root / f"annotations/instances_{split}.json", json.dumps(content))


def yolo(root: Path) -> None:
    text(root / "data.yaml", "names: [a, b]\ntrain: images/train\nval: images/val\n")
    for split in ("train", "val"):
        photographs(root, f"images/{split}/a.jpg")
        text(root / f"labels/{split}/a.txt", "0 0.5 0.5 0.2 0.2\n")


def labelme(root: Path) -> None:
    photographs(root, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    cat = {"label": "cat", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
    for name in "abcd":
        content = {"flags": {}, "imagePath": f"{name}.jpg", "shapes": [cat]}
        text(root / f"{name}.json", json.dumps(content))


def masks(root: Path) -> None:
    for split in ("train", "val"):
        photographs(root, f"images/{split}/a.jpg")
        mask(root / f"masks/{split}/a.png")


def masks_beside(root: Path) -> None:
    """As Roboflow writes them; masks are no photographs of theirs."""
    for split in ("train", "valid"):
        photographs(root, f"{split}/a_jpg.rf.0.jpg")
        mask(root / f"{split}/a_jpg.rf.0_mask.png")
        text(root / f"{split}/_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n")


def tables_of_splits(root: Path) -> None:
    """As Roboflow writes several labels an image: names may be there in each split."""
    for split in ("train", "valid"):
        photographs(root / split, "a.jpg", "b.jpg", "c.jpg")
        text(root / split / "_classes.csv", "filename, cat, dog\na.jpg, 1, 1\nb.jpg, 0, 1\n"
             "c.jpg, 1, 0\n")  # fmt: skip


def camvid(root: Path) -> None:
    for split in ("train", "test"):
        photographs(root, f"{split}/a.png")
        mask(root / f"{split}annot/a.png")


def cityscapes(root: Path) -> None:
    for split in ("train", "val"):
        photographs(root, f"leftImg8bit/{split}/x/a_leftImg8bit.png")
        mask(root / f"gtFine/{split}/x/a_gtFine_labelIds.png")


def table(root: Path) -> None:
    names = [f"all/{i}.jpg" for i in range(4)]
    photographs(root, *names)
    text(root / "labels.csv", "path,label\n" + "".join(f"{name},a\n" for name in names))


def imagefolder(root: Path) -> None:
    photographs(root, "train/a.jpg", "test/b.jpg")
    text(root / "train/metadata.csv", "file_name,label\na.jpg,x\n")
    text(root / "test/metadata.csv", "file_name,label\nb.jpg,x\n")


def by_class(root: Path) -> None:
    photographs(root, *(f"{name}/{i}.jpg" for name in "ab" for i in range(4)))


def split_by_class(root: Path) -> None:
    photographs(root, *(f"{split}/{name}/0.jpg" for split in ("train", "val") for name in "ab"))


def flat(root: Path) -> None:
    photographs(root, "a.jpg", "b.jpg")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "voc": (voc_year, "voc:{}"),
    "voc without lists": (voc_by_a_tool, "voc:{},test=0.25"),
    "coco": (coco, "coco:{}"),
    "yolo": (yolo, "yolo:{}"),
    "labelme": (labelme, "labelme:{},test=0.25"),
    "masks": (masks, "masks:{}"),
    "masks beside images": (masks_beside, "masks:{}"),
    "tables of splits": (tables_of_splits, "csv:{}/train/_classes.csv,val=../valid/_classes.csv"),
    "camvid": (camvid, "camvid:{}"),
    "cityscapes": (cityscapes, "cityscapes:{}"),
    "imagefolder": (imagefolder, "hf:{}"),
    "classes": (by_class, "folder:{},test=0.25"),
    "classes by split": (split_by_class, "folder:{}"),
    "flat": (flat, "folder:{}"),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_layout_is_proposed_first_and_opens(kind: str, tmp_path: Path) -> None:
    make, form = LAYOUTS[kind]
    make(tmp_path / "set")
    first, *others = guesses(tmp_path / "set")
    assert (first.specification, first.opens) == (form.format(tmp_path / "set"), True)
    dataset = catalogue.dataset(first.specification)
    count = len(dataset.split("train", dataset.tasks[0]).names)
    assert f"train {count}" in first.said[0]
    for other in others:
        if other.opens:  # whatever is proposed can be opened
            assert catalogue.dataset(other.specification).splits
        else:
            assert all(other.said)


def test_files(tmp_path: Path, bench: Bench) -> None:
    table(tmp_path / "t")
    found = [guess.specification for guess in guesses(tmp_path / "t") if guess.opens]
    assert f"csv:{tmp_path / 't/labels.csv'},test=0.25" in found
    made = bench.ok("data", "guess", tmp_path / "t/labels.csv").out
    assert made.startswith(f"csv:{tmp_path / 't/labels.csv'},test=0.25\n")
    assert "classification: train 3, test 1; 1 class" in made
    coco(tmp_path / "c")
    path = tmp_path / "c/annotations/instances_train2017.json"
    (guess,) = guesses(path)
    assert (guess.specification, guess.opens) == (f"coco:{tmp_path / 'c'}", True)


def test_a_table_and_the_folder_of_its_images(tmp_path: Path) -> None:
    """Kaggle's: ids without a suffix, of images in train/, and one class to folder:."""
    photographs(tmp_path, *(f"train/{i}.jpg" for i in range(4)))
    text(tmp_path / "train.csv", "id,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(4)))
    text(tmp_path / "odd.csv", "id,breed\n0,a\n")
    found = {guess.specification: guess for guess in guesses(tmp_path)}
    table = found[f"csv:{tmp_path / 'train.csv'},images=train,test=0.25"]
    assert (table.opens, table.said[0][-9:]) == (True, "2 classes")
    assert "no labels" in found[f"folder:{tmp_path}"].said[0]
    odd = found[f"csv:{tmp_path / 'odd.csv'}"]
    assert not odd.opens
    assert "label=COLUMN" in odd.said[0]
    assert guesses(tmp_path / "train.csv") == [table]


def test_masks_beside_the_folder_of_a_split(tmp_path: Path) -> None:
    """Carvana's, without a class list."""
    for i in range(4):
        photographs(tmp_path, f"train/{i}.jpg")
        mask(tmp_path / f"train_masks/{i}_mask.png")
    assert guesses(tmp_path)[0].specification == f"masks:{tmp_path},test=0.25"


def test_what_is_near_says_what_is_missing(tmp_path: Path, bench: Bench) -> None:
    root = tmp_path / "set"
    yolo(root)
    (root / "data.yaml").unlink()
    made = bench("data", "guess", root)
    fails(made, 1, "no layout opens", "yolo: there is labels/; missing: data.yaml or classes.txt")
    made = bench("data", "check", f"folder:{root}", "--workers", 0)
    assert made.code == 1
    assert f"near: yolo:{root}\n  there is labels/; missing: data.yaml" in made.err
    text(root / "classes.txt", "a\nb\n")
    made = bench("data", "check", root)
    fails(made, 2, "is no dataset's name", f"bench data guess {root}")
    assert f"yolo:{root}\n  classification: train 1, test 1; 2 classes" in made.err


@pytest.mark.parametrize(
    ("tool", "name", "content"),
    [
        ("CVAT", "annotations.xml", '<annotations>\n<image id="0" name="a.jpg"></image>'),
        ("VGG Image Annotator", "via.json", '{"a.jpg1": {"regions": [{"shape_attributes": {}}]}}'),
        ("Label Studio", "p.json", '[{"id": 1, "annotations": [{"result": []}]}]'),
    ],
)
def test_a_tools_own_file_says_what_to_export(
    tool: str, name: str, content: str, tmp_path: Path
) -> None:
    photographs(tmp_path, "images/a.jpg")
    text(tmp_path / name, content)
    (tmp_path / "no_file.json").mkdir()
    said = [guess.said[0] for guess in guesses(tmp_path) if not guess.opens]
    assert f"{name} is {tool}'s own: export from it in COCO's format, or in YOLO's" in said


def test_a_folder_that_is_understood_has_no_proposals(tmp_path: Path, bench: Bench) -> None:
    split_by_class(tmp_path)
    text(tmp_path / "train/a/broken.jpg", "no image")
    made = bench("data", "check", f"folder:{tmp_path}", "--workers", 0)
    assert made.code == 1
    assert "near:" not in made.err


def test_what_is_nothing(tmp_path: Path, bench: Bench) -> None:
    fails(bench("data", "guess", tmp_path), 1, "no layout opens", "no sign of any")
    fails(bench("data", "guess", tmp_path / "none"), 1, "is not there")
    text(tmp_path / "notes.md", "")
    fails(bench("data", "guess", tmp_path / "notes.md"), 1, "no sign of any")
