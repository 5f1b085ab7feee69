"""Crops and flips against a plain loop."""

import torch

from ssl_bench.counter import Randomness
from ssl_bench.training.augment import center_crop, random_crop_flip


def images(count=64, size=12):
    """Every pixel has its own value, so a crop says where it came from."""
    values = torch.arange(count * size * size) % 251
    return values.view(count, 1, size, size).expand(-1, 3, -1, -1).to(torch.uint8)


def test_a_crop_is_a_window_of_its_own_image_mirrored_or_not():
    source, random = images(), Randomness(0, 0, torch.arange(64))
    crops = random_crop_flip(source, 8, random)
    places, mirrored = set(), 0
    for image, crop in zip(source, crops, strict=True):
        windows = {
            (top, left, flip): torch.equal(
                crop, (w := image[:, top : top + 8, left : left + 8]).flip(2) if flip else w
            )
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if (w := image[:, top : top + 8, left : left + 8]) is not None
        }
        (found,) = [place for place, equal in windows.items() if equal]
        places.add(found[:2])
        mirrored += found[2]
    assert len(places) > 20  # of 25
    assert 20 < mirrored < 44


def test_crops_do_not_depend_on_the_share_of_the_batch():
    whole = random_crop_flip(images(), 8, Randomness(0, 3, torch.arange(64)))
    part = random_crop_flip(images()[16:32], 8, Randomness(0, 3, torch.arange(16, 32)))
    assert torch.equal(whole[16:32], part)


def test_a_crop_of_full_size_moves_nothing():
    crops = random_crop_flip(images(8), 12, Randomness(0, 0, torch.arange(8)))
    for image, crop in zip(images(8), crops, strict=True):
        assert torch.equal(crop, image) or torch.equal(crop, image.flip(2))


def test_the_centre_is_the_centre():
    assert torch.equal(center_crop(images(), 8), images()[..., 2:10, 2:10])
