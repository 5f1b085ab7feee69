"""Figures show what they say they show: every picture is compared with its pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.figures import filters, masks, methods, pairs, regions
from helpers.gallery import (
    DATA,
    HOLE,
    RANDOM,
    SIZE,
    column,
    inpainting,
    levels,
    made,
    mean_colour,
    outside,
    rows_of,
    stored,
)
from ssl_bench import catalogue
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.gallery import Gallery
from ssl_bench.training.pretext import EncoderConfig


# ---- the gallery
def test_which_images_are_shown_follows_from_the_seed_alone(shown: Gallery) -> None:
    picked = shown.chosen(SIZE)
    assert picked.dtype == np.int64
    assert len(set(picked.tolist())) == 2
    assert picked.min() >= 0
    assert picked.max() < 20
    other = Gallery([], catalogue.dataset(DATA), count=2, workers=0)
    assert other.chosen(SIZE).tolist() == other.chosen(64).tolist() == picked.tolist()
    more = Gallery([], catalogue.dataset(DATA), count=5, workers=0)
    assert set(picked.tolist()) < set(more.chosen(SIZE).tolist())
    seeds = {tuple(replace(other, seed=s).chosen(SIZE).tolist()) for s in range(5)}
    assert len(seeds) > 3
    np.testing.assert_array_equal(levels(column(list(stored(shown)[picked]))), levels(
        shown.images(SIZE).permute(0, 2, 3, 1).numpy() / 255
    ))  # fmt: skip


def test_labels_name_what_tells_runs_of_one_method_apart(shown: Gallery) -> None:
    for label, mask in zip(shown.labels, ("central", "random-region"), strict=False):
        method, mark = label.splitlines()
        assert method == "inpainting"
        assert mask in mark
    assert shown.labels[2] == "random"


def test_more_images_than_there_are(runs: tuple[Path, list[str]], flat: Path) -> None:
    workspace, names = runs
    references = [Reference(names[0], workspace)]
    own = Gallery(references, catalogue.dataset(f"folder:{flat}"), count=20, workers=0)
    assert own.chosen(SIZE).tolist() == list(range(8))
    assert len(rows_of(pairs(own))["original"]) == 8


OTHERS: dict[str, tuple[EncoderConfig, str]] = {
    "width": (EncoderConfig(image_size=64, width=0.2), DATA),
    "seed": (EncoderConfig(image_size=64, width=0.1, seed=1), DATA),
    "data": (RANDOM, "scenes:train=60,test=20,seed=1"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_no_two_runs_have_one_label(tmp_path: Path, what: str) -> None:
    names = [made(tmp_path, "random", RANDOM), made(tmp_path, "random", *OTHERS[what])]
    references = [Reference(name, tmp_path) for name in names]
    first, second = Gallery(references, catalogue.dataset(DATA), workers=0).labels
    assert first != second


def test_methods_has_a_column_for_every_network(runs, tmp_path):
    """Two seeds of one setting too."""
    names = [made(tmp_path, "inpainting", inpainting(seed=seed)) for seed in range(2)]
    references = [Reference(name, tmp_path) for name in names]
    grid = methods(Gallery(references, catalogue.dataset(DATA), count=1, workers=0))
    assert sum(heading.startswith("inpainting") for heading in grid.headings) == 2


# ---- masks
def test_masks_shows_what_is_left_and_what_is_removed(shown: Gallery) -> None:
    """Every pixel is in one of the two: the other has the mean colour, or white."""
    truth, colour = stored(shown)[shown.chosen(SIZE)], mean_colour(shown)
    grid = masks(shown)
    assert len(grid.rows) == 6
    for i, kind in enumerate(("central", "random-block", "random-region")):
        (label, left), (beside, removed) = grid.rows[2 * i : 2 * i + 2]
        assert kind in label
        assert beside == "removed"
        left, removed = column(left), column(removed)
        hole = (left != truth).any(3)
        np.testing.assert_allclose(left[hole], np.broadcast_to(colour, left[hole].shape), atol=1e-6)
        np.testing.assert_array_equal(removed[hole], truth[hole])
        np.testing.assert_array_equal(removed[~hole], np.ones_like(removed[~hole]))
        share = hole.mean((1, 2))
        assert share.min() > 0.005
        assert share.max() <= 0.25
        if kind == "central":
            assert share.tolist() == [0.25, 0.25]
            assert hole[:, 32:96, 32:96].all()
        else:
            assert not np.array_equal(hole[0], hole[1])


# ---- networks
@pytest.mark.parametrize(("maker", "which"), [(pairs, 0), (regions, 1)])
def test_inputs_outputs_and_originals(shown, maker, which):
    """By the first network that can: its own output, from an input that is the image around it."""
    truth, colour = stored(shown)[shown.chosen(SIZE)], mean_colour(shown)
    grid = maker(shown)
    rows = rows_of(grid)
    assert list(rows) == ["input", "output", "original"]
    assert shown.labels[which].replace("\n", " ") in grid.title
    np.testing.assert_array_equal(rows["original"], truth)
    hole = (rows["input"] != truth).any(3)
    np.testing.assert_allclose(
        rows["input"][hole], np.broadcast_to(colour, rows["input"][hole].shape), atol=1e-6
    )
    if which == 0:
        assert not (outside(rows["input"]) != outside(truth)).any()
        assert hole.mean((1, 2)).tolist() == [2500 / SIZE**2] * 2
    else:
        assert hole.any(0)[[0, -1]].any()  # up to an edge
        assert not np.array_equal(hole[0], hole[1])
    np.testing.assert_array_equal(rows["output"][~hole], truth[~hole])
    network: Any = shown.inpainting()[which][2]
    pixels = torch.from_numpy((truth * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
    holes = torch.from_numpy(hole)[:, None].float()
    expected = network.cpu().fill(pixels, holes).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(rows["output"], expected, atol=1e-5)
    assert np.abs(rows["output"] - truth)[hole].mean() > 0.01


def test_methods_differ_in_the_hole_only(shown: Gallery) -> None:
    truth = stored(shown)[shown.chosen(SIZE)]
    grid = methods(shown)
    assert len(grid.rows) == 2
    columns = {
        heading: column([pictures[i] for _, pictures in grid.rows])
        for i, heading in enumerate(grid.headings)
    }
    assert next(iter(columns)) == "input"
    assert [*columns][-2:] == ["Telea", "original"]
    assert set(shown.labels[:2]) < set(columns)
    assert shown.labels[2] not in columns
    assert sum(heading.startswith("nearest") for heading in columns) == 2
    np.testing.assert_array_equal(columns["original"], truth)
    for heading, pictures in columns.items():
        np.testing.assert_array_equal(outside(pictures), outside(truth))
        if heading != "original":
            assert np.abs(pictures - truth)[:, HOLE, HOLE].mean() > 0.01, heading
    filled = {levels(pictures).tobytes() for pictures in columns.values()}
    assert len(filled) >= len(columns) - 1  # two neighbours may be one image


# ---- filters
def test_filters_are_scaled_by_their_own_largest_weight(shown: Gallery) -> None:
    """Grey is 0; a line of white is between any two."""
    grid = filters(shown)
    tiles = [picture for _, pictures in grid.rows for picture in pictures]
    assert len(tiles) == 3
    for tile, reference in zip(tiles, shown.encoders, strict=True):
        assert tile is not None
        weights = next(w for w in reference.encoder.state_dict().values() if w.ndim == 4).numpy()
        count, _, side, _ = weights.shape
        across = (tile.shape[1] + 1) // (side + 1)
        drawn = np.zeros(tile.shape[:2], bool)
        for k, weight in enumerate(weights):
            y, x = k // across * (side + 1), k % across * (side + 1)
            drawn[y : y + side, x : x + side] = True
            expected = 0.5 + 0.5 * weight.transpose(1, 2, 0) / np.abs(weight).max()
            np.testing.assert_allclose(tile[y : y + side, x : x + side], expected, atol=1e-6)
        assert drawn.sum() == count * side * side
        assert (tile[~drawn] == 1).all()
