"""Networks whose pictures tests look at, and the pixels they are compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretext.inpainting import InpaintingConfig
from ssl_bench.pictures.gallery import Gallery, Grid
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretext import EncoderConfig
from ssl_bench.training.pretrain import pretrain

DATA = "scenes:train=60,test=20"
SIZE, STORED = 128, 144  # px: the networks' input, and the squares that it is cropped from
HOLE = slice(39, 89)  # the central 50 px
DPI, WIDTH = 300, 6.9  # of print, in inches
RANDOM = EncoderConfig(image_size=64, width=0.1)  # an alexnet


def inpainting(**settings: Any) -> InpaintingConfig:
    """Starting weights of unit scale: what two steps leave of the others paints all alike."""
    tiny = {"width": 0.05, "bottleneck": 8, "steps": 2, "batch_size": 4, "init": "fan-in"}
    return InpaintingConfig(**{**tiny, **settings})


def made(workspace: Path, method: str, config: EncoderConfig, data: str = DATA) -> str:
    """A reference to what was trained."""
    record = pretrain(method, config, data, workspace, Runtime(workers=0, devices="1"))
    return f"{method}@{record.key[:12]}"


def stored(shown: Gallery, split: Any = "test") -> np.ndarray:
    """float (N, 128, 128, 3): the crops of a split, from the stored pixels."""
    margin = (STORED - SIZE) // 2
    pixels = shown.store(split, SIZE).pixels
    assert pixels.shape[1:] == (STORED, STORED, 3)
    return pixels[:, margin:-margin, margin:-margin].astype(np.float32) / 255


def mean_colour(shown: Gallery, split: Any = "test") -> np.ndarray:
    return shown.store(split, SIZE).pixels.reshape(-1, 3).mean(0) / 255


def column(pictures: Sequence[np.ndarray | None]) -> np.ndarray:
    """float (n, H, W, 3), none of them missing."""
    return np.stack([p for p in pictures if p is not None])


def rows_of(grid: Grid) -> dict[str, np.ndarray]:
    return {label: column(pictures) for label, pictures in grid.rows}


def levels(pictures: np.ndarray) -> np.ndarray:
    """What 8 bits keep of float in [0, 1]."""
    return np.rint(pictures * 255).astype(int)


def outside(pictures: np.ndarray) -> np.ndarray:
    """The pixels around the central hole: (n, pixels, 3)."""
    known = np.ones((SIZE, SIZE), bool)
    known[HOLE, HOLE] = False
    return pictures[:, known]
