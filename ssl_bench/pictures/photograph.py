"""A user's photograph as it is: grey or colour, with or without alpha, 8 or 16 bits a channel.

It is turned upright as its EXIF says. `rgb` shows it to a network; `with_hole_filled` puts new
colours into a hole and leaves every other value as it was, bit for bit.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_bench.data.images import read_image, upright
from ssl_bench.errors import DataError, extra
from ssl_bench.files import written_at_once

with extra("inpaint"):
    import cv2

REMEDY = "mend it or leave it out"
BITS, PLANES, COLOURS = 258, 284, 262  # TIFF tags
BLACK_IS_ZERO, RGB = 1, 2
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601, as Pillow's grey)


@dataclass(frozen=True)
class Photograph:
    """`values` is uint8 or uint16 (H, W, C): grey, grey and alpha, RGB, or RGB and alpha."""

    values: np.ndarray
    profile: bytes | None = None  # ICC, of the colours

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def _peak(self) -> int:
        return int(np.iinfo(self.values.dtype).max)

    @property
    def _colours(self) -> int:
        """Channels that are not alpha."""
        return 1 if self.values.shape[2] < 3 else 3

    @property
    def rgb(self) -> np.ndarray:
        """float32 (H, W, 3) in [0, 1]; alpha is not looked at."""
        colours = self.values[..., : self._colours].astype(np.float32) / self._peak
        return np.broadcast_to(colours, (*self.size, 3)).copy()

    def with_hole_filled(self, hole: np.ndarray, rgb: np.ndarray) -> "Photograph":
        """The same but for the colours where bool (H, W) is true: those of `rgb` there.

        A grey photograph takes their luma; alpha stays as it is.
        """
        content = rgb[hole].astype(np.float64)  # (pixels, 3)
        if self._colours == 1:
            content = content @ LUMA[:, None]
        values = self.values.copy()
        found = np.round(np.clip(content, 0, 1) * self._peak).astype(values.dtype)
        values[hole, : self._colours] = found
        return replace(self, values=values)

    def save(self, path: Path) -> None:
        """Write a PNG of the same channels and depth. Raises DataError where it cannot be."""
        values = self.values
        if values.dtype == np.uint8:
            image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
            with written_at_once(path) as scratch:
                image.save(scratch, "PNG", icc_profile=self.profile)
            return
        if values.shape[2] == 2:  # a PNG of OpenCV has no grey with alpha
            values = np.concatenate([np.repeat(values[..., :1], 3, 2), values[..., 1:]], 2)
        known, content = cv2.imencode(".png", _reversed(values))
        if not known:
            raise DataError(f"{path} cannot be written as a PNG")
        with written_at_once(path) as scratch:
            scratch.write_bytes(content.tobytes())


def read_photograph(path: Path) -> Photograph:
    """Decode a file. Raises DataError, naming it, if it is not an image that can be used."""
    return read_image(path, lambda image: _photograph(path, image), REMEDY)[0]


def _photograph(path: Path, image: Image.Image) -> Photograph:
    deep = _is_deep(image)
    image.load()  # refuses what is damaged or too large
    if deep:  # Pillow cuts 16 bits of colour to 8
        values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16:
            raise ValueError("16 bits a channel in a form that is not known")
        values = values[..., None] if values.ndim == 2 else _reversed(values)
        return Photograph(upright(values, image), image.info.get("icc_profile"))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        raise ValueError(f"pixels of kind {image.mode}, of which white is not known")
    profile = image.info.get("icc_profile")
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode in ("1", "L", "LA", "La"):
        kind = "LA" if alpha else "L"
    else:
        kind = "RGBA" if alpha else "RGB"
    values = upright(np.asarray(image.convert(kind)), image)
    if image.mode == "CMYK":
        profile = None  # it is of other colours
    return Photograph(values[..., None] if values.ndim == 2 else values, profile)


def _is_deep(image: Image.Image) -> bool:
    """Whether a file has 16 bits a channel that OpenCV reads rightly.

    Raises ValueError for other forms of more than 8 bits, which neither library does.
    """
    if image.format == "PNG":
        return "16" in str(_arguments(image))
    if image.format == "PPM" and any(n > 255 for n in _numbers(_arguments(image))):
        raise ValueError("more than 8 bits a channel in a PPM")
    if image.format != "TIFF":
        return False
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    if max(tags.get(BITS, (8,))) <= 8 or image.mode in ("I", "F"):
        return False
    if tags.get(PLANES, 1) != 1 or tags.get(COLOURS) not in (BLACK_IS_ZERO, RGB):
        raise ValueError("16 bits a channel in planes, or in other colours than RGB and grey")
    return True


def _arguments(image: Any) -> Any:
    """What Pillow's decoder is told of a file: for a PNG its raw mode, for a PPM its white."""
    return image.tile[0].args if image.tile else ()


def _numbers(args: Any) -> list[int]:
    return [a for a in args if isinstance(a, int)] if isinstance(args, tuple) else []


def _reversed(values: np.ndarray) -> np.ndarray:
    """OpenCV's order of the colours to ours and back; alpha stays last."""
    if values.shape[2] < 3:
        return values
    return np.ascontiguousarray(values[..., [2, 1, 0, *range(3, values.shape[2])]])
