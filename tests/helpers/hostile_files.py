"""Files made to harm: pickles, archives and images."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

from helpers.photos import chunk, png
from helpers.spoilt import Payload


def pickled(mark: Path, kind: str) -> bytes:
    """A file that makes `mark` where it is unpickled."""
    content, file = {"conv1.0.weight": Payload(mark)}, io.BytesIO()
    if kind == "pickle":
        return pickle.dumps(content, protocol=2)
    if kind == "npy":
        np.save(file, np.array([Payload(mark)], object), allow_pickle=True)
    elif kind == "npz":
        np.savez_compressed(file, label=np.array([Payload(mark)] * 20, object))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


def npy(shape: object, kind: str = "<i8", content: bytes = b"", header: bytes = b"") -> bytes:
    """An array in NumPy's format, whatever its header says."""
    header = header or repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content


def zipped(members: Mapping[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


HUGE = npy((10**12,))


def black(width: int, height: int, *more: bytes) -> bytes:
    """A PNG of one bit a pixel; `more` chunks stand before it."""
    return png(width, height, zlib.compress(bytes((1 + (width + 7) // 8) * height), 9), *more)


@cache
def text_bomb(kind: bytes, head: bytes) -> bytes:
    """A PNG of 96 px with 50 MiB of text, or of a colour profile, in 50 kB."""
    return black(96, 96, chunk(kind, head + zlib.compress(bytes(50 << 20), 6)))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><script/></svg>'
IMAGES: dict[str, Callable[[], bytes]] = {
    "30,000 px.png": lambda: png(30_000, 30_000, zlib.compress(b"")),
    "12,000 px.png": lambda: black(12_000, 12_000),
    "12,000 px empty.png": lambda: png(12_000, 12_000, zlib.compress(b"")),
    "100,000 px.png": lambda: png(100_000, 100_000, zlib.compress(b"")),
    "most.png": lambda: png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "wide.png": lambda: black(100_000, 1),
    "high.png": lambda: black(1, 100_000),
    "text.png": lambda: text_bomb(b"iTXt", b"a\0\1\0\0\0"),
    "compressed.png": lambda: text_bomb(b"zTXt", b"a\0\0"),
    "profile.png": lambda: text_bomb(b"iCCP", b"a\0\0"),
    "huge.ppm": lambda: b"P6\n100000 100000\n255\n",
    "negative.ppm": lambda: b"P6\n-96 -96\n255\n",
    "huge.bmp": lambda: b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 100_000, -100_000, 1, 24, 0, 0, 0, 0, 0, 0
    ),
    "drawing.jpg": lambda: SVG,
    "page.jpg": lambda: b"%PDF-1.4\n%%EOF",
    "script.jpg": lambda: EPS,
    "script.png": lambda: EPS,
}  # fmt: skip
