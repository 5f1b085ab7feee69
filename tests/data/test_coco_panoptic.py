"""Panoptic annotations of `coco:PATH`, against maps of segments that the files are made from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.layouts import assert_refused, labels_of, photographs, refuses, split_of
from ssl_bench import catalogue
from ssl_bench.data.guess import guesses
from ssl_bench.errors import plain

HEIGHT, WIDTH = 48, 64
CATEGORIES = {200: "rug-merged", 1: "person", 7: "train", 92: "banner"}  # not in their order
CLASSES = ("person", "train", "banner", "rug-merged")
ALONE = 3  # the image of train without an annotation


def drawn(seed: int, used: tuple[int, ...] = (1, 7, 200)) -> tuple[np.ndarray, dict[int, int]]:
    """Ids (H, W) of 8 × 8 px a piece, a part of them 0, and the category of each id."""
    random = np.random.default_rng(seed)
    numbers = [int(n) for n in (seed + 1, 300 + seed, *random.integers(2**16, 2**24, 4))]
    pieces = random.choice([0, *numbers], (HEIGHT // 8, WIDTH // 8)).repeat(8, 0).repeat(8, 1)
    pieces[0, : 1 + len(numbers)] = [0, *numbers]  # each is there
    return pieces, {number: used[i % len(used)] for i, number in enumerate(numbers)}


def save(path: Path, ids: np.ndarray) -> None:
    """A PNG by the bytes of its numbers: the lowest is red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    red_green_blue = ids.astype("<u4")[..., None].view(np.uint8)[..., :3]
    Image.fromarray(np.ascontiguousarray(red_green_blue)).save(path)


def annotation(image: int, categories: dict[int, int], name: str) -> dict[str, Any]:
    segments = [
        {"id": number, "category_id": category, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
        for number, category in categories.items()
    ]
    return {"image_id": image, "file_name": name, "segments_info": segments}


def make(root: Path, split: str) -> dict[str, Any]:
    """Photographs, PNGs and JSON of a split in COCO's own layout; the JSON's content."""
    count = 4 if split == "train" else 2
    names = [f"{i:012}.jpg" for i in range(count)]
    photographs(root / f"{split}2017", *names, width=WIDTH, height=HEIGHT)
    content: dict[str, Any] = {
        "images": [
            {"id": 10 + i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names)
        ],
        "categories": [
            {
                "id": i,
                "name": n,
                "supercategory": "person",
                "isthing": int(i < 92),
                "color": [i] * 3,
            }
            for i, n in CATEGORIES.items()
        ],
        "annotations": [],
    }
    for i in range(count):
        if i != ALONE:
            ids, categories = drawn(i)
            save(root / f"annotations/panoptic_{split}2017/{i:012}.png", ids)
            content["annotations"].append(annotation(10 + i, categories, f"{i:012}.png"))
    content["annotations"].reverse()  # they go by their image_id
    write(root, content, split)
    return content


def write(root: Path, content: object, split: str = "train", kind: str = "panoptic") -> Path:
    path = root / f"annotations/{kind}_{split}2017.json"
    path.write_text(json.dumps(content))
    return path


def instances(root: Path, split: str) -> None:
    """A file of one box for the same images."""
    content = json.loads((root / f"annotations/panoptic_{split}2017.json").read_text())
    box = {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4]}
    write(root, content | {"annotations": [box]}, split, "instances")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        make(tmp_path, split)
    return tmp_path


# ---- what is read
@pytest.mark.parametrize("split", ["train", "test"])
def test_each_pixel_is_of_its_segments_category(root: Path, split: str) -> None:
    found = split_of(f"coco:{root}", split, "segmentation")
    assert found.classes == CLASSES
    for index in range(len(found.names)):
        ids, categories = drawn(index)
        class_of = {0: 255} | {n: 1 + CLASSES.index(CATEGORIES[c]) for n, c in categories.items()}
        expected = [[class_of[number] for number in row] for row in ids.tolist()]
        mask = found.mask(index)
        assert mask.dtype == np.uint8
        assert mask.tolist() == expected


def test_the_colour_of_an_id_is_cocos(root: Path) -> None:
    """A person of val2017's first image has the id 3226956: 76 + 61·256 + 49·256²."""
    content = make(root, "train")
    content["annotations"][0] |= annotation(10, {3226956: 92}, "a.png") | {"image_id": 12}
    write(root, content)
    folder = root / "annotations/panoptic_train2017"
    Image.new("RGB", (WIDTH, HEIGHT), (76, 61, 49)).save(folder / "a.png")
    assert np.unique(split_of(f"coco:{root}", task="segmentation").mask(2)).tolist() == [3]


def test_labels_are_the_categories_of_the_segments(root: Path) -> None:
    dataset = catalogue.dataset(f"coco:{root}")
    assert dataset.splits == ("train", "test")
    assert dataset.tasks == ("classification", "segmentation")
    content = make(root, "train")
    content["annotations"][0]["segments_info"] = []  # of the last one
    write(root, content)
    train = dataset.split("train")
    assert labels_of(train) == [{"person", "train", "rug-merged"}] * 2 + [set()]
    assert "left out: 1 × image without an annotation" in train.notes
    assert not any("left out" in note for note in dataset.split("test").notes)
    assert_refused(lambda: dataset.split("train", "detection"), "panoptic", "instances files")


def test_the_fingerprint_is_of_the_pngs_too(root: Path) -> None:
    before = split_of(f"coco:{root}", task="segmentation").fingerprint
    assert split_of(f"coco:{root}", task="segmentation").fingerprint == before
    save(root / "annotations/panoptic_train2017/000000000001.png", drawn(1)[0][::-1])
    assert split_of(f"coco:{root}", task="segmentation").fingerprint != before


def test_more_classes_than_a_mask_tells_apart(root: Path) -> None:
    for count, tasks in ((254, ("classification", "segmentation")), (255, ("classification",))):
        for split in ("train", "val"):
            content = make(root, split)
            more = range(1000, 1000 + count - len(CATEGORIES))
            content["categories"] += [{"id": i, "name": f"class {i}"} for i in more]
            write(root, content, split)
        dataset = catalogue.dataset(f"coco:{root}")
        assert dataset.tasks == tasks
        assert len(dataset.split("train").classes) == count


# ---- where it lies
def test_instances_come_first_and_panoptic_by_name(root: Path) -> None:
    spec = "coco:{},train=annotations/panoptic_train2017.json,val=annotations/{}_val2017.json"
    for split in ("train", "val"):
        instances(root, split)
    assert "detection" in catalogue.dataset(f"coco:{root}").tasks
    assert [guess.specification for guess in guesses(root) if guess.opens][:2] == [
        f"coco:{root}", spec.format(root, "panoptic")
    ]  # fmt: skip
    named = split_of(spec.format(root, "panoptic"), "test", "segmentation")
    assert (named.mask(0) == 255).any()
    mixed = spec.format(root, "instances")
    assert_refused(lambda: split_of(mixed) and split_of(mixed, "test"), "files of one kind")


def test_pngs_beside_the_file_and_a_drawn_test_set(root: Path) -> None:
    folder = root / "annotations/panoptic_train2017"
    for path in folder.iterdir():
        path.rename(path.parents[1] / path.name)
    folder.rmdir()
    (root / "annotations/panoptic_val2017.json").unlink()
    parts = [split_of(f"coco:{root},test=0.34", name, "segmentation") for name in ("train", "test")]
    assert [len(part.names) for part in parts] == [2, 1]
    for part in parts:
        ids, _ = drawn(int(Path(part.names[0]).stem))
        np.testing.assert_array_equal(part.mask(0) == 255, ids == 0)


@pytest.mark.parametrize("beside", [True, False])
def test_a_png_of_segments_is_no_photograph(root: Path, beside: bool) -> None:
    """Photographs as PNG have the names of their segments."""
    for split in ("train", "val"):
        content = make(root, split)
        for image in content["images"]:
            old = root / f"{split}2017" / image["file_name"]
            image["file_name"] = image["file_name"].replace(".jpg", ".png")
            Image.open(old).save(old.with_suffix(".png"))
        path = write(root, content, split).rename(root / f"{split}.json")
        masks = root / f"annotations/panoptic_{split}2017"
        if beside:
            for png in masks.iterdir():
                png.rename(root / png.name)
        else:
            masks.rename(path.with_suffix(""))  # train/, which is a place for photographs
    train = split_of(f"coco:{root}", task="segmentation")
    shown, _ = train.whole(0)
    with Image.open(root / "train2017/000000000000.png") as photo:
        np.testing.assert_array_equal(shown, np.asarray(photo))


# ---- bad input
def test_bad_entries_are_one_report(root: Path) -> None:
    content = make(root, "train")
    first = content["annotations"][-1]
    wrong = ((5, 77), (0, 1), (1, 1), (2**24, 1))
    first["segments_info"] += [{"id": number, "category_id": one} for number, one in wrong]
    content["annotations"] += [
        annotation(11, {}, "b.png"),
        annotation(99, {}, "c.png"),
        annotation(10 + ALONE, {}, "d.png") | {"segments_info": 3},
        annotation(10 + ALONE, {}, ""),
        annotation(10 + ALONE, {}, "../../e.png"),
        annotation(10 + ALONE, {}, "/etc/passwd"),
    ]
    write(root, content)
    lines = ("image 10 with the segment 5 of the category 77", "image 10 with the segment 0:",
             "image 10 with the segment 1:", "image 10 with the segment 16777216:",
             "annotation of the image 11 twice", "image 99, which it does not list",
             "image 13 without a file_name", "../../e.png leads out", "/etc/passwd leads out",
             )  # fmt: skip
    refuses(f"coco:{root}", *lines, task="segmentation")


def palette(path: Path) -> None:
    with Image.open(path) as image:
        image.quantize(8).save(path)


def grey(path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT)).save(path)


def small(path: Path) -> None:
    save(path, drawn(0)[0][:5])


def unlisted(path: Path) -> None:
    ids, _ = drawn(0)
    ids[0, 0], ids[-1, -1] = 3, 2**24 - 1  # between those that are listed, and above
    save(path, ids)


def lossy(path: Path) -> None:
    with Image.open(path) as image:
        image.save(path, format="JPEG")


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "train2017/000000000000.png cannot be read as an image"),
    (palette, "train2017/000000000001.png is PNG of mode P, and ids are"),
    (small, f"train2017/000000000002.png is {WIDTH}×5 px, but its image is {WIDTH}×{HEIGHT}"),
    (unlisted, "val2017/000000000000.png has the segment 3, 16777215, which its"),
    (lossy, "val2017/000000000001.png is JPEG of mode RGB"),
]


def test_bad_pngs_are_one_report(root: Path) -> None:
    for spoil, line in FAULTS:
        spoil(root / "annotations" / f"panoptic_{line[: line.index('.png')]}.png")
    refuses(f"coco:{root}", *(line for _, line in FAULTS), task="segmentation")
    assert len(split_of(f"coco:{root}").names) == 3  # labels need no PNG


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000])
def test_names_that_no_file_has(root: Path, name: str) -> None:
    content = make(root, "train")
    content["images"][0]["file_name"] = f"{name}.jpg"
    content["annotations"][1]["file_name"] = f"{name}.png"  # of another
    write(root, content)
    lines = [f"{plain(name)}.{kind} cannot be read as an image" for kind in ("jpg", "png")]
    refuses(f"coco:{root}", *lines, task="segmentation")


def test_an_archive_that_is_still_packed_is_one_line(root: Path) -> None:
    (root / "annotations/panoptic_val2017").rename(root / "elsewhere")
    assert_refused(
        lambda: split_of(f"coco:{root}", "test", "segmentation"), "unpack panoptic_val2017.zip"
    )
    assert len(split_of(f"coco:{root}", "test").names) == 2


# ---- commands
def test_check_and_guess(root: Path, bench: Bench) -> None:
    made = bench.ok("data", "check", f"coco:{root}", "--workers", 0)
    void = np.mean([drawn(i)[0] == 0 for i in range(3)])
    assert "train, segmentation: 3 images, 0 grey, 0 without objects; " in made.out
    assert f"{void:.1%} void, 0.0% background" in made.out
    assert made.out.count("1 × image without an annotation") == 2
    made = bench.ok("data", "guess", root)
    lines = [f"coco:{root}", "  classification: train 3, test 2; 4 classes",
             "  segmentation: train 3, test 2; 4 classes"]  # fmt: skip
    assert made.out.splitlines()[:3] == lines


def test_it_is_trained_and_judged_on(root: Path, bench: Bench, workspace: Path) -> None:
    place = ("--data", f"coco:{root}", "--workspace", workspace, "--workers", 0)
    bench.ok("pretrain", "random", "--image-size", 64, "--width", 0.1, *place)
    words = ("--longest", 64, "--kernel", 1, "--head", 8, "--steps", 2, "--batch-size", 2)
    bench.ok("segment", *words, *place)
    (folder,) = workspace.glob("evaluation/segmentation-*")
    record = json.loads((folder / "record.json").read_text())
    assert record["details"]["selection"]["classes"] == ["background", *CLASSES]
    with np.load(folder / "predictions.npz") as rows:
        (counts,) = [rows[name] for name in rows if rows[name].shape[1:] == (5, 5)]
    for index, confusion in enumerate(counts):
        ids, categories = drawn(index)
        names = [CATEGORIES[categories[n]] for n in ids[ids > 0].tolist()]
        assert confusion.sum(1).tolist() == [0, *map(names.count, CLASSES)]
