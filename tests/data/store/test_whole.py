"""The store of whole images: sizes, batches, boxes and masks, what is checked, what is kept."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from helpers.photos import draw_photo
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
from ssl_bench.data import packing
from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.data.embedded import ScenesSplit
from ssl_bench.data.faults import Faults, lines_of
from ssl_bench.data.samples import Sample
from ssl_bench.data.store import open_store
from ssl_bench.data.voc_files import CLASSES
from ssl_bench.data.voc_split import VOCSplit
from ssl_bench.data.whole import WholeStore, open_whole
from ssl_bench.errors import DataError, UsageError
from ssl_bench.train import Batches

# Width and height of the training images.
SIZES = {"000001": (96, 80), "000002": (50, 120), "000003": (200, 40), "000004": (64, 64)}
DOG, PERSON = CLASSES.index("dog"), CLASSES.index("person")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """A folder like VOC2007's, its training images of four sizes; a test may spoil it."""
    root = add_masks(make_year(tmp_path / "VOC2007"))
    for i, (name, (width, height)) in enumerate(SIZES.items()):
        draw_photo(i, width, height).save(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root, name, draw_mask(i, height, width))
    return root


def opened(
    root: Path,
    task: Task = "detection",
    short: int | None = None,
    longest: int = 1000,
    *,
    split: SplitName = "train",
    skip_bad_images: bool = False,
    workers: int = 0,
) -> WholeStore:
    dataset = catalogue.dataset(f"voc:{root}")
    return open_whole(
        dataset, split, task, short, longest, skip_bad_images=skip_bad_images, workers=workers
    )


def photo(root: Path, name: str) -> Image.Image:
    return Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")


# ---- sizes and pixels


@pytest.mark.parametrize(
    ("short", "longest", "expected"),
    [
        (None, 1000, [(80, 96), (120, 50), (40, 200), (64, 64)]),
        (None, 100, [(80, 96), (100, 42), (20, 100), (64, 64)]),
        (40, 1000, [(40, 48), (96, 40), (40, 200), (40, 40)]),
        (40, 100, [(40, 48), (96, 40), (20, 100), (40, 40)]),
        (160, 300, [(160, 192), (300, 125), (60, 300), (160, 160)]),
        (1, 1, [(1, 1), (1, 1), (1, 1), (1, 1)]),
    ],
)
def test_short_side_unless_the_long_one_is_too_long(
    year: Path, short: int | None, longest: int, expected: list[tuple[int, int]]
) -> None:
    store = opened(year, "classification", short, longest)
    assert [tuple(size) for size in store.sizes.tolist()] == expected
    assert store.originals.tolist() == [[h, w] for w, h in SIZES.values()]
    assert (store.sizes.dtype, store.sizes.shape) == (np.int64, (4, 2))
    assert store.scales.shape == (4,)
    exact = np.maximum(1, store.originals * store.scales[:, None])
    np.testing.assert_allclose(store.sizes, exact, atol=0.5)


@pytest.mark.parametrize(("short", "longest"), [(0, 10), (20, 10), (None, 0), (-1, 10)])
def test_impossible_sides(year: Path, short: int | None, longest: int) -> None:
    refused(UsageError, lambda: opened(year, "detection", short, longest), "1 or more")


def test_pixels_are_those_of_the_files(year: Path) -> None:
    store = opened(year)
    for i, name in enumerate(SIZES):
        image = store.images(np.array([i]))[0]
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(photo(year, name)))


def test_resizing_is_bilinear_and_antialiased(year: Path) -> None:
    """As torchvision's, within a level of rounding."""
    for short in (30, 150):
        store = opened(year, "detection", short)
        for i, name in enumerate(SIZES):
            expected = tv.resize(
                torch.from_numpy(np.array(photo(year, name))).permute(2, 0, 1),
                store.sizes[i].tolist(), antialias=True,
            )  # fmt: skip
            found = store.images(np.array([i]))[0]
            assert int((found.int() - expected.int()).abs().max()) <= 1


def test_a_batch_is_padded_to_its_largest(year: Path) -> None:
    store = opened(year, "segmentation")
    which = np.array([3, 0, 1])
    images, masks = store.images(which), store.masks(which)
    assert (images.shape, images.dtype) == ((3, 3, 120, 96), torch.uint8)
    assert (masks.shape, masks.dtype) == ((3, 120, 96), torch.uint8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for row, i in enumerate(which):
        height, width = store.sizes[i]
        alone, mask = store.images(which[[row]])[0], store.masks(which[[row]])[0]
        assert alone.shape == (3, height, width)
        np.testing.assert_array_equal(images[row, :, :height, :width], alone)
        np.testing.assert_array_equal(masks[row, :height, :width], mask)
        assert not images[row, :, height:].any()
        assert not images[row, :, :, width:].any()
        assert (masks[row, height:] == 255).all()
        assert (masks[row, :, width:] == 255).all()


def test_slices_repeated_and_no_images(year: Path) -> None:
    store = opened(year, "segmentation")
    np.testing.assert_array_equal(store.images(slice(1, 3)), store.images(np.array([1, 2])))
    np.testing.assert_array_equal(store.masks(slice(None)), store.masks(np.arange(4)))
    twice = store.images(np.array([2, 2]))
    np.testing.assert_array_equal(twice[0], twice[1])
    assert store.images(np.array([], int)).shape == (0, 3, 0, 0)
    assert store.masks(slice(0, 0)).shape == (0, 0, 0)


def test_batches_are_copies(year: Path) -> None:
    store = opened(year)
    store.images(np.array([0])).zero_()
    assert store.images(np.array([0])).any()


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
        found = packing._resized(mask, size, Image.Resampling.NEAREST)
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
    found = packing.fit(sample, 80, 1000).mask
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


# ---- what is refused


def spoil(year: Path) -> list[str]:
    """A fault of each kind; returns what their lines say, in the images' order."""
    (year / "JPEGImages" / "000001.jpg").unlink()
    annotate(year, "000002", thing("dgo"), thing("dog", box=(1, 1, 500, 50)))
    annotate(year, "000003", thing("dog", box=(1, 1, 500, 50)), thing("cat", box=(-9, 1, 5, 5)))
    (year / "JPEGImages" / "000004.jpg").write_text("no image")
    return ["000001.jpg is missing", "did you mean dog", "500", "-9", "000004.jpg cannot be read"]


def test_all_faults_are_in_one_report(year: Path, cache: Path) -> None:
    expected = spoil(year)
    with pytest.raises(Faults) as raised:
        opened(year)
    report = str(raised.value).splitlines()
    assert report[0] == "5 faults in voc:VOC2007 train, detection:"
    assert [part in line for part, line in zip(expected, report[1:-1], strict=True)] == [True] * 5
    assert report[-1] == "mend them, or pass --skip-bad-images to leave these images out"
    assert not any("--skip-bad-images" in line for line in report[:-1])
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_missing_files_of_one_image_are_all_named(year: Path) -> None:
    write_list(year, "trainval", ["000001", "000099"])
    with pytest.raises(Faults) as raised:
        opened(year)
    photo, annotation = lines_of(raised.value)
    for line, name in ((photo, "000099.jpg"), (annotation, "000099.xml")):
        assert f"{name} is missing" in line
        assert "though trainval.txt lists 000099" in line


def test_faults_of_masks_are_in_one_report(year: Path) -> None:
    (year / "SegmentationClass" / "000001.png").unlink()
    write_mask(year, "000002", draw_mask(0))
    write_mask(year, "000003", np.full((40, 200), 77))
    Image.new("RGB", (64, 64)).save(year / "SegmentationClass" / "000004.png")
    with pytest.raises(Faults) as raised:
        opened(year, "segmentation")
    parts = ["missing", "its image is 50×120", "index 77", "has colours"]
    lines = lines_of(raised.value)
    assert [part in line for part, line in zip(parts, lines, strict=True)] == [True] * 4


def test_a_single_fault_is_one_line(year: Path) -> None:
    path = year / "JPEGImages" / "000002.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    remedy = "mend or remove it, or pass --skip-bad-images to leave these images out"
    refused(DataError, lambda: opened(year), path, remedy)


def test_hundreds_of_faults_are_counted(year: Path) -> None:
    write_list(year, "trainval", [f"{i:06}" for i in range(1, 301)])
    with pytest.raises(Faults) as raised:
        opened(year)
    report = str(raised.value).splitlines()
    assert len(report) == 23
    assert report[0].startswith(f"{2 * (300 - len(THINGS))} faults in")
    assert report[-2] == "  … and 568 more"


def test_images_with_faults_are_left_out_on_demand(year: Path) -> None:
    whole = opened(year)
    annotate(year, "000001", thing("dog", box=(1, 1, 500, 50)))
    (year / "JPEGImages" / "000003.jpg").unlink()
    store = opened(year, skip_bad_images=True)
    assert store.index.names == ["000002", "000004"]
    assert len(store.index.skipped) == 2
    for said, part in zip(store.index.skipped, ("500", "000003.jpg is missing"), strict=True):
        assert part in said
    np.testing.assert_array_equal(store.targets, whole.targets[[1, 3]])
    np.testing.assert_array_equal(store.sizes, whole.sizes[[1, 3]])
    for i, before in enumerate([1, 3]):
        np.testing.assert_array_equal(store.objects(i).boxes, whole.objects(before).boxes)
        np.testing.assert_array_equal(store.images(np.array([i])), whole.images(np.array([before])))
    with pytest.raises(DataError, match=r"500"):
        opened(year)


def test_nothing_left_is_refused_without_advice_to_skip(year: Path) -> None:
    for name in LISTS["trainval"]:
        (year / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(Faults) as raised:
        opened(year, skip_bad_images=True)
    assert "--skip" not in str(raised.value)


def test_huge_photo_is_refused(year: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(year, "test", ["000005"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(DataError, lambda: opened(year, split="test"), "000005.jpg", "exceeds limit", "mend")


# ---- the cache


def test_second_opening_decodes_nothing(year: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(year, "segmentation", 30)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(VOCSplit, "whole", refuse)
    second = opened(year, "segmentation", 30)
    assert (second.folder, second.index) == (first.folder, first.index)


def test_sizes_and_tasks_do_not_collide(year: Path) -> None:
    stores = [
        opened(year, task, short, longest)
        for task in ("detection", "segmentation")
        for short, longest in ((None, 100), (30, 100), (30, 90))
    ]
    assert len({store.folder for store in stores}) == 6
    assert [len({s.index.digest for s in part}) for part in (stores[:3], stores[3:])] == [1, 1]
    assert stores[0].index.digest != stores[3].index.digest


def other_photo(year: Path) -> None:
    draw_photo(77).save(year / "JPEGImages" / "000001.jpg")


def other_box(year: Path) -> None:
    annotate(year, "000001", thing("dog", box=(1, 2, 30, 40.01)), thing("person"))


def now_difficult(year: Path) -> None:
    annotate(year, "000001", thing("dog"), thing("person", difficult=1))


def other_class(year: Path) -> None:
    annotate(year, "000001", thing("cat"), thing("person"))


def other_mask(year: Path) -> None:
    mask = draw_mask(0)
    mask[0, 0] = 255
    write_mask(year, "000001", mask)


def other_order(year: Path) -> None:
    for folder in ("Main", "Segmentation"):
        write_list(year, "trainval", LISTS["trainval"][::-1], folder=folder)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("detection", other_photo),
        ("detection", other_box),
        ("detection", now_difficult),
        ("detection", other_class),
        ("detection", other_order),
        ("segmentation", other_photo),
        ("segmentation", other_mask),
        ("segmentation", other_order),
    ],
)
def test_digest_follows_every_edit(
    year: Path, task: Task, change: Callable[[Path], object]
) -> None:
    before = opened(year, task)
    assert opened(year, task).index.digest == before.index.digest
    change(year)
    after = opened(year, task)
    assert after.index.digest != before.index.digest
    assert after.folder != before.folder


def test_digest_is_of_contents_and_not_of_times(year: Path) -> None:
    before = opened(year)
    for path in year.rglob("*.xml"):
        path.write_bytes(path.read_bytes())
    after = opened(year)
    assert after.folder != before.folder
    assert after.index.digest == before.index.digest


def test_damaged_store_is_named(year: Path) -> None:
    for name in ("index.json", "images.bin", "masks.bin"):
        store = opened(year, "segmentation")
        path = store.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        refused(DataError, lambda: opened(year, "segmentation"), path, "remove that folder")
        path.write_bytes(whole)


def test_interruption_leaves_nothing_behind(
    year: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VOCSplit.whole

    def stop_at_the_third(self: VOCSplit, index: int) -> object:
        if index == 2:
            raise KeyboardInterrupt
        return whole(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(VOCSplit, "whole", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            opened(year)
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert len(opened(year)) == 4


def test_workers_change_nothing(year: Path) -> None:
    one = opened(year, "segmentation", 30)
    contents = {p.name: p.read_bytes() for p in one.folder.iterdir()}
    for path in one.folder.iterdir():
        path.unlink()
    one.folder.rmdir()
    many = opened(year, "segmentation", 30, workers=2)
    assert {p.name: p.read_bytes() for p in many.folder.iterdir()} == contents
    assert sorted(contents) == ["images.bin", "index.json", "masks.bin"]


def test_faults_come_back_from_workers(year: Path) -> None:
    expected = spoil(year)
    with pytest.raises(Faults) as raised:
        opened(year, workers=2)
    assert len(lines_of(raised.value)) == len(expected)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), lines_of(again)) == (str(raised.value), lines_of(raised.value))


# ---- the training loop's side


def test_store_is_pickled_without_its_pixels(year: Path) -> None:
    store = opened(year, "segmentation")
    store.images(np.array([0]))
    packed = pickle.dumps(store)
    assert len(packed) < 20_000
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.images(slice(None)), store.images(slice(None)))
    np.testing.assert_array_equal(again.masks(np.array([1])), store.masks(np.array([1])))


def test_training_loops_batches(year: Path) -> None:
    store = opened(year)
    batches = Batches(store, torch.arange(4), 0, 2, torch.arange(2))  # type: ignore[arg-type]
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(4), num_workers=1)
    for images, indices in loader:
        size = store.sizes[indices.numpy()].max(0)
        assert images.shape == (2, 3, *size)
        np.testing.assert_array_equal(images, store.images(indices.numpy()))


def test_normalization_is_that_of_all_stored_pixels(year: Path) -> None:
    store = opened(year, "detection", 50)
    images = [store.images(np.array([i]))[0].flatten(1).double() / 255 for i in range(4)]
    pixels = torch.cat(images, 1)
    np.testing.assert_allclose(store.normalization.mean, pixels.mean(1), rtol=1e-9)
    np.testing.assert_allclose(store.normalization.std, pixels.std(1, correction=0), rtol=1e-9)


def test_index_is_plain_json(year: Path) -> None:
    store = opened(year)
    found = json.loads((store.folder / "index.json").read_text())
    assert found["names"] == LISTS["trainval"]
    assert found["objects"][3] == {"boxes": [], "labels": [], "difficult": []}
    assert found["masks"] is None
    assert not (store.folder / "masks.bin").exists()


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
        store = open_whole(dataset, split, "detection", 32, 64)
        assert len(store) == size
        for i, name in enumerate(store.index.names):
            path = root / "Annotations" / f"{name}.xml"
            counted = count(path, "<object>", "<difficult>1<")
            found = store.objects(i)
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
