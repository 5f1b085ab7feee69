"""`yolo:PATH`: Ultralytics' and Darknet's files; the oracle is a box written both ways."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.layouts import assert_refused, labels_of, photographs, refuses, split_of
from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.yolo import label_file

WIDTH, HEIGHT = 24, 16
BOXES = [[2, 3, 8, 8], [12.5, 1.25, 16.5, 10.75]]


def row(label: object, x0: float, y0: float, x1: float, y1: float) -> str:
    """As Ultralytics' converters write a box: shares with six digits."""
    numbers = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
    return " ".join([str(label), *(f"{number:.6f}" for number in numbers)])


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def describe(root: Path, **content: object) -> Path:
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["bolt", "nut"]} | content))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """images/train and labels/train; a.jpg has two objects, b.jpg none, c.jpg no file."""
    for split in ("train", "val"):
        photographs(tmp_path / "images" / split, "a.jpg", "b.jpg", "c.jpg")
        boxes = [row(i, *box) for i, box in enumerate(BOXES)]
        write(tmp_path / "labels" / split / "a.txt", *boxes, "")
        write(tmp_path / "labels" / split / "b.txt")
    return describe(tmp_path, train="images/train", val="images/val")


def test_boxes_and_labels(root: Path) -> None:
    dataset = catalogue.dataset(f"yolo:{root}")
    assert dataset.splits == ("train", "test")
    split = dataset.split("train", "detection")
    assert labels_of(split) == [{"bolt", "nut"}, set(), set()]
    objects = split.objects(0)
    np.testing.assert_allclose(objects.boxes, BOXES, atol=1e-4)
    assert objects.labels.tolist() == [0, 1]
    assert [len(split.objects(i)) for i in (1, 2)] == [0, 0]


def test_polygons_give_their_boxes(root: Path) -> None:
    write(root / "labels/train/b.txt", "1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75")
    boxes = split_of(f"yolo:{root}", task="detection").objects(1).boxes
    assert boxes.tolist() == [[6, 4, 18, 12]]


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_are_of_the_upright_picture(root: Path, orientation: int) -> None:
    """OpenCV, by which Ultralytics reads, turns a photograph as its EXIF says; tools show it so."""
    exif = Image.Exif()
    exif[0x112] = orientation
    draw_photo(0, WIDTH, HEIGHT).save(root / "images/train/a.jpg", exif=exif)
    split = split_of(f"yolo:{root}", task="detection")
    height, width, _ = split.whole(0)[0].shape
    assert (width, height) == ((WIDTH, HEIGHT) if orientation == 3 else (HEIGHT, WIDTH))
    scale = np.array([width / WIDTH, height / HEIGHT] * 2)
    np.testing.assert_allclose(split.objects(0).boxes, np.array(BOXES) * scale, atol=1e-4)


# ---- where it lies
@pytest.mark.parametrize("train", ["../train/images", "train/images", "/old/machine/train/images"])
def test_roboflows_layout(root: Path, tmp_path_factory, train: str) -> None:
    other = tmp_path_factory.mktemp("roboflow")
    for split in ("train", "valid"):
        photographs(other / split / "images", "a.jpg")
        write(other / split / "labels/a.txt", row(1, *BOXES[0]))
    describe(other, train=train, val="../valid/images", test="../test/images",
             names={0: "bolt", 1: "nut"})  # fmt: skip
    dataset = catalogue.dataset(f"yolo:{other}")
    assert dataset.splits == ("train", "test")
    assert labels_of(dataset.split("test")) == [{"nut"}]


def test_names_alone(root: Path) -> None:
    (root / "data.yaml").unlink()
    refuses(f"yolo:{root}", "no data.yaml with names")
    write(root / "classes.txt", "bolt", "nut", "")
    assert catalogue.dataset(f"yolo:{root}").splits == ("train", "test")
    assert labels_of(split_of(f"yolo:{root}"))[0] == {"bolt", "nut"}


def test_darknets_files_beside_the_images_and_a_draw(tmp_path: Path) -> None:
    root = photographs(tmp_path, *(f"obj_train_data/{i}.jpg" for i in range(4)))
    for i in range(4):
        write(root / f"obj_train_data/{i}.txt", row(0, *BOXES[0]))
    write(root / "obj.names", "bolt")
    parts = [split_of(f"yolo:{root},test=0.25", name) for name in ("train", "test")]
    assert [len(part.names) for part in parts] == [3, 1]
    assert labels_of(parts[1]) == [{"bolt"}]
    assert_refused(lambda: split_of(f"yolo:{root}", "test"), "test=0.25")


def test_a_list_of_images(root: Path) -> None:
    write(root / "train.txt", "./images/train/a.jpg", "images/train/b.jpg")
    describe(root, train="train.txt", val="images/val")
    assert list(split_of(f"yolo:{root}").names) == ["images/train/a.jpg", "images/train/b.jpg"]
    write(root / "train.txt", "./images/train/a.jpg", "../../b.jpg")
    refuses(f"yolo:{root}", "leads out of")


def test_a_list_from_another_folder_or_machine(root: Path) -> None:
    """CVAT's Ultralytics export lists data/images/…, which is not there."""
    write(root / "some.txt", "data/images/train/c.jpg", "/content/images/train/a.jpg", "../d.jpg")
    describe(root, train="some.txt", val="images/val")
    assert_refused(lambda: split_of(f"yolo:{root}", "train"), "d.jpg leads out of")
    write(root / "some.txt", "data/images/train/c.jpg", "/content/images/train/a.jpg")
    split = split_of(f"yolo:{root}", "train")
    assert list(split.names) == ["images/train/c.jpg", "images/train/a.jpg"]
    assert labels_of(split) == [set(), {"bolt", "nut"}]


def test_key_points_are_no_polygon(root: Path) -> None:
    """Four key points of x, y, v are twelve numbers, as many as a polygon's six points."""
    box = row(1, *BOXES[0])
    write(root / "labels/train/a.txt", f"{box} 0.9 0.9 2 0.1 0.9 2 0 0 0 0.5 0.5 1")
    describe(root, train="images/train", val="images/val", kpt_shape=[4, 3])
    objects = catalogue.dataset(f"yolo:{root}").split("train", "detection").objects(0)
    np.testing.assert_allclose(objects.boxes, BOXES[:1], atol=1e-4)
    assert objects.labels.tolist() == [1]


def test_folders_in_capitals(tmp_path: Path) -> None:
    photographs(tmp_path / "Images/train", "a.JPG")
    write(tmp_path / "Labels/train/a.txt", row(1, *BOXES[0]))
    describe(tmp_path, train="Images/train")
    assert labels_of(split_of(f"yolo:{tmp_path}", "train")) == [{"nut"}]


def test_label_files_go_by_the_last_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "images/set/labels/x").mkdir(parents=True)
    image = tmp_path / "images/set/images/x/a.b.jpg"
    assert label_file(image) == tmp_path / "images/set/labels/x/a.b.txt"
    assert label_file(tmp_path / "photos/a.jpg") == tmp_path / "photos/a.txt"


# ---- bad input
def test_bad_lines_are_one_report(root: Path) -> None:
    lines = [f"{label} 0.5 0.5 0.1 0.1" for label in (2, "cat", 0.5)]
    lines += ["0 120 80 30 30", "0 0.5 0.5 0.1", "0 nan 0.5 0.1 0.1"]
    write(root / "labels/train/a.txt", *lines)
    write(root / "labels/val/a.txt", "0 0.5 0.5 0.1 0.1 0.9")
    parts = (f"line {i} of {root / 'labels/train/a.txt'}" for i in range(1, 7))
    other = f"{root / 'labels/val/a.txt'} is '0 0.5 0.5 0.1 0.1 0.9'"
    refuses(f"yolo:{root}", *parts, "not pixels", "from 0 to 1", other, task="detection")


def test_boxes_outside_are_one_report(root: Path) -> None:
    write(root / "labels/train/a.txt", "0 0.9 0.5 0.5 0.1")
    write(root / "labels/train/b.txt", "0 0.5 0.5 0 0.1")
    refuses(f"yolo:{root}", "train/a.txt has a box", "train/b.txt has a box", task="detection")


def test_bad_descriptions(root: Path) -> None:
    describe(root, train="images/train", val="nowhere", test="nowhere either")
    refuses(f"yolo:{root}", "val: nowhere, which is not below")
    describe(root, names=["bolt", "bolt"])
    refuses(f"yolo:{root}", "a class twice")
    describe(root, names={0: "bolt", 2: "nut"})
    refuses(f"yolo:{root}", "no names: of the classes")
    laughs = "\n".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghijkl")
    )
    (root / "data.yaml").write_text(f"a: &a [x]\n{laughs}\nnames: *l\n")
    refuses(f"yolo:{root}", "a class that is no name")
    (root / "data.yaml").write_text(f"a: &a [x]\n{laughs}\nnames: [b]\ntrain: *l\n")
    refuses(f"yolo:{root}", "train: that is no path")
    describe(root, names={0: "bolt", "one": "nut"})
    refuses(f"yolo:{root}", "no names: of the classes")
    (root / "data.yaml").write_text("names: [")
    refuses(f"yolo:{root}", "cannot be read as YAML")
    describe(root)
    for path in root.glob("labels/*/*.txt"):
        path.unlink()
    refuses(f"yolo:{root}", "have no label files, such as")
