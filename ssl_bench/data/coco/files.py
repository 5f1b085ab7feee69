"""COCO's annotation files (JSON): images, categories, boxes, polygons and run-length masks.

The format is that of cocodataset.org (Lin et al., arXiv 1405.0312): a box is x, y, width, height in
pixels counted from 0, a `segmentation` a list of polygons or run lengths.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.errors import DataError, extra, plain

LARGEST = 2**20  # px: a polygon is drawn point by point, in memory, before it is cut to its image


@dataclass(frozen=True)
class CocoObject:
    """One annotation. `box` is x0, y0, x1, y1; a `crowd` is a group that is marked as one."""

    number: object  # its id, for messages
    name: str
    box: tuple[float, float, float, float]
    crowd: bool
    segmentation: Any


@dataclass(frozen=True)
class Segments:
    """A panoptic annotation: the name of its PNG, and the category of each id; see panoptic.py."""

    file: str
    categories: dict[int, str]


@dataclass(frozen=True)
class CocoImage:
    """An image and its objects in the file's order, or its segments; `size` is height and width."""

    name: str
    size: tuple[int, int]
    objects: list[CocoObject] = field(default_factory=list)
    segments: Segments | None = None

    @property
    def categories(self) -> set[str]:
        """Of all that is on it. A crowd of persons shows persons."""
        if self.segments is not None:
            return set(self.segments.categories.values())
        return {one.name for one in self.objects}


@dataclass(frozen=True)
class CocoFile:
    """What one file says; `classes` in the order of the categories' ids."""

    path: Path
    classes: tuple[str, ...]
    images: list[CocoImage]
    empty: int = 0  # boxes without width or height, left out: COCO's own train2017 has two
    unannotated: int = 0  # images without a panoptic annotation, left out

    @property
    def panoptic(self) -> bool:
        """Whether images have segments, and no objects."""
        return self.images[0].segments is not None

    @property
    def has_masks(self) -> bool:
        """Whether any image has some: files for detection leave segmentations empty."""
        objects = (one for image in self.images for one in image.objects)
        return self.panoptic or any(one.segmentation for one in objects)


def read_objects(path: Path, content: dict[str, Any]) -> CocoFile:
    """What the file at `path`, loaded, says of objects; Faults with all that cannot be used."""
    faults: list[str] = []
    names = categories_in(path, content, faults)
    images = images_in(path, content, faults)
    empty = 0
    for one in content["annotations"]:
        with collecting_faults(faults):
            image, found = _annotation(path, one, names, images)
            x0, y0, x1, y1 = found.box
            if x1 > x0 and y1 > y0:
                images[image].objects.append(found)
            else:
                empty += 1
    refuse(faults, str(path))
    classes = _classes(content, names, images.values())
    return CocoFile(path, classes, list(images.values()), empty)


def load(path: Path) -> dict[str, Any]:
    """The three lists of a file; DataError where it is no JSON, or has not all of them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}): unpack it anew") from error
    if missing := [key for key in ("images", "annotations", "categories") if not has(content, key)]:
        raise DataError(
            f"{path} has no list of {' and of '.join(missing)}: COCO's files have images, "
            "annotations and categories"
        )
    return content


def has(content: Any, key: str) -> bool:
    """Whether what was read has a list of dictionaries there."""
    listed = content.get(key) if isinstance(content, dict) else None
    return isinstance(listed, list) and all(isinstance(one, dict) for one in listed)


def categories_in(path: Path, content: dict[str, Any], faults: list[str]) -> dict[int, str]:
    """Their names by their ids, which they are in the order of; adds to `faults`."""
    found: dict[int, str] = {}
    for one in content["categories"]:
        number, name = one.get("id"), " ".join(str(one.get("name", "")).split())
        if not isinstance(number, int) or not name or number in found or name in found.values():
            faults.append(
                f"{path} has the category {plain(one)[:80]}: each takes an id and a name of its own"
            )
        else:
            found[number] = name
    return dict(sorted(found.items()))


def images_in(path: Path, content: dict[str, Any], faults: list[str]) -> dict[object, CocoImage]:
    """Images by their ids, with nothing on them yet; adds to `faults`."""
    found: dict[object, CocoImage] = {}
    names = set[str]()
    for one in content["images"]:
        number, name = one.get("id"), one.get("file_name")
        sides = one.get("height"), one.get("width")
        if not isinstance(number, int | str) or not isinstance(name, str) or not name:
            faults.append(f"{path} has the image {plain(one)[:80]}: it takes an id and a file_name")
        elif number in found or name in names:
            faults.append(f"{path} has the image {plain(name)[:80]} twice: leave one of the two")
        elif not all(isinstance(side, int) and side > 0 for side in sides):
            faults.append(f"{path} says no height and width of {plain(name)[:80]}: write them")
        else:
            found[number] = CocoImage(name, (one["height"], one["width"]))
            names.add(name)
    if not found and not faults:
        faults.append(f"{path} lists no images")
    return found


def _annotation(
    path: Path, one: dict[str, Any], names: dict[int, str], images: dict[object, CocoImage]
) -> tuple[object, CocoObject]:
    """The image that an object is of, and the object."""
    what = f"{path} has the annotation {plain(one.get('id'))[:40]}"
    image, category = one.get("image_id"), one.get("category_id")
    if not isinstance(image, int | str) or image not in images:
        raise DataError(f"{what} of the image {plain(image)[:40]}, which it does not list")
    if not isinstance(category, int) or category not in names:
        raise DataError(f"{what} of the category {plain(category)[:40]}, which it does not list")
    box = one.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise DataError(f"{what} with the box {plain(box)[:60]}: it takes x, y, width and height")
    x, y, width, height = map(float, box)
    crowd = one.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(f"{what} with iscrowd {plain(crowd)[:20]}: set it to 0 or 1")
    edges = (x, y, x + width, y + height)
    return image, CocoObject(
        one.get("id"), names[category], edges, bool(crowd), one.get("segmentation")
    )


def _is_number(value: object) -> bool:
    """Whether it is one that an image's pixels are counted by: an integer may have any length."""
    return isinstance(value, int | float) and -LARGEST < value < LARGEST


def _classes(content: dict[str, Any], names: dict[int, str], images: Any) -> tuple[str, ...]:
    """Without the category that only stands above the others, as in Roboflow's files."""
    kinds = content["categories"]
    above = {one.get("supercategory") for one in kinds if one.get("supercategory") != one["name"]}
    used = {one.name for image in images for one in image.objects}
    return tuple(name for name in names.values() if name in used or name not in above)


# ---- masks
def class_mask(image: CocoImage, classes: Sequence[str]) -> np.ndarray:
    """uint8 (H, W): things as classes; 0 background, 1 + class, 255 where two classes are claimed.

    Overlaps are void as in torchvision's reference (references/segmentation/coco_utils.py).
    Raises Faults with all segmentations that cannot be used.
    """
    mask = np.zeros(image.size, np.uint8)
    faults: list[str] = []
    for one in image.objects:
        with collecting_faults(faults):
            here, label = _decoded(image, one), 1 + classes.index(one.name)
            mask[here & (mask != 0) & (mask != label)] = 255
            mask[here & (mask == 0)] = label
    refuse(faults, image.name)
    return mask


def _decoded(image: CocoImage, one: CocoObject) -> np.ndarray:
    """bool (H, W)."""
    with extra("detect"):
        from pycocotools import mask as coder
    what = f"{plain(image.name)}: the annotation {plain(one.number)[:40]}"
    try:
        found = coder.frPyObjects(_checked(one, image.size), *image.size)
        # pycocotools has no __array__ of numpy 2 yet, and says so for every mask.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            mask = coder.decode(coder.merge(found))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{what} has no mask that can be read ({error}): correct it") from error
    return mask.astype(bool)


def _checked(one: CocoObject, size: tuple[int, int]) -> list[Any]:
    """Polygons or run lengths. ValueError for what pycocotools would read beyond its end.

    It is C: of run lengths that end early it leaves the rest of the mask as the memory was.
    """
    found = one.segmentation
    if isinstance(found, dict):
        counts = found["counts"]
        counts = counts if isinstance(counts, list) else run_lengths(counts)
        if tuple(found["size"]) != size:
            raise ValueError(f"run lengths of another size than {size[1]}×{size[0]}")
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != np.prod(size):
            raise ValueError("run lengths that do not fill the image")
        return [{"size": list(size), "counts": counts}]
    if not isinstance(found, list) or not found:
        raise ValueError("no segmentation")
    for polygon in found:
        if not (isinstance(polygon, list) and all(map(_is_number, polygon))):
            raise ValueError("a polygon takes numbers")
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
    return found


def run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths as numbers (rleFrString in pycocotools' maskApi.c).

    Five bits a letter, the lowest first, with a sign; from the fourth on they are differences to
    the number before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:  # the number's last letter
            value -= (1 << shift) if bits & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
