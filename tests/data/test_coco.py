"""`coco:PATH`: files made and judged by pycocotools, Roboflow's layout, and bad input."""

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.layouts import assert_refused, labels_of, photographs, refuses, split_of
from ssl_bench import catalogue
from ssl_bench.data.coco.files import run_lengths
from ssl_bench.data.store.whole import open_whole
from ssl_bench.evaluation.metrics.detection import coco_precision

coder = pytest.importorskip("pycocotools.mask")
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402

HEIGHT, WIDTH = 16, 24
NAMES = {7: "nut", 2: "bolt"}  # ids with gaps, not in their order


def run_length(mask: np.ndarray, compressed: bool) -> dict[str, Any]:
    encoded = coder.encode(np.asfortranarray(mask))
    text = encoded["counts"].decode()
    return {"size": list(mask.shape), "counts": text if compressed else run_lengths(text)}


def annotation(number: int, image: int, category: int, **more: Any) -> dict[str, Any]:
    """A box with its mask: rectangles by default, counted as COCO does."""
    x, y, w, h = more.get("bbox", (2 + number, 3, 6, 5))
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    made = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    return made | {"bbox": [x, y, w, h], "area": w * h, "segmentation": [corners]} | more


def contents(split: str) -> dict[str, Any]:
    """Three images: two things and a crowd, an overlap of two classes, nothing."""
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[:4, 18:] = 1
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 10 + i, "file_name": f"{split}{i}.jpg", "height": HEIGHT, "width": WIDTH}
            for i in range(3)
        ],
        "categories": [{"id": i, "name": n, "supercategory": "part"} for i, n in NAMES.items()],
        "annotations": [
            annotation(1, 10, 7),
            annotation(2, 10, 2, bbox=[12.5, 1.25, 4, 9.5]),
            annotation(3, 10, 7, bbox=[18, 0, 6, 4], iscrowd=1,
                       segmentation=run_length(crowd, split == "train")),
            annotation(4, 11, 7, bbox=[2, 2, 8, 8]),
            annotation(5, 11, 2, bbox=[6, 6, 8, 8]),
            annotation(6, 11, 2, bbox=[5, 5, 0, 3]),
        ],
    }  # fmt: skip


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """COCO's own layout."""
    for split in ("train", "val"):
        photographs(tmp_path / f"{split}2017", *(f"{split}{i}.jpg" for i in range(3)))
        write(tmp_path / f"annotations/instances_{split}2017.json", contents(split))
        write(tmp_path / f"annotations/captions_{split}2017.json", {"annotations": []})
    return tmp_path


def opened_by_pycocotools(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


# ---- what is read
def test_classes_labels_and_boxes(root: Path) -> None:
    dataset = catalogue.dataset(f"coco:{root}")
    assert dataset.splits == ("train", "test")
    assert dataset.tasks == ("classification", "detection", "segmentation")
    train, test = (dataset.split(name, "detection") for name in dataset.splits)
    assert train.classes == ("bolt", "nut")
    assert labels_of(train) == [{"bolt", "nut"}, {"bolt", "nut"}, set()]
    assert train.objects(0).boxes.tolist() == [[3, 3, 9, 8], [12.5, 1.25, 16.5, 10.75]]
    assert train.objects(0).labels.tolist() == [1, 0]
    assert len(train.objects(2)) == 0
    assert test.objects(0).difficult.tolist() == [False, False, True]  # the crowd is not judged
    assert any("left out of the boxes: 1 × crowd" in note for note in train.notes)
    assert any("1 × box without width or height" in note for note in train.notes)


@pytest.mark.parametrize("split", ["train", "test"])
def test_masks_are_pycocotools_own(root: Path, split: str) -> None:
    """Polygons, and run lengths as numbers (val) and as text (train)."""
    source = opened_by_pycocotools(
        root / f"annotations/instances_{'val' if split == 'test' else split}2017.json"
    )
    masks = split_of(f"coco:{root}", split, "segmentation")
    for place, image in enumerate(sorted(source.imgs)):
        claimed = np.zeros((3, HEIGHT, WIDTH), bool)
        for one in source.imgToAnns[image]:
            if one["bbox"][2]:
                with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                    mask = source.annToMask(one)  # its __array__ is older than numpy 2
                claimed[{2: 1, 7: 2}[one["category_id"]]] |= mask.astype(bool)
        expected = np.where(claimed.sum(0) > 1, 255, claimed.argmax(0))
        np.testing.assert_array_equal(masks.mask(place), expected)
    assert (masks.mask(1) == 255).sum() == 16  # where both classes are claimed


def test_cocos_map_is_that_of_the_file(root: Path) -> None:
    """A detector's boxes, judged on our reading and by COCOeval on the file itself."""
    store = open_whole(catalogue.dataset(f"coco:{root}"), "test", "detection", None, 99, workers=0)
    random = np.random.default_rng(0)
    detections = np.full((3, 4, 6), -1, np.float32)
    truth = np.full((3, 3, 6), -1, np.float32)
    found: Any = []
    for image in range(3):
        objects = store.objects(image)
        for i, (box, label) in enumerate(zip(objects.boxes, objects.labels, strict=True)):
            truth[image, i] = [label, objects.difficult[i], *box]
            moved = box + random.uniform(-1, 1, 4).astype(np.float32)
            detections[image, i] = [label, random.random(), *moved]
        for label, score, x0, y0, x1, y1 in detections[image].tolist():
            if label >= 0:
                box = [x0, y0, x1 - x0, y1 - y0]
                category = {0: 2, 1: 7}[int(label)]
                found.append({"image_id": 10 + image, "category_id": category, "score": score,
                              "bbox": box})  # fmt: skip
    content = contents("val")
    content["annotations"].pop()  # without width COCOeval counts it as an object nobody can find
    source = opened_by_pycocotools(write(root / "judged.json", content))
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(source, source.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert coco_precision(detections, truth) == pytest.approx(100 * judge.stats[0])


# ---- where it lies
def test_roboflows_layout(tmp_path: Path) -> None:
    for folder, split in (("train", "train"), ("valid", "val")):
        content = contents(split)
        content["categories"].insert(0, {"id": 0, "name": "part", "supercategory": "none"})
        write(tmp_path / folder / "_annotations.coco.json", content)
        photographs(tmp_path / folder, *(f"{split}{i}.jpg" for i in range(3)))
    train, test = (split_of(f"coco:{tmp_path}", name) for name in ("train", "test"))
    assert train.classes == test.classes == ("bolt", "nut")  # not the one above them
    assert (train.names[0], test.names[0]) == ("train0.jpg", "val0.jpg")


def test_one_file_and_a_drawn_test_set(tmp_path: Path) -> None:
    content = contents("train")
    for one in content["annotations"]:
        one["segmentation"] = []
    write(tmp_path / "boxes.json", content)
    photographs(tmp_path / "images", *(f"train{i}.jpg" for i in range(3)))
    dataset = catalogue.dataset(f"coco:{tmp_path},test=0.34")
    assert dataset.tasks == ("classification", "detection")
    assert (len(dataset.split("train").names), len(dataset.split("test").names)) == (2, 1)
    assert "drawn by seed 0" in dataset.split("test").notes[-1]
    assert_refused(lambda: split_of(f"coco:{tmp_path}", "test"), "test=0.25")


def test_files_and_images_by_name(root: Path) -> None:
    (root / "train2017").rename(root / "photos")
    assert_refused(lambda: split_of(f"coco:{root}"), "train0.jpg", "images=FOLDER")
    assert len(split_of(f"coco:{root},images=photos").names) == 3
    write(root / "annotations/instances_train2014.json", contents("train"))
    assert_refused(lambda: catalogue.dataset(f"coco:{root}"), "train2014.json", "train=FILE")
    spec = f"coco:{root},images=photos,train=annotations/instances_train2014.json"
    assert len(split_of(spec).names) == 3


# ---- bad input
def test_bad_entries_are_one_report(root: Path) -> None:
    content = contents("train")
    content["categories"].append({"id": 2, "name": "screw"})
    content["images"] += [{"id": 99, "file_name": "x.jpg"}, {"file_name": "y.jpg"}]
    content["annotations"] += [
        annotation(20, 77, 2),
        annotation(21, 10, 77),
        annotation(22, 10, 2) | {"bbox": [1, 2, "wide"]},
        annotation(23, 10, 2, iscrowd=7),
    ]
    write(root / "annotations/instances_train2017.json", content)
    lines = ("category {'id': 2", "no height and width of x.jpg", "an id and a file_name",
             "annotation 20 of the image 77", "annotation 21 of the category 77",
             "annotation 22 with the box", "annotation 23 with iscrowd 7")  # fmt: skip
    refuses(f"coco:{root}", *lines)


def test_bad_truth_is_one_report(root: Path) -> None:
    content = contents("train")
    content["images"][2]["width"] = 99
    whole = np.ones((HEIGHT, WIDTH), np.uint8)
    short = {"size": [HEIGHT, WIDTH], "counts": "11"}  # pycocotools would read memory beyond it
    content["annotations"] += [
        annotation(30, 10, 2, bbox=[20, 1, 9, 9]),
        annotation(31, 10, 2, segmentation=[[1, 2, 3, 4]]),
        annotation(32, 11, 2, segmentation=short),
        annotation(33, 11, 2, segmentation=run_length(whole[:4], True)),
        annotation(34, 11, 2, segmentation={"size": [HEIGHT, WIDTH]}),
    ]
    write(root / "annotations/instances_train2017.json", content)
    Image.new("RGB", (5, 5)).save(root / "val2017/val1.jpg")
    size = f"train2.jpg is {WIDTH}×{HEIGHT} px, but its annotation file says 99×{HEIGHT}"
    refuses(f"coco:{root}", "annotation 30 with the box 20, 1, 29, 10", size, "val1.jpg is 5×5 px",
            task="detection")  # fmt: skip
    refuses(f"coco:{root}", "annotation 31 has no mask", "polygon of 4 numbers", size,
            "annotation 32", "do not fill", "annotation 33", "another size", "annotation 34",
            task="segmentation")  # fmt: skip


def test_numbers_that_no_image_has(root: Path) -> None:
    """A polygon of a million pixels would be drawn in memory; an integer may have any length."""
    content = contents("train")
    content["annotations"] += [
        annotation(40, 10, 2, bbox=[1, 1, 10**400, 2]),
        annotation(41, 10, 2, bbox=[1, 1, 1e308, 2]),
    ]
    write(root / "annotations/instances_train2017.json", content)
    refuses(f"coco:{root}", "annotation 40 with the box", "annotation 41 with the box")
    content["annotations"][-2:] = [annotation(42, 10, 2, segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]])]
    write(root / "annotations/instances_train2017.json", content)
    refuses(f"coco:{root}", "annotation 42", "takes numbers", task="segmentation")


@pytest.mark.parametrize("name", ["../train0.jpg", "/etc/passwd", "a/../../x.jpg"])
def test_no_name_leads_out(root: Path, name: str) -> None:
    content = contents("train")
    content["images"][1]["file_name"] = name
    write(root / "annotations/instances_train2017.json", content)
    refuses(f"coco:{root}", "leads out of")


def test_what_is_none_of_these(tmp_path: Path) -> None:
    refuses(f"coco:{tmp_path}", "no JSON file of COCO's format")
    write(tmp_path / "train.json", [1, 2])
    refuses(f"coco:{tmp_path}", "no list of images and of annotations and of categories")
    (tmp_path / "train.json").write_text("{")
    refuses(f"coco:{tmp_path}", "cannot be read as JSON")
    refuses(f"coco:{tmp_path / 'train.json'}", "is no folder")
    refuses(f"coco:{tmp_path},tset=0.5", "did you mean test")


def test_check_counts_what_is_there(root: Path, bench: Bench) -> None:
    made = bench.ok("data", "check", f"coco:{root}", "--workers", 0)
    assert (
        "test, detection: 3 images, 0 grey, 1 without objects; 5 objects, 1 difficult" in made.out
    )
    assert made.out.count("crowd") == 1


@pytest.mark.parametrize(("folder", "before"), [("default/", ""), ("", "images\\")])
def test_cvats_folder_and_windows_separators(folder: str, before: str, tmp_path: Path) -> None:
    photographs(tmp_path / f"images/{folder}", *(f"train{i}.jpg" for i in range(3)))
    content = contents("train")
    for image in content["images"]:
        image["file_name"] = before + image["file_name"]
    write(tmp_path / "annotations/instances_default.json", content)
    split = split_of(f"coco:{tmp_path}", task="detection")
    assert [Path(name).name for name in split.names] == [f"train{i}.jpg" for i in range(3)]
    assert len(split.objects(0)) > 0
