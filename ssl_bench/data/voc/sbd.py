"""`voc12+sbd`: VOC2012's masks and, to train on, those of SBD (Hariharan et al., ICCV 2011).

SBD lies as torchvision's archive has it, in `$SSL_BENCH_DATA`, else `~/.cache/ssl-bench-data`:

benchmark_RELEASE/dataset/img/<image>.jpg
benchmark_RELEASE/dataset/cls/<image>.mat
benchmark_RELEASE/dataset/train.txt, val.txt

Both of its lists are taken, less every image of VOC2012's segmentation val, by name and by
content, and less those that VOC2012's train has masks of its own for. With the official files
10,582 images are left, known elsewhere as `trainaug`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.data.voc.files import read_list
from ssl_bench.data.voc.official import data_folder, missing, refuse_argument, voc12
from ssl_bench.data.voc.split import VOCImage, VOCSplit
from ssl_bench.errors import DataError
from ssl_bench.progress import say

NAME = "voc12+sbd"
SIZES = {"train": 8498, "val": 2857}  # SBD's own lists


def sbd_folder() -> Path:
    """Where SBD is, if it is there."""
    return data_folder() / "benchmark_RELEASE" / "dataset"


class VOC12WithSBD(Dataset):
    """VOC2012 for segmentation, with more masks to train on; tested on VOC2012's val."""

    name = NAME
    tasks = ("segmentation",)

    def __init__(self, argument: str) -> None:
        refuse_argument(NAME, argument)
        self.year = voc12("")
        self.root = sbd_folder()
        if not self.root.is_dir():
            raise missing(NAME, self.root)
        self.where = str(self.root)
        self.images = sbd_images(self.root)

    def split(self, name: SplitName, task: Task = "classification") -> VOCSplit:
        """`train` with SBD's masks, or VOC2012's val; DataError for any task but segmentation."""
        self.check_task(task)
        test = self.year.split("test", task)
        if name == "test":
            return test
        train = self.year.split("train", task)
        extra, named, same = without(self.images, test.files)
        more, _, _ = without(extra, train.files)
        say(
            f"{NAME}: {named + same:,} of SBD's {len(self.images):,} images are in VOC2012's val "
            f"and left out ({named:,} by name, {same:,} by content), {len(extra) - len(more):,} "
            "are in its train"
        )
        return VOCSplit(self.root, [*train.files, *more])


def sbd_images(root: Path) -> list[VOCImage]:
    """The images of SBD's two lists; DataError for a list that is missing or not the official."""
    images = []
    for name, size in SIZES.items():
        path = root / f"{name}.txt"
        names = read_list(path)
        if len(names) != size:
            raise DataError(
                f"{path} lists {len(names):,} images, and SBD's {size:,}: unpack it anew from "
                "benchmark.tgz"
            )
        images += [
            VOCImage(image, root / "img" / f"{image}.jpg", root / "cls" / f"{image}.mat", path)
            for image in names
        ]
    return images


def without(
    images: Sequence[VOCImage], others: Sequence[VOCImage]
) -> tuple[list[VOCImage], int, int]:
    """`images` less `others`, and how many of them went by name and how many more by content."""
    names = {image.name for image in others}
    unnamed = [image for image in images if image.name not in names]
    same = _copies(unnamed, others)
    kept = [image for image in unnamed if image.name not in same]
    return kept, len(images) - len(unnamed), len(unnamed) - len(kept)


def _copies(images: Sequence[VOCImage], others: Sequence[VOCImage]) -> set[str]:
    """Names of the images whose files equal one of the others'; only equal sizes are read."""
    sizes: dict[int, list[Path]] = {}
    for image in others:
        sizes.setdefault(_bytes(image.photo), []).append(image.photo)
    found = set()
    for image in images:
        size = _bytes(image.photo)
        if size and any(_digest(p) == _digest(image.photo) for p in sizes.get(size, [])):
            found.add(image.name)
    return found


def _bytes(path: Path) -> int:
    """0 for a file that is missing, which is reported when it is read."""
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
