"""Noisy images in three colours."""

from itertools import count

import numpy as np
import pytest

from helpers.krahenbuhl16 import COLOURS, stored
from ssl_bench.data.store.whole import WholeStore


@pytest.fixture
def pictures(tmp_path):
    """A function that makes a store of noisy images of 70 to 100 px in three classes.

    An image has its class's colour; with `several`, stripes of each of its classes' colours.
    """
    numbers = count()

    def make(images: int, seed: int = 0, several: bool = False) -> WholeStore:
        random = np.random.default_rng(seed)
        labels = np.arange(images) % 3
        targets = (random.random((images, 3)) < 0.4).astype(np.int8)
        pixels = []
        for label, present in zip(labels, targets, strict=True):
            image = np.full((*random.integers(70, 100, 2), 3), 128.0)
            for c in np.flatnonzero(present) if several else [label]:
                image[:, c :: 6 if several else 1] = COLOURS[c]
            noisy = image + random.normal(0, 15, image.shape)
            pixels.append(np.clip(noisy, 0, 255).astype(np.uint8))
        return stored(tmp_path / f"store{next(numbers)}", pixels, targets if several else labels)

    return make
