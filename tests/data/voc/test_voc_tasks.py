"""`voc:PATH` for detection and segmentation: boxes, masks, lists, and what is refused."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import chunk, draw_photo, png
from helpers.voc_folders import (
    LISTS,
    THINGS,
    add_masks,
    annotate,
    draw_mask,
    make_year,
    refused,
    thing,
    write_list,
    write_mask,
)
from ssl_bench import catalogue
from ssl_bench.data.dataset import Objects, SplitName, Task
from ssl_bench.data.faults import Faults, lines_of
from ssl_bench.data.voc.files import CLASSES
from ssl_bench.data.voc.masks import read_class_mask
from ssl_bench.errors import DataError, UsageError

WIDTH, HEIGHT = 96, 80  # of all images here
DOG, PERSON, CHAIR = (CLASSES.index(name) for name in ("dog", "person", "chair"))


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """A folder like VOC2007's: six images with boxes and masks; a test may spoil it."""
    return add_masks(make_year(tmp_path / "VOC2007"))


def objects(root: Path, index: int = 0, split: SplitName = "train") -> Objects:
    return catalogue.dataset(f"voc:{root}").split(split, "detection").objects(index)


def boxed(root: Path, *boxes: tuple[object, ...]) -> Callable[[], Objects]:
    """Reads the first image's objects, with these boxes."""
    annotate(root, "000001", *(thing("dog", box=box) for box in boxes))
    return lambda: objects(root)


# ---- boxes
def test_boxes_count_from_0_and_end_exclusively(year: Path) -> None:
    """VOC counts from 1 and has both ends: the box of the whole image is 1, 1, W, H there."""
    whole = (1, 1, WIDTH, HEIGHT)
    pixel = (WIDTH, HEIGHT, WIDTH, HEIGHT)  # the last one, to the right and below
    found = boxed(year, whole, pixel, (5, 6, 14, 8))()
    assert found.boxes.tolist() == [[0, 0, 96, 80], [95, 79, 96, 80], [4, 5, 14, 8]]
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    assert sizes.tolist() == [[96, 80], [1, 1], [10, 3]]
    assert (found.boxes.dtype, found.labels.dtype, found.difficult.dtype) == (
        np.float32, np.int64, bool,
    )  # fmt: skip


def test_decimals(year: Path) -> None:
    chair, person = objects(year, 0, "test").boxes
    assert chair.tolist() == [3.5, 1, 30.25, 40]
    assert person.tolist() == [0, 1, 30, 40]
    found = boxed(year, ("45.70000076293945", "18.04", "95.99", "8e1"))()
    np.testing.assert_allclose(found.boxes, [[44.70000076, 17.04, 95.99, 80]], rtol=1e-7)


def test_labels_difficult_objects_and_none(year: Path) -> None:
    split = catalogue.dataset(f"voc:{year}").split("train", "detection")
    assert split.names == LISTS["trainval"]
    assert split.classes == CLASSES
    found = [split.objects(i) for i in range(4)]
    assert [f.labels.tolist() for f in found] == [[DOG, PERSON], [DOG], [DOG, DOG, PERSON], []]
    assert [f.difficult.tolist() for f in found] == [
        [False, False], [True], [True, False, True], [],
    ]  # fmt: skip
    assert found[3].boxes.shape == (0, 4)
    assert [len(f) for f in found] == [2, 1, 3, 0]


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((0, 0, 30, 40), (0, 0, 30, 40)),
        ((1, 1, WIDTH + 1, HEIGHT + 1), (0, 0, WIDTH, HEIGHT)),
        ((0.4, 0.999, WIDTH + 0.5, HEIGHT), (0, 0, WIDTH, HEIGHT)),
    ],
)
def test_a_pixel_of_rounding_is_clipped(year, box, clipped):
    np.testing.assert_array_equal(boxed(year, box)().boxes, np.array([clipped], np.float32))


@pytest.mark.parametrize(
    "box",
    [
        (-1, 1, 30, 40),
        (1, -0.1, 30, 40),
        (1, 1, WIDTH + 1.1, 40),
        (1, 1, 30, HEIGHT + 2),
        (WIDTH + 1, 1, WIDTH + 1, 40),  # nothing of it is left
        (200, 200, 300, 300),
        (1e30, 1, 1e31, 2),
    ],
)
def test_box_outside_its_image(year: Path, box: tuple[float, ...]) -> None:
    path = year / "Annotations" / "000001.xml"
    shown = ", ".join(f"{edge:g}" for edge in box)
    refused(DataError, boxed(year, box), path, f"a dog with the box {shown}", "96×80", "correct it")


@pytest.mark.parametrize("box", [(30, 2, 29, 40), (1, 40, 30, 2), (1, "", 30, 40)])
def test_box_inverted_or_incomplete(year: Path, box: tuple[object, ...]) -> None:
    refused(DataError, boxed(year, box), "000001.xml", "a dog with the box", "ymax, none below")


def test_all_objects_of_an_image_are_reported(year: Path) -> None:
    path = annotate(
        year, "000001", thing("zebra"), thing("dog"), thing("dog", box=(9, 9, 1, 9)), thing("cta")
    )
    asked = catalogue.dataset(f"voc:{year},classes={','.join(CLASSES)}")
    with pytest.raises(Faults) as raised:
        asked.split("train", "detection").objects(0)
    assert len(lines_of(raised.value)) == 3
    assert all(str(path) in line for line in lines_of(raised.value))
    for part in ("3 faults in", "'zebra'", "did you mean cat", "'9, 9, 1, 9'"):
        assert part in str(raised.value)
    with pytest.raises(Faults) as raised:
        boxed(year, (1, 1, 500, 3), (2, 2, 3, 3), (-9, 1, 5, 5))()
    assert [" 500, " in line for line in lines_of(raised.value)] == [True, False]


# ---- flips and resizes
def test_boxes_return_from_flips_and_resizes() -> None:
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0, 300, (50, 2, 2)), 1).reshape(50, 4)
    found = Objects.of(corners, random.integers(0, 20, 50), random.random(50) < 0.3)
    for there, back in [
        (lambda o: o.flipped(300), lambda o: o.flipped(300)),
        (lambda o: o.resized(1.7, 0.3), lambda o: o.resized(1 / 1.7, 1 / 0.3)),
    ]:
        moved = there(found)
        assert not np.allclose(moved.boxes, found.boxes)
        assert (moved.boxes[:, 2:] >= moved.boxes[:, :2]).all()
        assert moved.boxes.dtype == np.float32
        np.testing.assert_allclose(back(moved).boxes, found.boxes, atol=1e-3)
        assert (moved.labels is found.labels, moved.difficult is found.difficult) == (True, True)
    assert Objects.of([], [], []).flipped(9).resized(2, 2).boxes.shape == (0, 4)


def test_a_flipped_box_holds_the_flipped_pixels() -> None:
    image = np.zeros((20, 30), int)
    image[3:9, 4:17] = 1
    x0, y0, x1, y1 = Objects.of([[4, 3, 17, 9]], [0], [False]).flipped(30).boxes[0].astype(int)
    assert image[:, ::-1][y0:y1, x0:x1].all()
    assert image[:, ::-1][y0:y1, x0:x1].sum() == image.sum()


# ---- masks
def mask_of(root: Path, index: int = 0, split: SplitName = "train") -> np.ndarray:
    return catalogue.dataset(f"voc:{root}").split(split, "segmentation").mask(index)


@pytest.mark.parametrize("palette", [True, False])
def test_masks_are_indices_and_not_colours(year: Path, palette: bool) -> None:
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 22
    indices[indices == 21] = 255
    path = write_mask(year, "000001", indices, palette)
    with Image.open(path) as image:
        assert image.mode == ("P" if palette else "L")
    found = mask_of(year)
    np.testing.assert_array_equal(found, indices)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(("depth", "kind"), [(4, 0), (4, 3), (2, 0), (2, 3), (1, 0), (1, 3)])
def test_masks_of_few_bits(tmp_path: Path, depth: int, kind: int) -> None:
    """Pillow spreads grey of few bits over 0 to 255; an index stays what it is."""
    values = np.arange(8).reshape(1, 8) % 2**depth
    bits = "".join(f"{v:0{depth}b}" for v in values[0])
    row = zlib.compress(b"\0" + int(bits, 2).to_bytes(depth, "big"))  # eight pixels
    palette = [chunk(b"PLTE", bytes(range(48)))] if kind == 3 else []
    (tmp_path / "a.png").write_bytes(png(8, 1, row, *palette, depth=depth, colour=kind))
    np.testing.assert_array_equal(read_class_mask(tmp_path / "a.png", 1, 8, 20), values)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_of_colours(year: Path, mode: str) -> None:
    path = year / "SegmentationClass" / "000001.png"
    Image.new(mode, (WIDTH, HEIGHT)).save(path)
    refused(DataError, lambda: mask_of(year), path, f"mode {mode}", "class indices", "own mask")


def test_mask_with_an_index_that_is_no_class(year: Path) -> None:
    mask = draw_mask(0)
    mask[0, :7] = [21, 22, 23, 24, 254, 100, 20]
    path = write_mask(year, "000001", mask)
    refused(DataError, lambda: mask_of(year), path, "index 21, 22, 23, 24, 100, …", "0 to 20", 255)


def test_mask_of_another_size(year: Path) -> None:
    path = write_mask(year, "000001", draw_mask(0, WIDTH, HEIGHT))  # lies on its side
    said = "is 80×96 px", "its image is 96×80", "own mask", "EXIF may turn the photograph"
    refused(DataError, lambda: mask_of(year), path, *said)


def test_mask_that_is_damaged(year: Path) -> None:
    path = year / "SegmentationClass" / "000001.png"
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[:-60], whole[:60]):
        path.write_bytes(content)
        refused(DataError, lambda: mask_of(year), path, "cannot be read as a mask", "unpack")
    draw_photo(0).convert("L").save(path, "JPEG")  # what it says are not the indices that it had
    refused(DataError, lambda: mask_of(year), path, "cannot be read as a mask")
    path.unlink()
    refused(DataError, lambda: mask_of(year), path, "missing", "trainval.txt lists 000001")


@pytest.mark.parametrize(("side", "part"), [(40_000, "exceeds limit"), (12_000, "12000×12000 px")])
def test_huge_mask_is_refused_before_it_is_decoded(year: Path, side: int, part: str) -> None:
    """A few bytes that say they are gigabytes of pixels."""
    path = year / "SegmentationClass" / "000001.png"
    path.write_bytes(png(side, side, zlib.compress(b"\0"), depth=8))
    assert path.stat().st_size < 100
    refused(DataError, lambda: mask_of(year), path, part)


# ---- tasks and lists
def test_each_task_has_its_lists(year: Path) -> None:
    write_list(year, "trainval", ["000003", "000001"], folder="Segmentation")
    dataset = catalogue.dataset(f"voc:{year}")
    assert dataset.tasks == ("classification", "detection", "segmentation")
    tasks: list[Task] = ["classification", "detection", "segmentation"]
    names = [dataset.split("train", task).names for task in tasks]
    assert names == [LISTS["trainval"], LISTS["trainval"], ["000003", "000001"]]
    assert [dataset.count("train", task) for task in tasks] == [4, 4, 2]
    np.testing.assert_array_equal(dataset.split("train", "segmentation").mask(1), draw_mask(0))


def test_voc12s_custom_holds_for_masks(tmp_path: Path) -> None:
    lists = {name: LISTS[name] for name in ("train", "val", "trainval")}
    year = add_masks(make_year(tmp_path / "VOC2012", lists), lists)
    dataset = catalogue.dataset(f"voc:{year}")
    assert dataset.split("train", "segmentation").names == LISTS["train"]
    assert dataset.split("test", "segmentation").names == LISTS["val"]


def test_a_list_of_masks_only(year: Path) -> None:
    write_list(year, "trainaug", ["000001", "000005"], folder="Segmentation")
    dataset = catalogue.dataset(f"voc:{year},train=trainaug")
    assert dataset.name == "voc:VOC2007,train=trainaug"
    assert dataset.split("train", "segmentation").names == ["000001", "000005"]
    near = "did you mean train or trainval?"
    refused(UsageError, lambda: dataset.split("train", "detection"), "Main", "'trainaug'", near)
    asked = f"voc:{year},train=trainagu"
    refused(UsageError, lambda: catalogue.dataset(asked), "did you mean trainaug")


def test_a_year_whose_lists_of_masks_have_another_custom(year: Path) -> None:
    """The name says so where either task gets other lists than usual."""
    (year / "ImageSets" / "Segmentation" / "test.txt").unlink()
    assert catalogue.dataset(f"voc:{year}").split("test", "segmentation").names == LISTS["val"]
    for options in (",train=train,test=val", ",train=trainval,test=test"):
        assert catalogue.dataset(f"voc:{year}{options}").name == f"voc:VOC2007{options}"


def test_what_a_set_has_no_truth_for(year: Path, tiny_photos: Path) -> None:
    dataset = catalogue.dataset(f"voc:{make_year(year.parent / 'plain')}")
    assert dataset.tasks == ("classification", "detection")
    refused(DataError, lambda: dataset.split("train", "segmentation"), "ImageSets/Segmentation/")
    for task in ("detection", "segmentation"):
        folder = catalogue.dataset(f"folder:{tiny_photos}")
        refused(DataError, lambda f=folder, t=task: f.split("train", t), task, "scenes", "voc:PATH")
    split = catalogue.dataset(f"voc:{year}").split("train", "segmentation")
    refused(DataError, lambda: split.objects(0), "no boxes")
    split = catalogue.dataset(f"voc:{year}").split("train", "detection")
    refused(DataError, lambda: split.mask(0), "no masks")


def test_fingerprint_follows_every_file(year: Path) -> None:
    def fingerprint(task: Task) -> str:
        return catalogue.dataset(f"voc:{year}").split("train", task).fingerprint

    before = fingerprint("detection"), fingerprint("segmentation")
    annotate(year, "000004", thing("cat"))
    assert fingerprint("detection") != before[0]
    assert fingerprint("segmentation") == before[1]
    write_mask(year, "000002", draw_mask(9))
    assert fingerprint("segmentation") != before[1]
    after = fingerprint("segmentation")
    (year / "SegmentationClass" / "000002.png").unlink()
    assert fingerprint("segmentation") not in (before[1], after)


# ---- reports
def test_classification_reports_all_faults_at_once(year: Path) -> None:
    (year / "JPEGImages" / "000001.jpg").unlink()
    (year / "Annotations" / "000002.xml").unlink()
    annotate(year, "000003", thing(""), thing("dog", difficult=3))
    annotate(year, "000004", filename="000009.jpg")
    with pytest.raises(Faults) as raised:
        catalogue.dataset(f"voc:{year}").split("train")
    lines = lines_of(raised.value)
    parts = [
        "000001.jpg is missing",
        "000002.xml is missing",
        "unknown class ''",
        "difficult '3'",
        "000009",
    ]
    assert [part in line for part, line in zip(parts, lines, strict=True)] == [True] * 5
    assert str(raised.value).startswith(f"5 faults in {year}/ImageSets/Main/trainval.txt:\n  ")


def test_class_files_report_all_faults_at_once(year: Path) -> None:
    write_list(year, "dog_trainval", ["000001 0", "000002 1", "000003 1", "000004 -1"])
    write_list(year, "cat_trainval", ["000001 -1"])
    with pytest.raises(Faults) as raised:
        catalogue.dataset(f"voc:{year}").split("train")
    assert ["dog" in line for line in lines_of(raised.value)] == [False, True, True]


def test_images_without_objects_and_grey_ones(year: Path) -> None:
    draw_photo(3).convert("L").save(year / "JPEGImages" / "000004.jpg")
    write_mask(year, "000004", np.zeros((HEIGHT, WIDTH)))
    for task in ("detection", "segmentation"):
        split = catalogue.dataset(f"voc:{year}").split("train", task)
        pixels, digest = split.whole(3)
        assert pixels.shape == (HEIGHT, WIDTH, 3)
        assert (pixels == pixels[..., :1]).all()
        assert len(digest) == 64
    assert not mask_of(year, 3).any()
    assert set(THINGS["000004"]) == set()


# ---- real photographs
@pytest.mark.photos
def test_real_masks_to_train_on_share_no_image_with_val(photos: Path) -> None:
    """trainaug, which is in the lists of masks only: VOC's train and SBD's masks."""
    root = photos / "VOCdevkit" / "VOC2012"
    dataset = catalogue.dataset(f"voc:{root},name=voc12-animals,train=trainaug")
    train, test = (dataset.split(split, "segmentation") for split in ("train", "test"))
    assert (len(train.names), len(test.names)) == (3046, 348)
    usual = catalogue.dataset(f"voc:{root}").split("train", "segmentation")
    assert set(usual.names) <= set(train.names)
    photo = root / "JPEGImages"
    contents = [{(photo / f"{n}.jpg").read_bytes() for n in s.names} for s in (train, test)]
    assert [len(found) for found in contents] == [3046, 348]
    assert not contents[0] & contents[1]


# ---- one list for all
def test_a_test_set_is_drawn_where_a_tool_lists_all_images_together(year: Path) -> None:
    """CVAT writes ImageSets/Main/default.txt alone; which says what to do."""
    main = year / "ImageSets" / "Main"
    for path in main.iterdir():
        path.unlink()
    (year / "ImageSets" / "Segmentation").rename(year / "elsewhere")
    names = sorted(path.stem for path in (year / "Annotations").glob("*.xml"))
    (main / "default.txt").write_text("\n".join(names))
    with pytest.raises(UsageError, match=r"only default: .* voc:PATH,test=0.25"):
        catalogue.dataset(f"voc:{year}").split("train")
    drawn = catalogue.dataset(f"voc:{year},test=0.4")
    train, test = (drawn.split(split, "detection").names for split in ("train", "test"))
    assert sorted([*train, *test]) == names
    assert len(test) == round(0.4 * len(names))
