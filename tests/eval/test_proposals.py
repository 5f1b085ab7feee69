"""Selective search: boxes in place, one search per image whatever happens, damage named."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.networks import proposals
from eval.networks.proposals import open_proposals, proposals_path, selective_search
from ssl_bench import catalogue
from ssl_bench.data.store.whole import open_whole
from ssl_bench.errors import DataError
from ssl_bench.evaluation.metrics.detection import box_overlaps
from ssl_bench.workers import WorkerDied


@pytest.fixture(scope="module")
def store():
    return open_whole(catalogue.dataset("scenes:train=7,test=2"), "train", "detection", 64, 128,
                      workers=0)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(a, b):
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.ends, b.ends)


def picture(height, width, box):
    """A dark rectangle on bright grain."""
    random = np.random.default_rng(0)
    image = random.integers(180, 200, (height, width, 3)).astype(np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = (40, 80, 20)
    return image


# ---- one image
@pytest.mark.parametrize("scale", [1, 4])
def test_a_rectangle_is_found_where_it_is_in_the_images_own_pixels(scale):
    """At scale 4 the image is searched at 500 of its 960 px."""
    box = tuple(scale * side for side in (60, 40, 140, 120))
    image = picture(scale * 180, scale * 240, box)
    found = selective_search(image)
    assert found.dtype == np.float32
    assert found.shape[1] == 4
    assert box_overlaps(np.array([box]), found).max() > 0.9
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] > found[:, :2]).all()
    assert (found[:, 2:] <= [scale * 240 + 1e-3, scale * 180 + 1e-3]).all()


def test_boxes_come_once_and_in_order(store):
    found = selective_search(store.images(np.array([0]))[0].permute(1, 2, 0).numpy())
    assert len(found) > 10
    rows = found.tolist()
    assert len({tuple(row) for row in rows}) == len(rows)
    widths = np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], 1).tolist()
    assert widths == sorted(widths)


def test_an_image_of_one_colour_is_one_box():
    assert selective_search(np.full((30, 50, 3), 9, np.uint8)).tolist() == [[0, 0, 50, 30]]


def test_an_opencv_without_the_contributed_part_is_named(monkeypatch):
    monkeypatch.delattr(proposals.cv2, "ximgproc")
    with pytest.raises(DataError, match="install opencv-contrib-python-headless"):
        selective_search(np.zeros((30, 50, 3), np.uint8))


# ---- a split
@pytest.mark.usefixtures("pairs")
def test_parallel_is_serial_and_each_image_has_its_own(store, cache, monkeypatch):
    serial = open_proposals(store, "train", workers=0)
    monkeypatch.setenv("SSL_BENCH_CACHE", str(cache / "other"))
    assert same(serial, open_proposals(store, "train", workers=2))
    assert len(serial) == len(store) == 7
    for i in (0, 3, 6):
        h, w = store.sizes[i]
        image = store.images(np.array([i]))[0, :, :h, :w].permute(1, 2, 0).numpy()
        assert np.array_equal(serial[i], selective_search(image))


def test_nothing_is_searched_twice(store, cache, monkeypatch):
    first = open_proposals(store, "train")
    assert [p.name for p in cache.iterdir() if not p.name.startswith(".")] == [
        proposals_path(store).name
    ]
    assert not list(cache.glob(".*parts"))

    def refuse(image):
        raise AssertionError("searched again")

    monkeypatch.setattr(proposals, "selective_search", refuse)
    assert same(first, open_proposals(store, "train"))


def test_other_contents_sizes_or_settings_are_other_files_and_other_labels_are_not(
    store, cache, monkeypatch
):
    path = proposals_path(store)
    index = store.index
    for change in ({"digests": index.digests[::-1]}, {"sizes": [(65, 64)] * 7}):
        assert proposals_path(replace(store, index=index.model_copy(update=change))) != path
    relabelled = index.model_copy(update={"labels": None, "digest": "other"})
    assert proposals_path(replace(store, index=relabelled)) == path
    monkeypatch.setattr(proposals, "LONGEST", 300)
    assert proposals_path(store) != path


@pytest.fixture
def pairs(monkeypatch):
    """Blocks of two images: seven images make four."""
    monkeypatch.setattr(proposals, "BLOCK", 2)


def killed_after(images, store, monkeypatch):
    """A process that dies while it searches the image after these, and the searches it made."""
    plain, made = proposals.selective_search, []

    def dying(image):
        if len(made) == images:
            raise KeyboardInterrupt
        made.append(image.shape)
        return plain(image)

    with monkeypatch.context() as patch:
        patch.setattr(proposals, "selective_search", dying)
        with pytest.raises(KeyboardInterrupt):
            open_proposals(store, "train", workers=0)


@pytest.mark.usefixtures("pairs")
def test_a_killed_search_goes_on_where_it_was(store, cache, monkeypatch, capfd):
    killed_after(5, store, monkeypatch)
    assert not proposals_path(store).exists()
    assert {file.name for file in cache.glob(".*parts/*")} == {"0.npz", "2.npz"}
    plain, made = proposals.selective_search, []

    def counting(image):
        made.append(image.shape)
        return plain(image)

    monkeypatch.setattr(proposals, "selective_search", counting)
    resumed = open_proposals(store, "train", workers=0)
    assert len(made) == 3  # the fifth to the seventh
    assert "continuing after 4 images" in capfd.readouterr().err
    assert not list(cache.glob(".*parts"))
    monkeypatch.setenv("SSL_BENCH_CACHE", str(cache / "other"))
    assert same(resumed, open_proposals(store, "train"))


@pytest.mark.usefixtures("pairs")
def test_a_killed_worker_is_named_and_only_its_block_is_searched_again(
    store, cache, monkeypatch, tmp_path
):
    """It dies at the fifth image, the first of the third block."""
    plain, log = proposals.selective_search, tmp_path / "log"
    log.touch()

    def dying(image):
        with open(log, "a") as file:
            file.write("x")
        if log.stat().st_size == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(image)

    monkeypatch.setattr(proposals, "selective_search", dying)
    with pytest.raises(WorkerDied, match="was killed"):
        open_proposals(store, "train", workers=1)
    assert {file.name for file in cache.glob(".*parts/*")} == {"0.npz", "2.npz"}
    found = open_proposals(store, "train", workers=2)
    assert log.stat().st_size == 5 + 3
    monkeypatch.setenv("SSL_BENCH_CACHE", str(cache / "other"))
    assert same(found, open_proposals(store, "train", workers=0))


def test_a_worker_says_what_is_wrong(store, cache, monkeypatch):
    monkeypatch.delattr(proposals.cv2, "ximgproc")
    with pytest.raises(DataError, match="install opencv-contrib-python-headless"):
        open_proposals(store, "train", workers=1)


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("harm", ["cut", "changed", "nonsense", "lost"])
def test_what_was_half_written_is_searched_again(store, cache, monkeypatch, harm):
    whole = open_proposals(store, "train")
    path = proposals_path(store)
    path.unlink()
    killed_after(6, store, monkeypatch)
    shard = next(cache.glob(".*parts/2.npz"))
    content = shard.read_bytes()
    middle = len(content) // 2
    spoilt = {
        "cut": content[:-5],
        "changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "nonsense": b"\xff" * 100,
    }
    if harm == "lost":  # one in the middle
        shard.unlink()
    else:
        shard.write_bytes(spoilt[harm])
    assert same(whole, open_proposals(store, "train"))


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "other"])
def test_a_damaged_file_is_named_and_not_replaced(store, cache, harm):
    open_proposals(store, "train")
    path = proposals_path(store)
    content = path.read_bytes()
    middle = len(content) // 2
    if harm == "other":  # of another number of images
        np.savez(path, boxes=np.zeros((3, 4), np.float32), ends=np.array([1, 3]))
    else:
        path.write_bytes({
            "cut": content[:-40],
            "changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
        }[harm])  # fmt: skip
    spoilt = path.read_bytes()
    with pytest.raises(DataError, match=f"{path} is damaged: remove it"):
        open_proposals(store, "train")
    assert path.read_bytes() == spoilt
