"""COCO's panoptic annotations: for each image a PNG of segments, things and stuff, without overlap.

The format is that of cocodataset.org (Kirillov et al., arXiv 1801.00868). An annotation is of one
image: `file_name` is an RGB PNG whose colours are ids, `segments_info` lists each id's category.
The PNGs lie in the folder that has the JSON's own name, beside it, or with it in one folder.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_bench.data.coco.files import CocoFile, CocoImage, Segments, categories_in, has, images_in
from ssl_bench.data.dataset import VOID
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.images import read_image
from ssl_bench.data.paths import inside
from ssl_bench.errors import DataError, plain

BASES = (1, 256, 256**2)  # an id is R + 256·G + 256²·B, as rgb2id of panopticapi's utils.py
REMEDY = "put the image's own PNG there, from the panoptic archive"


# ---- the JSON file
def has_segments(content: dict[str, Any]) -> bool:
    """Whether a file's annotations are panoptic: no other kind has `segments_info`."""
    return any("segments_info" in one for one in content["annotations"])


def read_segments(path: Path, content: dict[str, Any]) -> CocoFile:
    """What the file at `path`, loaded, says of segments; Faults with all that cannot be used.

    Every category is a class, thing or stuff. Images without an annotation are left out: that none
    of their pixels is known does not say that there is nothing on them.
    """
    faults: list[str] = []
    names = categories_in(path, content, faults)
    images = images_in(path, content, faults)
    for one in content["annotations"]:
        with collecting_faults(faults):
            image = one.get("image_id")
            segments = _segments(path, one, names, images)
            images[image] = replace(images[image], segments=segments)
    refuse(faults, str(path))
    found = [image for image in images.values() if image.segments is not None]
    return CocoFile(path, tuple(names.values()), found, unannotated=len(images) - len(found))


def _segments(
    path: Path, one: dict[str, Any], names: dict[int, str], images: dict[object, CocoImage]
) -> Segments:
    image, file = one.get("image_id"), one.get("file_name")
    what = f"{path} has the annotation of the image {plain(image)[:40]}"
    if not isinstance(image, int | str) or image not in images:
        raise DataError(f"{what}, which it does not list")
    if images[image].segments is not None:
        raise DataError(f"{what} twice: leave one of the two")
    if not isinstance(file, str) or not file or not has(one, "segments_info"):
        raise DataError(f"{what} without a file_name or a list of segments_info: write both")
    faults: list[str] = []
    with collecting_faults(faults):  # what leads out of this folder leads out of any
        file = inside(path.parent, file, path.parent).relative_to(path.parent).as_posix()
    found: dict[int, str] = {}
    for segment in one["segments_info"]:
        number, category = segment.get("id"), segment.get("category_id")
        of = f"{what} with the segment {plain(number)[:40]}"
        if not isinstance(number, int) or not 0 < number < 256**3 or number in found:
            faults.append(f"{of}: each takes an id of its own, from 1 to {256**3 - 1:,}")
        elif not isinstance(category, int) or category not in names:
            faults.append(
                f"{of} of the category {plain(category)[:40]}, which it does not list: correct it"
            )
        else:
            found[number] = names[category]
    refuse(faults, what)
    return Segments(file, found)


# ---- the PNGs
def segment_folder(path: Path, images: Sequence[CocoImage]) -> Path | None:
    """The folder that has one of the first images' PNGs, if any; `path` is the JSON file's."""
    names = [image.segments.file for image in images[:20] if image.segments is not None]
    for at in (path.with_suffix(""), path.parent):
        # pathlib's is_file raises for a name that is too long; a JSON file may say any.
        if any(os.path.isfile(at / name) for name in names):
            return at
    return None


def segment_files(path: Path, images: Sequence[CocoImage]) -> list[Path]:
    """The PNG of each image, there or not; none of other annotations. DataError for no folder."""
    names = [image.segments.file for image in images if image.segments is not None]
    folder = segment_folder(path, images)
    if names and folder is None:
        raise DataError(
            f"{path} names PNGs of segments such as {plain(names[0])[:80]}, which are neither in "
            f"{path.stem}/ beside it nor with it: unpack {path.stem}.zip there"
        )
    return [folder / name for name in names] if folder else []


def segment_mask(
    path: Path, segments: Segments, size: tuple[int, int], classes: Sequence[str]
) -> np.ndarray:
    """uint8 (H, W) of a PNG: 1 + class of each pixel's segment, 255 void where its id is 0.

    There is no background, 0. Raises DataError for a PNG that is not there, of another size or not
    of RGB, and for ids that are not listed.
    """
    ids, _ = read_image(path, lambda opened: _ids(path, opened, size), REMEDY)
    values = {0: VOID} | {n: 1 + classes.index(name) for n, name in segments.categories.items()}
    known = np.array(sorted(values))
    # np.unique would sort all pixels: of what is listed, a search finds each in a few steps.
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    if len(strange := np.unique(ids[known[places] != ids])):
        shown = ", ".join(map(str, strange[:3].tolist())) + (", …" if len(strange) > 3 else "")
        raise DataError(f"{path} has the segment {shown}, which its annotation lacks: {REMEDY}")
    return np.array([values[number] for number in known.tolist()], np.uint8)[places]


def _ids(path: Path, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """int32 (H, W)."""
    if (image.height, image.width) != size:
        raise DataError(
            f"{path} is {image.width}×{image.height} px, but its image is {size[1]}×{size[0]}: "
            f"{REMEDY}"
        )
    # The colours of a palette or of a JPEG may be near those of an id, and mean another.
    if image.mode != "RGB" or image.format != "PNG":
        raise DataError(
            f"{path} is {image.format} of mode {image.mode}, and ids are the colours of an RGB "
            f"PNG: {REMEDY}"
        )
    return np.asarray(image).astype(np.int32) @ np.array(BASES, np.int32)
