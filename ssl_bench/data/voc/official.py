"""The official sets by their names, `voc07`, `voc12` and `voc12+sbd`.

They lie where `bench data get` puts them, in `$SSL_BENCH_DATA`, else `~/.cache/ssl-bench-data`:

VOCdevkit/VOC2007, VOCdevkit/VOC2012
benchmark_RELEASE/dataset/img/<image>.jpg     SBD (Hariharan et al., ICCV 2011)
benchmark_RELEASE/dataset/cls/<image>.mat
benchmark_RELEASE/dataset/train.txt, val.txt

A folder whose lists are not of the official sizes is not taken for them.
"""

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.data.paths import data_folder
from ssl_bench.data.voc.dataset import OFFICIAL, VOCDataset
from ssl_bench.data.voc.files import read_list
from ssl_bench.data.voc.split import VOCImage, VOCSplit
from ssl_bench.errors import DataError, UsageError, counted
from ssl_bench.files import file_digest
from ssl_bench.progress import say

YEARS = {"voc07": "VOC2007", "voc12": "VOC2012"}
WITH_SBD = "voc12+sbd"
SBD_SIZES = {"train": 8498, "val": 2857}  # SBD's own lists


# ---- VOC
def year_folder(name: str) -> Path:
    """Where `voc07` or `voc12` is, if it is there."""
    return data_folder() / "VOCdevkit" / YEARS[name]


def voc07(argument: str) -> VOCDataset:
    """VOC2007: trainval and test."""
    return _official("voc07", argument)


def voc12(argument: str) -> VOCDataset:
    """VOC2012: train and val, as the labels of its test are not public."""
    return _official("voc12", argument)


def _official(name: str, argument: str) -> VOCDataset:
    """Raises DataError where the set is missing, incomplete or not the official one."""
    _refuse_argument(name, argument)
    root = year_folder(name)
    if not root.is_dir():
        raise _missing(name, root)
    for path in lists_of(name):
        if not path.is_file():
            raise DataError(f"{name} is incomplete, {path} is missing: `bench data get {name}`")
    (train, _), (test, _) = OFFICIAL[name]["Main"]  # those of Segmentation have the same names
    try:
        return VOCDataset(f"{root},name={name},train={train},test={test}")
    except UsageError as error:
        raise DataError(
            f"{root} is not {name}: {error}, as in voc:{root},name={name}-mini"
        ) from error


def lists_of(name: str) -> list[Path]:
    """The lists that make a folder the official `name`."""
    sets = year_folder(name) / "ImageSets"
    official = OFFICIAL[name].items()
    return [sets / folder / f"{listed}.txt" for folder, sizes in official for listed, _ in sizes]


def _refuse_argument(name: str, argument: str) -> None:
    """UsageError for anything after the colon: an official set has no variants."""
    if argument:
        raise UsageError(f"{name} takes nothing after its name: remove ':{argument[:40]}'")


def _missing(name: str, folder: Path) -> DataError:
    """What to do where an official set is not there."""
    return DataError(
        f"{name} is not there: {folder} is no folder; `bench data get {name}` fetches it, or let "
        "SSL_BENCH_DATA name the folder that it lies in"
    )


# ---- SBD
def sbd_folder() -> Path:
    """Where SBD is, if it is there."""
    return data_folder() / "benchmark_RELEASE" / "dataset"


class VOC12WithSBD(Dataset):
    """VOC2012 for segmentation, with SBD's masks to train on, too; tested on VOC2012's val.

    Both of SBD's lists are taken, less every image of VOC2012's segmentation val, by name and by
    content, and less those that VOC2012's train has masks of its own for. With the official files
    10,582 images are left, known elsewhere as `trainaug`.
    """

    name = WITH_SBD
    tasks = ("segmentation",)

    def __init__(self, argument: str) -> None:
        _refuse_argument(WITH_SBD, argument)
        self.year = voc12("")
        self.root = sbd_folder()
        if not self.root.is_dir():
            raise _missing(WITH_SBD, self.root)
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
            f"{WITH_SBD}: {named + same:,} of SBD's {len(self.images):,} images are in VOC2012's "
            f"val and left out ({named:,} by name, {same:,} by content), "
            f"{len(extra) - len(more):,} are in its train"
        )
        return VOCSplit(self.root, [*train.files, *more])

    def split_for_pretraining(self, name: SplitName) -> VOCSplit:
        """The images of the masks."""
        return self.split(name, "segmentation")


def sbd_images(root: Path) -> list[VOCImage]:
    """The images of SBD's two lists; DataError for a list that is missing or not the official."""
    images: list[VOCImage] = []
    for name, size in SBD_SIZES.items():
        path = root / f"{name}.txt"
        names = read_list(path)
        if len(names) != size:
            raise DataError(
                f"{path} lists {counted(len(names), 'image')}, and SBD's {size:,}: unpack it anew "
                "from benchmark.tgz"
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
    # Files of other sizes cannot be equal: so a handful is read, not twelve thousand.
    sizes: dict[int, list[Path]] = {}
    for image in others:
        sizes.setdefault(_bytes(image.photo), []).append(image.photo)
    found = set()
    for image in images:
        size = _bytes(image.photo)
        if size and any(file_digest(p) == file_digest(image.photo) for p in sizes.get(size, [])):
            found.add(image.name)
    return found


def _bytes(path: Path) -> int:
    """0 for a file that is missing, which is reported when it is read."""
    return path.stat().st_size if path.is_file() else 0
