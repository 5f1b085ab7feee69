"""Masks of PASCAL VOC (PNG) and of SBD (.mat), read as class indices, never as colours.

0 is background, 1 to C the classes (in VOC 20 in alphabetical order), 255 void: not to be judged.
SBD has no void.
"""

import io
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.data.dataset import VOID
from ssl_bench.data.images import exchanged
from ssl_bench.errors import DataError

OWN = "put the image's own mask there, from the archive"
DEEP = ("I;16", "I;16B", "I")  # Pillow's modes for grey of 16 bits
MOST = VOID - 1  # classes that a mask can tell apart
LOSSLESS = ("PNG", "BMP", "GIF", "TIFF")  # of a JPEG the indices are not what was saved
MAT_BYTES = 2**20  # SBD's are below 100 kB; a larger file may unpack to gigabytes


def read_class_mask(path: Path, height: int, width: int, classes: int) -> np.ndarray:
    """The mask of an image of height × width: uint8 (height, width) of 0 to `classes`, and 255.

    `path` is a PNG or, with the suffix .mat, a file of SBD. Raises DataError, naming it, for a
    file that cannot be read, of colours, of another size, or with an index that is no class.
    """
    read = _read_mat if path.suffix == ".mat" else partial(read_indices, formats=("PNG",))
    mask = read(path, height, width)
    # In the type of the file: as uint8 an index of 260 would be a 4.
    wrong = np.setdiff1d(mask, [*range(min(classes, MOST) + 1), VOID])
    if len(wrong):
        shown = ", ".join(map(str, wrong[:5].tolist())) + (", …" if len(wrong) > 5 else "")
        raise DataError(
            f"{path} has the index {shown}, which is no class: a mask takes 0 to {classes} "
            f"and {VOID}; {OWN}"
        )
    return mask.astype(np.uint8)


def _check_size(path: Path, found: tuple[int, int], height: int, width: int) -> None:
    if found != (height, width):
        raise DataError(
            f"{path} is {found[1]}×{found[0]} px, but its image is {width}×{height}: {OWN}"
            f"{exchanged(found, (height, width))}"
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return DataError(
            f"{path} is a JPEG, whose values are not quite those that were saved: round them to "
            "indices (0 and 255: by a threshold), and save PNGs"
        )
    text = str(error).partition("\n")[0][:200] or type(error).__name__
    return DataError(f"{path} cannot be read as a mask ({text}): unpack it anew from the archive")


# ---- VOC
def read_indices(
    path: Path, height: int, width: int, formats: tuple[str, ...] = LOSSLESS
) -> np.ndarray:
    """Indices (height, width) in the file's own type; DataError for colours or another size.

    The size is compared before pixels are decoded: a huge mask costs nothing.
    """
    # Pillow's warning of a bomb would come before the size is compared, which refuses one anyway.
    quiet = warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)
    try:
        content = path.read_bytes()
        with quiet, Image.open(io.BytesIO(content), formats=formats) as image:
            _check_size(path, (image.height, image.width), height, width)
            if image.mode not in ("P", "L", "1", *DEEP):
                # VOC's own have palettes: three channels there are its colours, not its indices.
                grey = grey_of(image) if formats == LOSSLESS else None
                if grey is None:
                    raise DataError(
                        f"{path} has colours (mode {image.mode}): a mask is a PNG of class "
                        f"indices, with a palette or grey; {OWN}"
                    )
                return grey
            # Of a palette image Pillow gives the indices, not the colours; of one bit, booleans.
            indices = np.asarray(image)
            indices = indices if image.mode in DEEP else indices.astype(np.uint8)
            spread = image.mode == "L" and image.format == "PNG"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return indices // _grey_factor(content) if spread else indices


def grey_of(image: Image.Image) -> np.ndarray | None:
    """uint8 (H, W) of grey that was saved in three channels, as OpenCV does; None of colours."""
    pixels = np.asarray(image.convert("RGB"))
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else None


def _grey_factor(content: bytes) -> int:
    """Pillow spreads grey of 2 and 4 bits over 0 to 255: 85 and 17 an index, as IHDR says."""
    depth = content[24]  # IHDR: behind the signature (8 bytes), its length, name, width, height
    return 255 // (2**depth - 1)


# ---- SBD
def _read_mat(path: Path, height: int, width: int) -> np.ndarray:
    from scipy.io import loadmat

    try:
        if path.stat().st_size > MAT_BYTES:
            raise ValueError(f"it has more than {MAT_BYTES:,} bytes")
        found = loadmat(str(path), variable_names=["GTcls"], appendmat=False)
        # MATLAB's structs are arrays of structs, here of one.
        mask = np.asarray(found["GTcls"][0]["Segmentation"][0])
        if mask.ndim != 2 or mask.dtype.kind not in "ui":
            raise ValueError(f"GTcls.Segmentation is {mask.dtype} of {mask.ndim} dimensions")
    except Exception as error:  # whatever scipy meets in a damaged file
        raise _unreadable(path, error) from error
    _check_size(path, (mask.shape[0], mask.shape[1]), height, width)
    return mask
