"""Small photographs."""

import struct
import zlib

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 6, "val": 3}  # images per class


def draw_photo(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """An RGB picture that no other seed gives: a gradient in three directions under noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    slopes = random.uniform(-1, 1, (2, 3))
    ramp = 128 + (x[..., None] - width / 2) * slopes[0] + (y[..., None] - height / 2) * slopes[1]
    pixels = ramp + random.normal(0, 20, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(
    width: int, height: int, rows: bytes, *more: bytes, depth: int = 1, colour: int = 0
) -> bytes:
    """A PNG byte by byte, whatever it holds: compressed rows behind `more` chunks.

    `colour` by the specification: 0 grey, 2 RGB, 3 a palette, 4 and 6 with alpha.
    """
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([head, *more, chunk(b"IDAT", rows), chunk(b"IEND", b"")])
