"""`labelme:PATH`: shapes and flags against worked masks and boxes; files that tools leave."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.layouts import photographs, refuses, split_of
from ssl_bench import catalogue
from ssl_bench.errors import UsageError

WIDTH, HEIGHT = 24, 16


def shape(label: str, *points: tuple[float, float], kind: str = "polygon", **more: Any) -> dict:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind,
            "group_id": None, "flags": {}, **more}  # fmt: skip


def annotate(path: Path, *shapes: dict[str, Any], flags: tuple[str, ...] = (), **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.5.0", "flags": dict.fromkeys(flags, True), "shapes": list(shapes),
               "imagePath": f"{path.stem}.jpg", "imageData": None, "imageHeight": HEIGHT,
               "imageWidth": WIDTH, **more}  # fmt: skip
    path.write_text(json.dumps(content))


def stencil(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(255 * pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images to train on and one to test on, with a cat and a dog each."""
    for place in ("train/a", "train/b", "val/c"):
        photographs(tmp_path, f"{place}.jpg")
        annotate(
            tmp_path / f"{place}.json",
            shape("cat", (2, 3), (9, 8), kind="rectangle"),
            shape("dog", (6, 5), (12, 5), (12, 10), (6, 10)),
        )
    return tmp_path


def test_tasks_and_splits(root: Path) -> None:
    dataset = catalogue.dataset(f"labelme:{root}")
    assert dataset.tasks == ("classification", "detection", "segmentation")
    assert dataset.splits == ("train", "test")
    split = dataset.split("train")
    assert split.classes == ("cat", "dog")
    assert list(split.names) == ["train/a.jpg", "train/b.jpg"]
    np.testing.assert_array_equal(split.labels, [[1, 1], [1, 1]])
    assert split.notes == ()


# ---- masks
def test_later_shapes_cover_earlier_ones(root: Path) -> None:
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 2:10] = 1  # with the outline, as LabelMe draws it
    expected[5:11, 6:13] = 2
    np.testing.assert_array_equal(
        split_of(f"labelme:{root}", task="segmentation").mask(0), expected
    )


def test_circles_masks_void_and_background(root: Path) -> None:
    pixels = np.random.default_rng(0).random((3, 5)) > 0.5
    annotate(
        root / "train/a.json",
        shape("cat", (12, 8), (12, 2), kind="circle"),
        shape("dog", (1, 12), (5, 14), kind="mask", mask=stencil(pixels)),
        shape("__ignore__", (20, 0), (23, 2), kind="rectangle"),
        shape("_background_", (10, 7), (13, 8), kind="rectangle"),
    )
    split = split_of(f"labelme:{root}", task="segmentation")
    assert split.classes == ("cat", "dog")
    mask = split.mask(0)
    np.testing.assert_array_equal(mask[12:15, 1:6] == 2, pixels)
    assert (mask[0:3, 20:24] == 255).all()
    assert (mask[7:9, 10:14] == 0).all()
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(down - 8, across - 12)
    left = mask[:, 6:20].copy()
    left[7:9, 4:8] = 1
    assert (left[far[:, 6:20] < 5] == 1).all()
    assert (left[far[:, 6:20] > 7.1] != 1).all()


def test_a_turned_photograph_is_drawn_on_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "train/a.jpg", exif=exif)
    split = split_of(f"labelme:{root}", task="segmentation")
    assert split.mask(0).shape == split.whole(0)[0].shape[:2] == (HEIGHT, WIDTH)


# ---- boxes
def test_boxes_of_groups(root: Path) -> None:
    annotate(
        root / "train/a.json",
        shape("cat", (2, 3), (9, 8), kind="rectangle", group_id=1),
        shape("dog", (6, 5), (12, 5), (12, 10), group_id=1),
        shape("cat", (15, 1), (20, 2), (18, 12), group_id=1),
        shape("cat", (1, 1), (3, 1), (3, 3), (1, 3), kind="rectangle"),
        shape("dog", (12, 8), (12, 6), kind="circle"),
        shape("dog", (1, 12), (5, 14), kind="mask", mask=stencil(np.ones((3, 5)))),
        shape("__ignore__", (0, 0), (5, 5), kind="rectangle"),
    )
    found = split_of(f"labelme:{root}", task="detection").objects(0)
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(
        found.boxes,
        [[2, 1, 20, 12], [6, 5, 12, 10], [1, 1, 3, 3], [10, 6, 14, 10], [1, 12, 6, 15]],
    )


# ---- flags
def test_flags_are_classes_where_nothing_is_drawn(tmp_path: Path) -> None:
    for name, flag in {"a": "sharp", "b": "blurred", "c": "sharp"}.items():
        photographs(tmp_path, f"{name}.jpg")
        annotate(tmp_path / f"{name}.json", flags=(flag,))
    dataset = catalogue.dataset(f"labelme:{tmp_path}")
    assert dataset.tasks == ("classification",)
    split = dataset.split("train")
    assert split.classes == ("blurred", "sharp")
    np.testing.assert_array_equal(split.labels, [1, 0, 1])
    annotate(tmp_path / "c.json", flags=("sharp", "blurred"))
    several = catalogue.dataset(f"labelme:{tmp_path}").split("train")
    np.testing.assert_array_equal(several.labels, [[0, 1], [1, 0], [1, 1]])


# ---- what lies there
def test_what_is_left_out_is_counted(root: Path) -> None:
    photographs(root, "train/unlabelled.jpg")
    (root / "train/other.json").write_text('{"version": 1}')
    annotate(
        root / "train/a.json",
        shape("cat", (2, 3), (9, 8), kind="rectangle"),
        shape("way", (2, 3), (9, 8), kind="line"),
        shape("eye", (2, 3), kind="point"),
    )
    split = split_of(f"labelme:{root}")
    assert split.classes == ("cat", "dog")
    (note,) = split.notes
    for part in ("1 × image without a JSON file (unlabelled.jpg)", "2 × line or point",
                 "1 × .json file (other.json)"):  # fmt: skip
        assert part in note


@pytest.mark.parametrize("said", ["../photos/a.jpg", "..\\photos\\a.jpg"])
def test_files_in_another_folder(tmp_path: Path, said: str) -> None:
    photographs(tmp_path, "photos/a.jpg", "photos/b.jpg")
    annotate(tmp_path / "json/x.json", shape("cat", (2, 3), (9, 8), (1, 1)), imagePath=said)
    assert list(split_of(f"labelme:{tmp_path}").names) == ["photos/a.jpg"]


def test_a_renamed_image_and_one_of_another_machine(root: Path) -> None:
    for name, said in {"a": "old.jpg", "b": "/home/me/b.jpg"}.items():
        annotate(root / f"train/{name}.json", shape("cat", (2, 3), (9, 8), (1, 1)), imagePath=said)
    assert list(split_of(f"labelme:{root}").names) == ["train/a.jpg", "train/b.jpg"]


# ---- refused
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (shape("cat", (1, 1), (2, 2)), "polygon with 2 points is no shape"),
        (shape(" ", (1, 1), (2, 2), (3, 1)), "no label"),
        (shape("cat", (1, 1), (2, 2), kind="cuboid"), "cuboid with 2 points is no shape"),
        (shape("cat", (1, 1), (2, float("nan")), (3, 1)), "points are pairs of numbers"),
        (shape("cat", (1, 1), (2, 2), kind="mask", mask="no PNG"), "shape 1 of"),
        (shape("cat", (1, 1), (2, 2), (3, 1), group_id=[1]), "group_id [1] is no number"),
        ({"label": "cat"}, "points"),
        ("cat", "shape 1 of"),
    ],
)
def test_shapes_that_cannot_be_used(root: Path, wrong: dict[str, Any], said: str) -> None:
    annotate(root / "train/a.json", wrong)
    (root / "train/b.json").write_text("{")
    refuses(f"labelme:{root}", said, str(root / "train/a.json"), "b.json cannot be read as JSON")


def test_boxes_outside_their_image_are_refused_by_name(root: Path) -> None:
    annotate(root / "train/a.json", shape("cat", (20, 3), (29, 8), kind="rectangle"))
    refuses(f"labelme:{root}", "a.json has 'cat' at 20, 3, 29, 8", "24×16 px", task="detection")


def test_sets_that_cannot_be_used(root: Path, tmp_path: Path) -> None:
    annotate(root / "val/c.json", shape("bird", (2, 3), (9, 8), (1, 1)))
    refuses(f"labelme:{root}", "c.json has 'bird', which train lacks")
    annotate(root / "val/c.json", shape("cat", (2, 3), (9, 8), (1, 1)))
    annotate(root / "train/again.json", shape("cat", (2, 3), (9, 8), (1, 1)), imagePath="a.jpg")
    refuses(f"labelme:{root}", "a.jpg has several JSON files")
    (root / "train/again.json").unlink()
    annotate(root / "train/a.json", shape("cat", (2, 3), (9, 8), (1, 1)), imagePath="z.jpg")
    (root / "train/a.jpg").unlink()
    refuses(f"labelme:{root}", "a.json is of z.jpg, which is not there")
    with pytest.raises(UsageError, match="has its own test set"):
        catalogue.dataset(f"labelme:{root},test=0.5")


def test_from_a_folder_of_ones_own_to_a_number(tmp_path: Path, bench: Bench) -> None:
    generator = np.random.default_rng(0)
    for name in "abcdefgh":
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
        annotate(tmp_path / f"{name}.json", shape("cat", (4, 4), (30, 30), kind="rectangle"))
    asked = f"labelme:{tmp_path},test=0.25"
    assert asked in bench.ok("data", "guess", tmp_path).out
    made = bench.ok("data", "check", asked).out
    assert "train, segmentation: 6 images" in made
    assert re.search(r"cat +6 +0 +6\n", made)
