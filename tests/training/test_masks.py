"""Masks: at most a quarter, binary, a fresh one for each image and step."""

import pytest
import torch

from ssl_bench.counter import Randomness
from ssl_bench.training.masks import (
    central,
    draw_masks,
    order_statistic,
    random_block,
    random_region,
)

KINDS = ["central", "random-block", "random-region"]


def drawn(kind, size, step=0, count=64):
    return draw_masks(kind, size, Randomness(0, step, torch.arange(count)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [64, 95, 128, 227])
def test_no_mask_drops_more_than_a_quarter_or_nothing(kind, size):
    mask = drawn(kind, size, count=32)
    assert mask.shape == (32, 1, size, size)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    share = mask.mean((1, 2, 3))
    assert share.max() <= 0.25
    assert share.min() > 0.005


def test_the_central_mask_is_the_middle_square_of_half_the_side():
    mask = central(1, 128)[0, 0]
    assert mask.sum() == 64 * 64
    assert mask[32:96, 32:96].all()


@pytest.mark.parametrize("kind", ["random-block", "random-region"])
def test_each_image_and_each_step_has_a_mask_of_its_own(kind):
    first, second = drawn(kind, 64, step=0), drawn(kind, 64, step=1)
    assert len({m.numpy().tobytes() for m in torch.cat([first, second])}) == 128


def test_regions_drop_a_fifth_to_a_quarter_everywhere_in_the_image():
    mask = random_region(96, Randomness(1, 0, torch.arange(400)))
    share = mask.mean((1, 2, 3))
    assert share.min() >= 0.19
    often = mask.mean((0, 1))  # how often each pixel is dropped
    assert often.min() > 0.12
    assert often.max() < 0.35


def test_regions_are_connected_shapes_not_noise():
    """A pixel's right neighbour nearly always shares its fate; in noise it would 5 times of 8."""
    mask = random_region(96, Randomness(1, 0, torch.arange(50)))
    same = (mask[..., 1:] == mask[..., :-1]).float().mean()
    assert same > 0.95


def test_blocks_are_unions_of_squares():
    """Every dropped pixel of a block mask lies in a dropped square of the smallest side."""
    size, smallest = 64, 6
    mask = random_block(size, Randomness(2, 0, torch.arange(64)))
    eroded = -torch.nn.functional.max_pool2d(-mask, smallest, stride=1)  # corners of such squares
    opened = torch.nn.functional.max_pool2d(
        torch.nn.functional.pad(eroded, [smallest - 1] * 4), smallest, stride=1
    )
    assert torch.equal(opened, mask)
    assert mask.mean((1, 2, 3)).mean() > 0.15  # several of them


def test_the_level_of_a_mask_is_a_place_in_the_sorted_noise():
    rows = torch.rand(9, 500, generator=torch.Generator().manual_seed(0)).round(decimals=2)  # ties
    rank = torch.tensor([0, 1, 7, 100, 250, 251, 400, 498, 499])
    assert torch.equal(order_statistic(rows, rank), rows.sort(1).values.gather(1, rank[:, None]))
