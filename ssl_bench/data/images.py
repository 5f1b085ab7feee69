"""Decoding, in one place: a file to RGB pixels, whole or square; what cannot be decoded is named.

    pixels, digest = load_square(path, 256, smallest=227, turn=True)  # uint8 (256, 256, 3)
    pixels, digest = load_whole(path, turn=True)                      # uint8 (H, W, 3)

`turn` turns a photograph upright as its EXIF says, as cameras and phones mean it; it stays False
where boxes or masks are given in pixels of the image as it lies in the file.
"""

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ssl_bench.data.dataset import SmallImage
from ssl_bench.data.faults import SKIP
from ssl_bench.errors import DataError, plain
from ssl_bench.files import LFS, POINTER

T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")  # none of them runs a program
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
ORIENTATION = 0x0112  # the EXIF tag
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of a TIFF
# By orientation: quarter turns against the clock, after the image was mirrored or not.
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True),
         8: (1, False)}  # fmt: skip


# ---- files
def load_square(path: Path, size: int, smallest: int, turn: bool = False) -> tuple[np.ndarray, str]:
    """Decode one image file to uint8 (size, size, 3), as `fit_square`; see Split.load."""
    return read_image(path, squared(path, size, smallest, turn))


def load_whole(path: Path, turn: bool = False) -> tuple[np.ndarray, str]:
    """Decode one image file to uint8 (H, W, 3); see Split.whole."""
    return read_image(path, lambda image: whole_pixels(image, turn))


def squared(
    name: object, size: int, smallest: int, turn: bool
) -> Callable[[Image.Image], np.ndarray]:
    """What makes a square of an image; SmallImage, with its name, for one that is too small."""

    def square(image: Image.Image) -> np.ndarray:
        if min(image.size) < smallest:
            raise SmallImage(
                f"{name} is {image.width}×{image.height}, and an image has at least {smallest} px "
                f"a side: remove it{SKIP}"
            )
        return fit_square(Image.fromarray(whole_pixels(image, turn)), size)

    return square


def read_image(
    path: Path,
    use: Callable[[Image.Image], T],
    remedy: str = f"mend or remove it{SKIP}",
) -> tuple[T, str]:
    """What `use` makes of the image in a file, and the hexadecimal digest of the file's bytes.

    Raises DataError, naming the file and the `remedy`, if it cannot be read or decoded.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise DataError(f"{shown} has a name that is not UTF-8: rename it{SKIP}") from error
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")  # to read a pipe would wait for ever
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, remedy) from error
    return decode(content, path, use, remedy)


def decode(
    content: bytes,
    name: object,
    use: Callable[[Image.Image], T],
    remedy: str = f"mend or remove it{SKIP}",
) -> tuple[T, str]:
    """What `use` makes of an encoded image of the usual FORMATS, and its hexadecimal digest.

    Raises DataError, with its name and the `remedy`, if it cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of an image between its limit and twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                used = use(image)
    except (OSError, SyntaxError, ValueError, *BOMBS) as error:
        if content.startswith(LFS):
            raise DataError(f"{plain(name)} {POINTER}") from error
        raise _unreadable(name, error, remedy) from error
    return used, hashlib.sha256(content).hexdigest()


def _unreadable(name: object, error: Exception, remedy: str) -> DataError:
    return DataError(f"{plain(name)} cannot be read as an image ({_reason(error)}): {remedy}")


def own_picture(path: Path) -> Image.Image:
    """A run's PNG in RGB; DataError for a link and for what cannot be decoded."""
    if path.is_symlink():
        raise DataError(f"{path} is a link: a run's pictures are its own")
    return read_image(path, lambda image: image.convert("RGB"), "remove it")[0]


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image" if text.startswith("cannot identify") else text


# ---- pixels
def rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16 bits are scaled from 0 … 65535, a TIFF's 12 bits from 0 … 4095.

    Raises ValueError for numbers of which white is not known.
    """
    if image.mode == "F":  # even within 0 … 1: it may be a dark one of a set that goes further
        raise ValueError("floats, of which white is not known; save 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PPM", "PNG"):  # there white is 65535
        raise ValueError("32-bit or signed numbers, of which white is not known; save 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion cuts at 255: a white sheet
        image = Image.fromarray(_eight_bits(image))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of some palettes
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of grey in 16 bits, or in what a TIFF says of its bits and of its white."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    most = 2 ** tags.get(BITS_PER_SAMPLE, (16,))[0] - 1
    grey = (np.asarray(image).astype(np.int64) * 255 // most).astype(np.uint8)
    return 255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


def upright(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """The pixels (H, W, …) of an image that is loaded, turned as its EXIF says."""
    # Once it is loaded: Pillow turns a TIFF itself when it loads it, and takes the tag away.
    turns, mirrored = TURNS.get(image.getexif().get(ORIENTATION, 1), (0, False))
    if mirrored:
        values = values[:, ::-1]
    return np.ascontiguousarray(np.rot90(values, turns))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as its EXIF says."""
    if image.format == "TIFF":  # turned by Pillow itself; by some versions as it is opened
        image.load()
        return image.size
    quarter = TURNS.get(image.getexif().get(ORIENTATION, 1), (0, False))[0] % 2
    return (image.height, image.width) if quarter else image.size


def fit_square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the short side to `size` (bilinear, antialiased), crop the centre: (size, size, 3)."""
    image = rgb(image)
    scale = size / min(image.size)
    if scale != 1:
        # max: rounding must not make a side shorter than the crop.
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def whole_pixels(image: Image.Image, turn: bool) -> np.ndarray:
    """uint8 (H, W, 3) RGB, turned upright as EXIF says if `turn`."""
    pixels = np.asarray(rgb(image))
    return upright(pixels, image) if turn else pixels


def exchanged(found: tuple[int, int], said: tuple[int, int]) -> str:
    """A hint for a message: of two sizes with their sides exchanged, why they may be so."""
    if found != said[::-1] or found[0] == found[1]:
        return ""
    return "; EXIF may turn the photograph, then save it upright"
