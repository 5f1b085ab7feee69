"""Whole images of a folder like VOC2007's."""

from pathlib import Path

from PIL import Image

from helpers.voc_folders import annotate, thing
from ssl_bench import catalogue
from ssl_bench.data.dataset import SplitName, Task
from ssl_bench.data.store.whole import WholeStore, open_whole
from ssl_bench.data.voc.files import CLASSES

# Width and height of the training images.
SIZES = {"000001": (96, 80), "000002": (50, 120), "000003": (200, 40), "000004": (64, 64)}
DOG, PERSON = CLASSES.index("dog"), CLASSES.index("person")


def opened(
    root: Path,
    task: Task = "detection",
    short: int | None = None,
    longest: int = 1000,
    *,
    split: SplitName = "train",
    skip_bad_images: bool = False,
    workers: int = 0,
) -> WholeStore:
    dataset = catalogue.dataset(f"voc:{root}")
    return open_whole(
        dataset, split, task, short, longest, skip_bad_images=skip_bad_images, workers=workers
    )


def photo(root: Path, name: str) -> Image.Image:
    return Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")


def spoil(year: Path) -> list[str]:
    """A fault of each kind; returns what their lines say, in the images' order."""
    (year / "JPEGImages" / "000001.jpg").unlink()
    annotate(year, "000002", thing("dog", box=(1, 1, 500, 50)))
    annotate(year, "000003", thing("dog", box=(1, 1, 500, 50)), thing("cat", box=(-9, 1, 5, 5)))
    (year / "JPEGImages" / "000004.jpg").write_text("no image")
    return ["000001.jpg is missing", "50×120 px", "500", "-9", "000004.jpg cannot be read"]
