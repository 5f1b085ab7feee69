"""The store of whole images: sizes, pixels, batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from helpers.voc_folders import refused
from helpers.whole import SIZES, opened, photo
from ssl_bench.errors import UsageError


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
def test_short_side_unless_the_long_one_is_too_long(year, short, longest, expected):
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
