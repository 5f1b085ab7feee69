"""The store of whole images: what is kept, what its digest follows, what training takes."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.photos import draw_photo
from helpers.voc_folders import LISTS, annotate, draw_mask, refused, thing, write_list, write_mask
from helpers.whole import opened, spoil
from ssl_bench import catalogue
from ssl_bench.data.faults import Faults, lines_of
from ssl_bench.data.store.squares import open_store
from ssl_bench.errors import DataError
from ssl_bench.training.loop import Batches

# ---- the cache


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
def test_digest_follows_every_edit(year, task, change):
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
    for name in ("index.json", "images.bin", "masks.bin", "names.npy", "digests-ends.npy"):
        store = opened(year, "segmentation")
        path = store.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        refused(DataError, lambda: opened(year, "segmentation"), path, "remove that folder")
        path.write_bytes(whole)


def test_workers_change_nothing(year: Path) -> None:
    one = opened(year, "segmentation", 30)
    contents = {p.name: p.read_bytes() for p in one.folder.iterdir()}
    for path in one.folder.iterdir():
        path.unlink()
    one.folder.rmdir()
    many = opened(year, "segmentation", 30, workers=2)
    assert {p.name: p.read_bytes() for p in many.folder.iterdir()} == contents
    columns = ["digests-ends.npy", "digests.npy", "names-ends.npy", "names.npy"]
    assert sorted(contents) == sorted(["images.bin", "index.json", "masks.bin", *columns])


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
    batches = Batches(store, torch.arange(4), 0, 2, torch.arange(2))
    read = batches.read_ahead(range(4), torch.device("cpu"))
    for step, (batch, indices, _) in enumerate(read):
        assert indices.tolist() == batches[step][1].tolist()
        images, size = batch["images"], store.sizes[indices.numpy()].max(0)
        assert images.shape == (2, 3, *size)
        for image, i in zip(images, indices.tolist(), strict=True):
            alone = store.images(slice(i, i + 1))[0]
            np.testing.assert_array_equal(image[:, : alone.shape[1], : alone.shape[2]], alone)


def test_the_parts_of_a_batch_are_asked_for_before_they_are_read(
    year: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[int, int]]()
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *part: asked.append(part[:2]))
    squares = open_store(catalogue.dataset(f"voc:{year}"), "train", 32, workers=0)
    for store in (opened(year), squares):
        asked.clear()
        store.images(np.array([2, 0], np.int32))
        content = (store.folder / "images.bin").read_bytes()
        for (start, size), i in zip(asked, (2, 0), strict=True):
            image = store.images(slice(i, i + 1))[0].permute(1, 2, 0)
            assert content[start : start + size] == image.numpy().tobytes()


def test_normalization_is_that_of_all_stored_pixels(year: Path) -> None:
    store = opened(year, "detection", 50)
    images = [store.images(np.array([i]))[0].flatten(1).double() / 255 for i in range(4)]
    pixels = torch.cat(images, 1)
    np.testing.assert_allclose(store.normalization.mean, pixels.mean(1), rtol=1e-9)
    np.testing.assert_allclose(store.normalization.std, pixels.std(1, correction=0), rtol=1e-9)


def test_index_is_plain_json_beside_its_columns(year: Path) -> None:
    store = opened(year)
    found = json.loads((store.folder / "index.json").read_text())
    assert store.index.names == LISTS["trainval"]
    assert not found.keys() & {"names", "labels", "digests"}
    assert found["objects"][3] == {"boxes": [], "labels": [], "difficult": []}
    assert found["masks"] is None
    assert not (store.folder / "masks.bin").exists()
