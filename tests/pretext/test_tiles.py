"""Relative position and jigsaw beside their papers: where tiles lie, how they look, the losses."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.inpainting import NORM, inputs_of, outputs_of, photos, stepped
from helpers.interrupted import assert_stopping_changes_nothing
from helpers.refusals import SCENES, fails
from pretext.jigsaw import JigsawConfig, distant_permutations, shuffled
from pretext.relative_position import RelativePositionConfig, pairs, side_labels
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.build import build_pretext
from ssl_bench.training.tiles import cut_tiles, tile_windows

METHODS = ["relative-position", "jigsaw"]
TOY: dict[str, Any] = {"arch": "timm:test_efficientnet", "image_size": 96, "hidden": 8}


def config_of(method: str, **settings: Any) -> Any:
    few = {"permutations": 5} if method == "jigsaw" else {}
    return catalogue.pretext(method).Config.model_validate({**TOY, **few, **settings})


def task_of(method: str, **settings: Any) -> Any:
    return build_pretext(method, config_of(method, **settings), NORM)[0].train()


def randomness(count: int, step: int = 0) -> Randomness:
    return Randomness(3, step, torch.arange(count))


def corners(config: Any, count: int) -> np.ndarray:
    """int64 (count, 9, 2): top and left of each tile in its crop, px."""
    windows = tile_windows(config, randomness(count)).numpy()
    cells = np.stack(np.divmod(np.arange(9), 3), 1) * config.cell
    return windows[..., :2] + cells


# ---- where tiles lie
@pytest.mark.parametrize("size", [96, 99, 128, 255, 432])
def test_no_two_patches_ever_touch(size):
    """They are the gap apart in rows or in columns, for all 36 pairs of 2,000 images."""
    config = RelativePositionConfig(image_size=size)
    starts = corners(config, 2000)
    assert starts.min() >= 0
    assert starts.max() + config.cut <= size
    for one in range(9):
        for other in range(one):
            between = np.abs(starts[:, one] - starts[:, other]).max(1) - config.cut
            assert between.min() >= config.gap > 0


def test_the_papers_patches():
    """96 px, 48 apart on average, and moved by 7 px either way."""
    config = RelativePositionConfig(image_size=432)
    assert (config.cut, config.tile) == (96, 96)
    starts = corners(config, 2000)
    below = starts[:, 3:, 0] - starts[:, :6, 0]
    assert below.mean() == pytest.approx(96 + 48, abs=0.5)
    assert (below.min(), below.max()) == (144 - 14, 144 + 14)


def test_the_tiles_of_jigsaw():
    """64 px anywhere in cells of 85: 21 apart on average, and at times they touch."""
    config = JigsawConfig()
    assert (config.cell, config.cut, config.tile) == (85, 64, 64)
    starts = corners(config, 2000)
    right = starts[:, 1::3, 1] - starts[:, ::3, 1] - 64
    assert right.mean() == pytest.approx(21, abs=0.5)
    assert (right.min(), right.max()) == (0, 42)


@pytest.mark.parametrize("arch", ["alexnet", "torchvision:resnet18"])
def test_a_tile_is_as_large_as_the_network_takes(arch):
    least = {"alexnet": 64, "torchvision:resnet18": 32}[arch]
    small = JigsawConfig.model_validate({"recipe": "small", "arch": arch})
    assert (small.cut, small.tile) == (24, least)


# ---- how they look
def by_hand(images: torch.Tensor, config: Any, random: Randomness) -> np.ndarray:
    """float64 (9·B, 3, T, T): windows of the crops, each less its mean, by its deviation."""
    crops = random_crop_flip(images, 3 * config.cell, random).numpy().astype(np.float64)
    made = []
    for crop, starts in zip(crops, corners(config, len(images)), strict=True):
        for top, left in starts:
            tile = crop[:, top : top + config.cut, left : left + config.cut] / 255
            spread = tile.std((1, 2), keepdims=True)
            made.append((tile - tile.mean((1, 2), keepdims=True)) / np.maximum(spread, 1 / 255))
    return np.stack(made)


@pytest.mark.parametrize("method", METHODS)
def test_each_tile_is_a_window_of_its_cell_normalised_alone(method):
    config = config_of(method, image_size=216, grey=0)
    images = photos(size=230)
    found = cut_tiles(images, config, randomness(4))
    assert found.shape == (36, 3, config.cut, config.cut)
    np.testing.assert_allclose(found, by_hand(images, config, randomness(4)), atol=2e-5)


def test_a_flat_tile_is_zero():
    flat = torch.full((2, 3, 110, 110), 200, dtype=torch.uint8)
    assert cut_tiles(flat, config_of("jigsaw"), randomness(2)).abs().max() < 1e-3


def test_an_enlarged_tile_shows_nothing_beyond_its_window():
    """Whatever stands between the tiles is changed, and no tile changes."""
    config = config_of("relative-position", grey=0, tile=64)
    images, side = photos(size=96), config.cut
    crops = random_crop_flip(images, 96, randomness(4))
    changed = 255 - crops
    for image, starts in enumerate(corners(config, 4)):
        for top, left in starts:
            window = (image, slice(None), slice(top, top + side), slice(left, left + side))
            changed[window] = crops[window]
    # The crop is the whole image: mirrored once more, it is as it was.
    turned = random_crop_flip(changed, 96, randomness(4)).contiguous()
    expected = cut_tiles(images, config, randomness(4))
    torch.testing.assert_close(cut_tiles(turned, config, randomness(4)), expected)


def test_the_share_of_grey_images():
    """All nine tiles of an image, or none."""
    images = photos(count=400, size=96)
    tiles = cut_tiles(images, config_of("jigsaw"), randomness(400))
    grey = (tiles[:, 0] == tiles[:, 2]).all((1, 2)).view(400, 9)
    assert torch.equal(grey.any(1), grey.all(1))
    assert float(grey.float().mean()) == pytest.approx(0.66, abs=0.06)


# ---- relative position
def test_each_pair_is_an_outer_patch_and_the_centre():
    """Features that are (image, place): the places of the pairs are the labels, less the centre."""
    features = torch.cartesian_prod(torch.arange(3.0), torch.arange(9.0))  # (27, 2)
    found, sides = pairs(features), side_labels(3, features.device)
    places = [0, 1, 2, 3, 5, 6, 7, 8]
    assert found[:, 0].tolist() == found[:, 2].tolist() == [i for i in range(3) for _ in range(8)]
    assert found[:, 1].tolist() == 3 * places
    assert set(found[:, 3].tolist()) == {4}
    assert [places[side] for side in sides.tolist()] == 3 * places


def test_loss_and_accuracy_of_the_sides():
    task = task_of("relative-position")
    said = outputs_of(task.head)
    found = stepped(task, photos())
    chances = F.softmax(said[0].double(), 1)  # (32, 8)
    right = [float(chances[i, i % 8]) for i in range(32)]
    assert float(found["loss"]) == pytest.approx(-sum(map(math.log, right)) / 32, rel=1e-5)
    first = sum(float(p) == float(row.max()) for p, row in zip(right, chances, strict=True))
    assert float(found["accuracy"]) == pytest.approx(100 * first / 32)


# ---- jigsaw
def test_the_greedy_choice_by_brute_force():
    """Each order is, of all 9!, among the furthest from those before it."""
    every = np.array(list(permutations(range(9))), np.int8)
    orders = distant_permutations(12, 1).numpy()
    for count in range(1, 12):
        distances = [(every != order).sum(1) for order in orders[:count]]
        least, total = np.min(distances, 0), np.sum(distances, 0)
        best = total[least == least.max()].max()
        own = (orders[count] != orders[:count]).sum(1)
        assert (own.min(), own.sum()) == (least.max(), best)


@pytest.mark.parametrize(("count", "least"), [(9, 9), (72, 7), (2000, 4)])
def test_the_hamming_distance_of_the_permutations(count, least):
    """Nine orders can differ in every place; random ones among 2,000 have pairs 2 apart."""
    orders = distant_permutations(count, 0)
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(count, 9))
    places = F.one_hot(orders).flatten(1).float()
    distances = 9 - places @ places.T
    others = distances[~torch.eye(count, dtype=torch.bool)]
    assert others.min() == least
    assert others.mean() >= 8


def test_tiles_are_laid_out_by_the_order():
    tiles = torch.arange(18)
    orders = torch.tensor([[8, 7, 6, 5, 4, 3, 2, 1, 0], [1, 0, 2, 3, 4, 5, 6, 7, 8]])
    assert shuffled(tiles, orders).tolist() == [*range(8, -1, -1), 10, 9, *range(11, 18)]


def test_loss_and_shuffling_of_a_step():
    """The network sees the tiles in the order whose number is the truth."""
    task, images = task_of("jigsaw"), photos()
    seen, said = inputs_of(task.encoder), outputs_of(task.classifier)
    found = stepped(task, images)
    random = Randomness(0, 0, torch.arange(4))
    which = (random.uniform("order") * 5).long()
    tiles = cut_tiles(images, task.config, random).unflatten(0, (4, 9))
    for image, order in enumerate(task.orders[which].tolist()):
        for place, tile in enumerate(order):
            assert torch.equal(seen[0][9 * image + place], tiles[image, tile])
    chances = F.log_softmax(said[0].double(), 1)
    expected = -sum(float(chances[i, k]) for i, k in enumerate(which.tolist())) / 4
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)


# ---- both
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_with_the_same_bits(method, tmp_path):
    config = config_of(method, steps=4, batch_size=4, precision="32")
    assert_stopping_changes_nothing(method, config, tmp_path, images=12)


@pytest.mark.parametrize("method", METHODS)
def test_what_makes_no_sense_is_refused(method, bench, tmp_path):
    command = ("pretrain", method, "--workers", 0, "--workspace", tmp_path, *SCENES)
    fails(bench(*command, "--jitter", 60, "--gap", 25), 2, "leave no tile in a cell of 85 px")
    fails(bench(*command, "--tile", 32), 2, "--tile 32: alexnet takes images of at least 64 px")
    vit = ("--arch", "timm:test_vit", "--image-size", 160)
    fails(bench(*command, *vit), 2, "timm:test_vit cannot be used at ")
