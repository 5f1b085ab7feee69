"""Folders in PASCAL VOC's layout, made by hand, for tests that read or spoil them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.dataset import SplitName
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.errors import BenchError

LISTS = {
    "train": ["000001", "000002"],
    "val": ["000003", "000004"],
    "trainval": ["000001", "000002", "000003", "000004"],
    "test": ["000005", "000006"],
}


def thing(
    name: str, difficult: int = 0, box: Sequence[object] = (1, 2, 30, 40), more: str = ""
) -> str:
    """One object as the official files write it."""
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"\t\t\t<{edge}>{value}</{edge}>\n" for edge, value in edges)
    return (
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>1</truncated>\n"
        f"\t\t<difficult>{difficult}</difficult>\n\t\t<bndbox>\n{inner}\t\t</bndbox>\n{more}\t</object>\n"
    )


# Dog: 1, −1, 1, 0 in trainval; person: 1, 0, −1, 0.
THINGS = {
    "000001": [thing("dog"), thing("person")],
    "000002": [thing("dog", difficult=1)],
    "000003": [thing("dog", difficult=1), thing("dog"), thing("person", difficult=1)],
    "000004": [],
    "000005": [thing("chair", box=(4.5, 2, 30.25, 40)), thing("person")],
    "000006": [thing("tvmonitor", difficult=1), thing("tvmonitor", difficult=1)],
}


def annotate(root: Path, image: str, *things: str, filename: str | None = None) -> Path:
    path = root / "Annotations" / f"{image}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    filename = f"{image}.jpg" if filename is None else filename
    head = f"\t<folder>{root.name}</folder>\n\t<filename>{filename}</filename>\n"
    path.write_text(f"<annotation>\n{head}{''.join(things)}</annotation>\n")
    return path


def write_list(
    root: Path, name: str, lines: Sequence[str], end: str = "\n", folder: str = "Main"
) -> Path:
    path = root / "ImageSets" / folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def make_year(root: Path, lists: Mapping[str, Sequence[str]] = LISTS) -> Path:
    for i, (image, things) in enumerate(THINGS.items()):
        annotate(root, image, *things)
        (root / "JPEGImages").mkdir(exist_ok=True)
        draw_photo(i).save(root / "JPEGImages" / f"{image}.jpg")
    for name, images in lists.items():
        write_list(root, name, images)
    return root


def draw_mask(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """uint8 (height, width): a rectangle of one class with a void border on background."""
    mask = np.zeros((height, width), np.uint8)
    mask[10:50, 5 : 30 + seed] = 255
    mask[12:48, 7 : 28 + seed] = 1 + seed % 20
    return mask


def write_mask(root: Path, image: str, indices: np.ndarray, palette: bool = True) -> Path:
    """Indices as a PNG; the palette's colours say nothing of them, as VOC's."""
    path = root / "SegmentationClass" / f"{image}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(indices.astype(np.uint8))
    if palette:
        made.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    made.save(path)
    return path


def add_masks(root: Path, lists: Mapping[str, Sequence[str]] = LISTS) -> Path:
    """Masks for all images of a year, and lists of them."""
    for i, image in enumerate(THINGS):
        write_mask(root, image, draw_mask(i))
    for name, images in lists.items():
        write_list(root, name, images, folder="Segmentation")
    return root


def write_sbd(root: Path, lists: Mapping[str, Sequence[str]], photos: Mapping[str, Path]) -> Path:
    """SBD's layout; `photos` are copied, images without one are drawn."""
    (root / "img").mkdir(parents=True)
    (root / "cls").mkdir()
    for name, images in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{image}\n" for image in images))
        for i, image in enumerate(images):
            path = root / "img" / f"{image}.jpg"
            if image in photos:
                path.write_bytes(photos[image].read_bytes())
            else:
                draw_photo(100 + i + len(name)).save(path)
            write_mat(root / "cls" / f"{image}.mat", np.minimum(draw_mask(i), 20))
    return root


def write_mat(path: Path, indices: np.ndarray) -> Path:
    """A mask as SBD has it, beside what else is in its files."""
    truth = {"Segmentation": indices, "CategoriesPresent": np.unique(indices)}
    savemat(path, {"GTcls": truth}, do_compression=True)
    return path


def refused(error: type[BenchError], call: Callable[[], object], *parts: object) -> None:
    """One line that has all parts."""
    with pytest.raises(error) as raised:
        call()
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 700
    for part in parts:
        assert str(part) in message, f"{part!r} is not in {message!r}"


def labels(root: Path, split: SplitName = "train", options: str = "") -> np.ndarray:
    found = catalogue.dataset(f"voc:{root}{options}").split(split).labels
    assert found is not None
    return found


def opened(root: Path, split: SplitName = "train", skip_bad_images: bool = False) -> ImageStore:
    dataset = catalogue.dataset(f"voc:{root}")
    return open_store(dataset, split, 64, skip_bad_images=skip_bad_images, workers=0)
