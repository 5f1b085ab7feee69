"""The store of whole images: boxes, masks and classes, also of real photographs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import draw_photo
from helpers.voc_folders import annotate, draw_mask, refused, thing
from helpers.whole import DOG, SIZES, opened
from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset
from ssl_bench.data.scenes.dataset import ScenesSplit
from ssl_bench.data.store import samples
from ssl_bench.data.store.samples import Sample
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.store.whole import open_whole
from ssl_bench.errors import DataError


# ---- boxes
def test_boxes_are_in_stored_pixels_and_return(year: Path) -> None:
    annotate(year, "000002", thing("dog", difficult=1, box=(1, 1, 50, 120)))
    plain, small = opened(year), opened(year, "detection", 33, 70)
    for i in range(4):
        height, width = small.sizes[i].tolist()
        there, found = plain.objects(i), small.objects(i)
        down, across = (small.sizes[i] / small.originals[i]).tolist()
        np.testing.assert_allclose(found.boxes, there.resized(across, down).boxes, rtol=1e-6)
        back = found.resized(1 / across, 1 / down)
        np.testing.assert_allclose(back.boxes, there.boxes, rtol=1e-5)
        np.testing.assert_array_equal(found.labels, there.labels)
        np.testing.assert_array_equal(found.difficult, there.difficult)
        assert (found.boxes[:, 2:] <= (width, height)).all()
    whole = small.objects(1)
    assert whole.boxes.tolist() == [[0, 0, small.sizes[1, 1], small.sizes[1, 0]]]
    assert whole.difficult.tolist() == [True]


def test_a_box_stays_on_its_pixels(year: Path) -> None:
    """A white rectangle is where its box says, at any size."""
    pixels = np.zeros((90, 130, 3), np.uint8)
    pixels[20:60, 30:110] = 255
    Image.fromarray(pixels).save(year / "JPEGImages" / "000001.jpg", quality=100)
    annotate(year, "000001", thing("dog", box=(31, 21, 110, 60)))
    for short in (None, 45, 61, 200):
        store = opened(year, "detection", short)
        x0, y0, x1, y1 = store.objects(0).boxes[0]
        rows, columns = np.nonzero(store.images(np.array([0]))[0, 0].numpy() > 127)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, [x0, y0, x1, y1], atol=0.51)


def test_targets_follow_from_the_objects(year: Path) -> None:
    store = opened(year)
    assert (store.targets.shape, store.targets.dtype) == ((4, 20), np.int8)
    expected = catalogue.dataset(f"voc:{year}").split("train").labels
    np.testing.assert_array_equal(store.targets, expected)
    assert store.targets[:, DOG].tolist() == [1, -1, 1, 0]
    refused(DataError, lambda: store.labels, "several labels each")
    np.testing.assert_array_equal(opened(year, "classification").targets, expected)
    refused(DataError, lambda: opened(year, "segmentation").annotations, "no labels")


def test_what_the_task_has_not(year: Path) -> None:
    refused(DataError, lambda: opened(year).masks(slice(None)), "detection", "no masks")
    refused(DataError, lambda: opened(year, "segmentation").objects(0), "no boxes")


# ---- masks
def test_masks_are_those_of_the_files(year: Path) -> None:
    store = opened(year, "segmentation")
    for i, (width, height) in enumerate(SIZES.values()):
        np.testing.assert_array_equal(store.masks(np.array([i]))[0], draw_mask(i, height, width))


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (40, 48), (79, 97), (160, 192), (200, 31)])
def test_resizing_a_mask_never_makes_a_class(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for values in ([0, 20], [0, 3, 255], [1, 19]):
        mask = random.choice(values, (80, 96)).astype(np.uint8)
        found = samples._resized(mask, size, Image.Resampling.NEAREST)
        assert found.shape == size
        assert set(np.unique(found)) <= set(values)


def test_a_mask_grows_and_shrinks_with_its_image(year: Path) -> None:
    twice = opened(year, "segmentation", 160)
    height, width = twice.sizes[0]
    assert (height, width) == (160, 192)
    np.testing.assert_array_equal(
        twice.masks(np.array([0]))[0], draw_mask(0).repeat(2, 0).repeat(2, 1)
    )
    pixels = np.kron(draw_mask(0), np.ones((3, 3), np.uint8))
    sample = Sample(np.repeat(pixels[..., None], 3, 2), "", None, pixels)
    found = samples.fit(sample, 80, 1000).mask
    np.testing.assert_array_equal(found, draw_mask(0))


# ---- scenes
def test_scenes_are_the_same_for_every_task() -> None:
    dataset = catalogue.dataset("scenes:train=12,test=10")
    stores = [open_whole(dataset, "train", task, 64, 64, workers=0) for task in dataset.tasks]
    for store in stores[1:]:
        np.testing.assert_array_equal(store.images(slice(None)), stores[0].images(slice(None)))
        np.testing.assert_array_equal(store.labels, stores[0].labels)
        assert store.index.names == stores[0].index.names
    assert len({store.index.digest for store in stores}) == 3
    square = open_store(dataset, "train", 64, workers=0)
    np.testing.assert_array_equal(square.labels, stores[0].labels)
    assert square.index.digests == stores[0].index.digests


def test_scenes_boxes_are_the_extents_of_their_masks() -> None:
    dataset = catalogue.dataset("scenes:train=30,test=10")
    boxes, masks = (
        open_whole(dataset, "train", task, None, 256, workers=0)
        for task in ("detection", "segmentation")
    )
    for i in range(30):
        found, mask = boxes.objects(i), masks.masks(np.array([i]))[0].numpy()
        assert set(found.labels + 1) == set(np.unique(mask)) - {0}
        assert not found.difficult.any()
        for label in set(found.labels):
            of_class = found.boxes[found.labels == label]
            rows, columns = np.nonzero(mask == label + 1)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [*of_class[:, :2].min(0), *of_class[:, 2:].max(0)] == extent


def test_scenes_keep_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    split = catalogue.dataset("scenes:train=2,test=2").split("train", "detection")
    assert isinstance(split, ScenesSplit)
    np.testing.assert_array_equal(split.whole(1)[0], split.load(1, 256, 64)[0])


# ---- folders
def test_folders_are_kept_whole_for_classification(tiny_photos: Path) -> None:
    draw_photo(0, 30, 70).save(tiny_photos / "train" / "ant" / "0.jpg")
    dataset = catalogue.dataset(f"folder:{tiny_photos}")
    store = open_whole(dataset, "train", "classification", None, 1000, workers=0)
    assert store.sizes[0].tolist() == [70, 30]
    assert store.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    refused(DataError, lambda: open_whole(dataset, "train", "detection", None, 99), "detection")


# ---- real photographs
def count(path: Path, *parts: str) -> list[int]:
    """How often each text stands in a file."""
    text = path.read_text()
    return [text.count(part) for part in parts]


PACKS = [("VOC2007", "voc07-mini", (2476, 2476), (105, 105)),
         ("VOC2012", "voc12-animals", (1697, 1729), (352, 348))]  # fmt: skip


@pytest.fixture
def pack(photos: Path, request: pytest.FixtureRequest) -> tuple[Path, Dataset]:
    root = photos / "VOCdevkit" / request.param[0]
    return root, catalogue.dataset(f"voc:{root},name={request.param[1]}")


@pytest.mark.photos
@pytest.mark.parametrize(("pack", "sizes"), [(p, p[2]) for p in PACKS], indirect=["pack"])
def test_real_boxes_are_all_there(pack: tuple[Path, Dataset], sizes: tuple[int, int]) -> None:
    """Counted in the text of the files."""
    root, dataset = pack
    for split, size in zip(dataset.splits, sizes, strict=True):
        images = dataset.split(split, "detection")
        assert len(images.names) == size
        for i, name in enumerate(images.names):
            path = root / "Annotations" / f"{name}.xml"
            counted = count(path, "<object>", "<difficult>1<")
            found = images.objects(i)
            assert [len(found), int(found.difficult.sum())] == counted, name


@pytest.mark.photos
@pytest.mark.parametrize(("pack", "sizes"), [(p, p[3]) for p in PACKS], indirect=["pack"])
def test_real_masks_are_all_there(pack: tuple[Path, Dataset], sizes: tuple[int, int]) -> None:
    """Compared with the colours of VOC's palette, which spell the bits of the index."""
    root, dataset = pack
    for split, size in zip(dataset.splits, sizes, strict=True):
        store = open_whole(dataset, split, "segmentation", None, 1000)
        assert len(store) == size
        for i in range(0, size, 7):
            with Image.open(root / "SegmentationClass" / f"{store.index.names[i]}.png") as image:
                colours = np.asarray(image.convert("RGB")).astype(int)
            found = store.masks(np.array([i]))[0].numpy()
            np.testing.assert_array_equal(of_colours(colours), found)


def of_colours(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) colours of VOC's palette -> (H, W) indices: bit k of the index is bit 7 − k // 3 of
    channel k % 3."""
    bits = [(colours[..., k % 3] >> (7 - k // 3) & 1) << k for k in range(8)]
    return np.bitwise_or.reduce(bits)
