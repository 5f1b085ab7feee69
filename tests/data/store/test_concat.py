"""Several stores as one: pixels as NumPy joins them, moments as it computes them of all pixels."""

import pickle

import numpy as np
import pytest
import torch

from ssl_bench import catalogue
from ssl_bench.data.store.concat import (
    ConcatStore,
    concatenated,
    joined_digest,
    joined_moments,
    open_joined,
)
from ssl_bench.data.store.squares import open_store
from ssl_bench.errors import UsageError
from ssl_bench.workers import read_ahead

SETS = ["scenes:train=5,test=1", "scenes:train=7,test=1,seed=1", "scenes:train=3,test=1,seed=2"]


@pytest.fixture(scope="module")
def joined() -> ConcatStore:
    store = open_joined(catalogue.datasets(SETS), 32, workers=0)
    assert isinstance(store, ConcatStore)
    return store


@pytest.fixture(scope="module")
def pixels(joined: ConcatStore) -> np.ndarray:
    """(15, 3, R, R), joined by NumPy."""
    return np.concatenate([part.pixels for part in joined.parts]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "which",
    [
        np.array([14, 0, 5, 4, 12, 11, 5]), np.array([-1, -15]), np.array([], int),
        np.arange(15) % 2 == 0, slice(None), slice(3, 13), slice(5, 12), slice(4, 4), slice(13, 99),
        slice(-4, None), slice(None, None, 4), slice(9, 2, -3),
    ],
    ids=str,
)  # fmt: skip
def test_pixels_across_parts(joined: ConcatStore, pixels: np.ndarray, which) -> None:
    images = joined.images(which)
    np.testing.assert_array_equal(images.numpy(), pixels[which])
    assert images.dtype == torch.uint8
    assert images.permute(0, 2, 3, 1).is_contiguous()  # as a store of one set has them
    assert torch.equal(joined.batch(which)["images"], images)


def test_normalisation_is_that_of_all_pixels(joined: ConcatStore, pixels: np.ndarray) -> None:
    """The sets have 5, 7 and 3 images: a plain mean of their means would be another."""
    channels = pixels.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(joined.normalization.mean, channels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(joined.normalization.std, channels.std(1), rtol=1e-12)


def test_moments_by_hand() -> None:
    """0 0 0 and 4: mean 1, deviation √3; parts of one value have none of their own."""
    mean, std = joined_moments([[0.0], [4.0]], [[0.0], [0.0]], [3, 1])
    assert (mean[0], std[0]) == (1, pytest.approx(3**0.5, rel=1e-15))


def test_digest_is_of_the_parts_in_their_order(joined: ConcatStore) -> None:
    digests = [part.index.digest for part in joined.parts]
    assert joined.index.digest == joined_digest(digests)
    others = [joined_digest(digests[::-1]), joined_digest(digests[:2]), *digests]
    assert len({joined.index.digest, *others}) == 1 + len(others)


def test_one_set_is_its_own_store() -> None:
    (one,) = catalogue.datasets(SETS[0])
    assert open_joined([one], 32, workers=0) == open_store(one, "train", 32, workers=0)


def test_other_processes_map_the_files_themselves(joined: ConcatStore, pixels: np.ndarray) -> None:
    joined.images(np.array([0, 14]))  # maps are open
    assert len(pickle.dumps(joined)) < pixels.nbytes / 4
    batches = read_ahead(joined.batch, [np.array([0, 14]), np.array([7])], 1)
    found = torch.cat([batch["images"] for batch in batches])
    np.testing.assert_array_equal(found.numpy(), pixels[[0, 14, 7]])


def test_what_several_sets_hold_is_counted_and_said_once(capsys: pytest.CaptureFixture) -> None:
    names = ["scenes:train=5,test=1", "scenes:train=9,test=1"]  # of one seed: 5 are in both
    first, store = (open_joined(catalogue.datasets(names), 32, workers=0) for _ in range(2))
    assert first.index == store.index
    (note,) = store.index.notes
    assert "5 of 9 images of scenes:train=9,test=1 are also in scenes:train=5,test=1" in note
    assert capsys.readouterr().err.count(note) == 1
    assert len(store) == 14


def test_notes_and_skipped_images_of_all_parts(joined: ConcatStore) -> None:
    parts = [
        part.__class__(
            part.folder, part.index.model_copy(update={"notes": [f"n{i}"], "skipped": [f"s{i}"]})
        )
        for i, part in enumerate(joined.parts)
    ]
    index = concatenated(parts, ["a", "b", "c"]).index
    assert index.notes == ["a: n0", "b: n1", "c: n2"]
    assert index.skipped == ["s0", "s1", "s2"]
    assert index.labels is None


def test_a_set_under_two_names_is_refused(joined: ConcatStore) -> None:
    parts = [*joined.parts, joined.parts[0]]
    with pytest.raises(UsageError, match="a is given twice, or under two names"):
        concatenated(parts, ["a", "b", "c", "d"])


def test_a_set_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="scenes is given 2 times"):
        catalogue.datasets(["scenes", "voc07", "scenes"])
