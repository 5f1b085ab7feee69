"""Decoding, in one place: files to RGB pixels, whole or square; what cannot be decoded is named."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ssl_bench.errors import DataError, plain


def rgb(image: Image.Image) -> Image.Image:
    """Pillow's RGB, where it is right: it cuts 16-bit grey at 255 and warns of some palettes."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the short side to `size` (bilinear, antialiased), crop the centre: (size, size, 3)."""
    image = rgb(image)
    scale = size / min(image.size)
    if scale != 1:
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # none of them runs a program
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def stamp(stat: os.stat_result) -> tuple[int, int, int]:
    """Size and times of a file: what changes when its content does.

    The inode's own time too, so that an edit that puts size and mtime back is seen.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def load_image(path: Path, size: int, smallest: int) -> tuple[np.ndarray, str]:
    """Decode one image file; see Split.load."""

    def square(image: Image.Image) -> np.ndarray:
        if min(image.size) < smallest:
            raise DataError(
                f"{path} is {image.width}×{image.height}, smaller than the {smallest} px "
                "crop: lower --image-size, or pass --skip-bad-images"
            )
        return fit_square(image, size)

    return read_image(path, square)


def load_whole(path: Path) -> tuple[np.ndarray, str]:
    """Decode one image file; see Split.whole."""
    return read_image(path, lambda image: np.asarray(rgb(image)))


def read_image(
    path: Path,
    use: Callable[[Image.Image], T],
    remedy: str = "mend or remove it, or pass --skip-bad-images",
) -> tuple[T, str]:
    """What `use` makes of the image in a file, and the hexadecimal digest of the file.

    Raises DataError, naming the file and the `remedy`, if it cannot be read or decoded.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise DataError(
            f"{shown} has a name that is not UTF-8: rename it, or pass --skip-bad-images"
        ) from error
    try:
        used, content = open_image(path, use)
    except (OSError, SyntaxError, ValueError, *BOMBS) as error:
        raise DataError(
            f"{plain(path)} cannot be read as an image ({_reason(error)}): {remedy}"
        ) from error
    return used, hashlib.sha256(content).hexdigest()


def open_image(path: Path, use: Callable[[Image.Image], T]) -> tuple[T, bytes]:
    """What `use` makes of an image of the usual FORMATS in a regular file, and its bytes."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return use(image), content


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image" if text.startswith("cannot identify") else text


def resolved(text: str) -> Path:
    """A folder that is asked for; DataError for no path, or a variable that is not set."""
    try:
        path = Path(os.path.expandvars(text)).expanduser().resolve()
        unset = [] if path.exists() else re.findall(r"\$\{?(\w+)", str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(f"{plain(text)} is not a folder: {error}") from error
    if unset:
        raise DataError(f"{plain(text)}: set {unset[0]}, which the environment lacks")
    return path


def own_picture(path: Path) -> Image.Image:
    """A run's PNG in RGB; DataError for a link and for what cannot be decoded."""

    if path.is_symlink():
        raise DataError(f"{path} is a link: a run's pictures are its own")
    try:
        return open_image(path, lambda image: image.convert("RGB"))[0]
    except (OSError, SyntaxError, ValueError, *BOMBS) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error
