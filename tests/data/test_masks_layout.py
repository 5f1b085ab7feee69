"""`masks:PATH`, CamVid and Cityscapes: indices and colours, against Pillow and torchvision."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import Cityscapes

from helpers.bench import Bench
from helpers.layouts import assert_refused, photographs, refuses, split_of
from ssl_bench import catalogue
from ssl_bench.data.masks.key import read_key
from ssl_bench.data.masks.named import CAMVID, CAMVID_GROUPS
from ssl_bench.data.store.whole import open_whole
from ssl_bench.errors import DataError

WIDTH, HEIGHT = 24, 16
PALETTE = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10], [9, 9, 9]], np.uint8)


def drawn(seed: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(PALETTE.ravel().tolist() + [7] * (768 - PALETTE.size))
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """images/ and masks/ by split, of indices 0, 1, 2 with a void line at the top."""
    for split in ("train", "val"):
        photographs(tmp_path / "images" / split, "a.jpg", "b.jpg")
        for seed, name in enumerate(("a.png", "b.png")):
            mask = drawn(seed)
            mask[0] = 255
            save(tmp_path / "masks" / split / name, mask, palette=seed == 1)
    return tmp_path


def mask_of(specification: str, index: int = 0, split: str = "train") -> np.ndarray:
    return split_of(specification, split, "segmentation").mask(index)


def expected(seed: int) -> np.ndarray:
    mask = drawn(seed)
    mask[0] = 255
    return mask


# ---- indices
def test_index_masks_without_a_list(root: Path) -> None:
    dataset = catalogue.dataset(f"masks:{root}")
    assert (dataset.tasks, dataset.splits) == (("segmentation",), ("train", "test"))
    split = dataset.split("train", "segmentation")
    assert split.classes == ("class 1", "class 2")
    assert "2 classes by its masks, without names" in split.notes[0]
    for seed in (0, 1):  # grey, and a palette, whose colours say nothing
        np.testing.assert_array_equal(split.mask(seed), expected(seed))
    assert list(dataset.split_for_pretraining("train").names) == [
        "images/train/a.jpg",
        "images/train/b.jpg",
    ]


def test_a_list_with_and_without_a_background(root: Path) -> None:
    (root / "classes.txt").write_text("background\nroad\nsky\n")
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("road", "sky")
    np.testing.assert_array_equal(split.mask(0), expected(0))
    (root / "classes.txt").write_text("tree\nvoid\nsky\n")
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("tree", "sky")
    ours = np.array([1, 255, 2] + [0] * 252 + [255], np.uint8)
    np.testing.assert_array_equal(split.mask(0), ours[expected(0)])


def test_masks_of_0_and_255_are_of_one_class(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        save(path, 255 * drawn(0, 2))
    split = split_of(f"masks:{root}", task="segmentation")
    np.testing.assert_array_equal(split.mask(0), drawn(0, 2))
    assert "255 in its masks is the class" in split.notes[0]
    (root / "classes.txt").write_text("background\nbuilding\n")
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("building",)
    np.testing.assert_array_equal(split.mask(0), drawn(0, 2))


@pytest.mark.parametrize("value", [1, 2, 127, 128, 255])
def test_masks_of_0_and_one_value_are_of_one_class(root: Path, value: int) -> None:
    for path in root.glob("masks/*/*.png"):
        save(path, value * drawn(0, 2))
    for lines, name in {"": "class 1", "building": "building", "void\nhut": "hut"}.items():
        if lines:
            (root / "classes.txt").write_text(lines)
        elif value != 1:
            (note,) = split_of(f"masks:{root}", task="segmentation").notes
            assert f"{value} in its masks is the class" in note
        split = split_of(f"masks:{root}", task="segmentation")
        assert split.classes == (name,)
        if "void" not in lines:
            np.testing.assert_array_equal(split.mask(0), drawn(0, 2))


def test_a_list_that_has_the_value_is_believed(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        save(path, drawn(0, 2))
    (root / "classes.txt").write_text("field\nbackground\n")
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("field",)
    np.testing.assert_array_equal(split.mask(0), 1 - drawn(0, 2))


def test_grey_levels_are_a_class_each(root: Path) -> None:
    levels = np.array([0, 85, 170, 255], np.uint8)
    for path in root.glob("masks/*/*.png"):
        save(path, levels[drawn(0, 4)])
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("class 85", "class 170")
    np.testing.assert_array_equal(split.mask(0), np.array([0, 1, 2, 255])[drawn(0, 4)])
    assert "2 classes by its masks, without names: they are 85, 170;" in split.notes[0]
    assert "lines as '85 85 85 NAME'" in split.notes[0]
    (root / "label_colors.txt").write_text(
        "0 0 0 background\n85 85 85 car\n170 170 170 bus\n255 255 255 tram\n"
    )
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("car", "bus", "tram")
    np.testing.assert_array_equal(split.mask(0), drawn(0, 4))


@pytest.mark.parametrize(
    "text",
    [
        "Pixel Value, Class\n0, background\n1, cat\n2, dog\n",
        "2: dog\n1: cat\n0: background\n",
        "0 bg\n1 cat\n2 dog",
    ],
)
def test_a_list_that_numbers_its_lines(root: Path, text: str) -> None:
    (root / "_classes.csv").write_text(text)
    split = split_of(f"masks:{root}", task="segmentation")
    assert sorted(split.classes) == ["cat", "dog"]
    ours = np.array([0, *(1 + split.classes.index(name) for name in ("cat", "dog"))] + [255] * 253)
    np.testing.assert_array_equal(split.mask(0), ours[expected(0)])


def test_a_list_that_numbers_two_lines_alike(root: Path) -> None:
    (root / "classes.txt").write_text("0 background\n1 cat\n1 dog\n")
    refuses(f"masks:{root}", "each takes its own index from 0 to 255", task="segmentation")


# ---- where they lie
def test_masks_beside_their_images(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "with_mask_b", "c-label")):
        photographs(tmp_path, f"{name}.jpg")
        save(tmp_path / f"{name}_mask.png", drawn(seed))
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")
    dataset = catalogue.dataset(f"masks:{tmp_path},test=0.34")
    parts = {name: dataset.split(name, "segmentation") for name in ("train", "test")}
    found = {name: part.mask(i) for part in parts.values() for i, name in enumerate(part.names)}
    assert sorted(found) == ["a.jpg", "c-label.jpg", "with_mask_b.jpg"]
    assert [len(part.names) for part in parts.values()] == [2, 1]
    np.testing.assert_array_equal(found["with_mask_b.jpg"], drawn(1))
    assert not any("left out" in note for note in parts["train"].notes)
    photographs(tmp_path, "lonely.png")
    alone = catalogue.dataset(f"masks:{tmp_path}").split("train", "segmentation")
    with pytest.raises(DataError, match=r"lonely\.png has no mask"):
        alone.mask(list(alone.names).index("lonely.png"))


# ---- colours
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", "name,r,g,b\nBackground,0,0,0\nred car,200,10,10\nvoid,10,200,10\n"),
        ("label_colors.txt", "0 0 0\tBackground\n200 10 10\tred car\n10 200 10\tVoid\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
         "red car:200,10,10::\nignore:10,200,10::\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_palette", [True, False])
def test_colour_masks(root: Path, name: str, text: str, as_palette: bool) -> None:
    (root / name).write_text(text)
    for seed, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        save(path, drawn(seed) if as_palette else PALETTE[drawn(seed)], palette=as_palette)
    split = split_of(f"masks:{root}", task="segmentation")
    assert split.classes == ("red car",)
    np.testing.assert_array_equal(split.mask(1), np.array([0, 1, 255], np.uint8)[drawn(1)])


# ---- where it lies
@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("{}/images/a.jpg", "{}/masks/a.png"),
        ("{}/a.jpg", "{}annot/a.png"),
        ("{}/a.jpg", "{}_labels/a_L.png"),
        ("images/{}/a_sat.jpg", "annotations/{}/a_mask.png"),
        ("JPEGImages/{}/x/a.jpg", "SegmentationClass/{}/x/a.png"),
    ],
)
def test_layouts(tmp_path: Path, photo: str, mask: str) -> None:
    for split in ("train", "valid"):
        photographs(tmp_path, photo.format(split))
        save(tmp_path / mask.format(split), drawn(5))
    for split in ("train", "test"):
        np.testing.assert_array_equal(mask_of(f"masks:{tmp_path}", split=split), drawn(5))


def test_flat_folders_are_drawn_from(tmp_path: Path) -> None:
    photographs(tmp_path, *(f"pictures/{i}.jpg" for i in range(4)))
    for i in range(4):
        save(tmp_path / f"truth/{i}.png", drawn(i))
    refuses(f"masks:{tmp_path}", "masks:PATH,images=FOLDER", task="segmentation")
    spec = f"masks:{tmp_path},test=0.25,images=pictures,masks=truth"
    parts = [split_of(spec, name, "segmentation") for name in ("train", "test")]
    assert [len(part.names) for part in parts] == [3, 1]
    assert_refused(lambda: mask_of(spec.replace("test=0.25,", ""), split="test"), "test=0.25")


# ---- by name
def test_cityscapes_is_torchvisions(tmp_path: Path) -> None:
    """torchvision opens the folder, and its table says which ids are which class."""
    ids = np.arange(34, dtype=np.uint8).repeat(12).reshape(17, 24)
    for split in ("train", "val", "test"):
        stem = "aachen/aachen_000000_000019"
        photographs(tmp_path, f"leftImg8bit/{split}/{stem}_leftImg8bit.png", height=17)
        for kind in ("labelIds", "labelTrainIds", "instanceIds", "color"):
            save(tmp_path / f"gtFine/{split}/{stem}_gtFine_{kind}.png", ids)
    theirs = Cityscapes(str(tmp_path), split="val", mode="fine", target_type="semantic")
    table = np.full(256, 255, np.uint8)
    for one in theirs.classes:
        if 0 <= one.train_id < 255:
            table[one.id] = 1 + one.train_id
    dataset = catalogue.dataset(f"cityscapes:{tmp_path}")
    assert dataset.splits == ("train", "test")
    split = dataset.split("test", "segmentation")
    np.testing.assert_array_equal(split.mask(0), table[np.array(theirs[0][1])])
    named = sorted((one.train_id, one.name) for one in theirs.classes if 0 <= one.train_id < 255)
    assert split.classes == tuple(name for _, name in named)
    assert split.names[0].startswith("leftImg8bit/val/aachen/")


def test_camvid_both_ways(tmp_path: Path) -> None:
    """SegNet's indices, and the colours of 32 classes in its groups, are the same 11 classes."""
    index, colour = tmp_path / "index", tmp_path / "colour"
    names = [name for group in CAMVID for name in CAMVID_GROUPS[group].split()] + ["void"]
    assert len(names) == 32
    values = np.arange(32).repeat(12).reshape(16, 24)
    groups = [next((g for g in CAMVID if n in CAMVID_GROUPS[g].split()), "void") for n in names]
    segnet = np.array([[*CAMVID, "void"].index(g) for g in groups], np.uint8)
    for split in ("train", "val", "test"):
        photographs(index / split, "0001TP_1.png")
        save(index / f"{split}annot/0001TP_1.png", segnet[values])
        photographs(colour / split, "0001TP_1.png")
        rgb = np.stack([values, 255 - values, 3 * values], 2).astype(np.uint8)
        save(colour / f"{split}_labels/0001TP_1_L.png", rgb)
    lines = [f"{name.title()},{i},{255 - i},{3 * i}" for i, name in enumerate(names)]
    (colour / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines]))
    one, two = catalogue.dataset(f"camvid:{index}"), catalogue.dataset(f"camvid:{colour}")
    assert one.splits == two.splits == ("train", "val", "test")
    masks = [each.split("test", "segmentation").mask(0) for each in (one, two)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.unique(masks[0]).tolist() == [*range(1, 12), 255]
    assert one.split("train", "segmentation").classes == CAMVID


# ---- bad input
def test_bad_masks_are_one_report(root: Path) -> None:
    (root / "classes.txt").write_text("background\nroad\nsky\n")
    save(root / "masks/train/a.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
    save(root / "masks/train/b.png", np.zeros((4, 4), np.uint8))
    save(root / "masks/val/a.png", PALETTE[drawn(0)])
    (root / "masks/val/b.png").write_text("no image")
    parts = ("train/a.png has the index 9", "train/b.png is 4×4 px", "val/a.png has colours",
             "val/b.png cannot be read as a mask")  # fmt: skip
    refuses(f"masks:{root}", *parts, task="segmentation")


def test_colours_that_no_class_has(root: Path) -> None:
    (root / "class_dict.csv").write_text("name,r,g,b\na,0,0,0\nb,200,10,10\n")
    save(root / "masks/train/a.png", PALETTE[drawn(0)])
    refuses(f"masks:{root}", "a.png has the colour 10,200,10", task="segmentation")
    (root / "class_dict.csv").unlink()
    refuses(f"masks:{root}", "colours, and none of classes.txt", task="segmentation")


def test_missing_masks_are_one_report(root: Path) -> None:
    (root / "masks/train/a.png").unlink()
    photographs(root / "images/train", "c.jpg")
    save(root / "masks/val/more.png", drawn(0))
    refuses(f"masks:{root}", "a.jpg has no mask", "c.jpg has no mask", task="segmentation")
    dataset = catalogue.dataset(f"masks:{root}")
    sizes = {"short": None, "longest": 64, "skip_bad_images": True, "workers": 0}
    store = open_whole(dataset, "train", "segmentation", **sizes)
    assert list(store.index.names) == ["images/train/b.jpg"]
    save(root / "masks/train/a_mask.png", drawn(0))
    save(root / "masks/train/a_L.png", drawn(0))
    refuses(f"masks:{root}", "a.jpg has 2 masks", task="segmentation")


def test_none_has_a_mask(root: Path) -> None:
    (root / "masks/train/a.png").unlink()
    (root / "masks/train/b.png").unlink()
    refuses(f"masks:{root}", "a.jpg has no mask", "b.jpg has no mask", task="segmentation")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_grey_in_three_channels_is_grey(mode: str, tmp_path: Path) -> None:
    """As OpenCV writes what it has read as colours."""
    photographs(tmp_path / "images", *(f"{i}.jpg" for i in range(4)))
    two = np.where(drawn(0) % 2 == 0, 0, 255).astype(np.uint8)
    for i in range(4):
        save(tmp_path / f"masks/{i}.png", np.asarray(Image.fromarray(two).convert(mode)))
    split = split_of(f"masks:{tmp_path},test=0.25", task="segmentation")
    np.testing.assert_array_equal(split.mask(0), two // 255)
    Image.fromarray(two).save(tmp_path / "masks/0.jpg")
    (tmp_path / "masks/0.png").unlink()
    refuses(f"masks:{tmp_path},test=0.25", "0.jpg is a JPEG", "a threshold", task="segmentation")


def test_bad_class_lists_are_one_report(tmp_path: Path) -> None:
    path = tmp_path / "class_dict.csv"
    path.write_text("a,1,2,3\na,4,5,6\nb,1,2,3\nc,1,2,300\nd\n")
    parts = ("class 'a' twice", "colour (1, 2, 3) for two", "line 4", "0 to 255", "for some")
    assert_refused(lambda: read_key(path), *parts)


def test_check_counts_pixels(root: Path, bench: Bench) -> None:
    made = bench.ok("data", "check", f"masks:{root}", "--workers", 0)
    assert "train, segmentation: 2 images" in made.out
    assert f"{1 / HEIGHT:.1%} void" in made.out
