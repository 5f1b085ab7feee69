"""`bench data get voc07`: VOC's official archives, fetched and unpacked by torchvision.

An archive that lies in its place already, put there by hand, is not fetched again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import SBDataset, VOCDetection
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ssl_bench.data.voc import official
from ssl_bench.data.voc.dataset import OFFICIAL
from ssl_bench.data.voc.files import read_list
from ssl_bench.data.voc.split import listed_images
from ssl_bench.errors import DataError, counted


@dataclass(frozen=True)
class Archive:
    """A file to have from `url` in `folder`; `there` says whether its contents are all there."""

    url: str
    file: str
    folder: Path
    fetch: Callable[[], object]
    there: Callable[[], bool]


def archives(name: str) -> list[Archive]:
    """The archives of a set; DataError where other files lie in their place."""
    if name == official.WITH_SBD:
        return [*archives("voc12"), _sbd()]
    _refuse_others(name)
    if name == "voc07":
        return [_voc("voc07", "2007", "trainval"), _voc("voc07", "2007", "test")]
    return [_voc("voc12", "2012", "trainval")]


def _voc(name: str, year: str, image_set: str) -> Archive:
    # torchvision knows the test archive of 2007 by a key of its own.
    source = DATASET_YEAR_DICT["2007-test" if (year, image_set) == ("2007", "test") else year]
    root, folder = official.data_folder(), official.year_folder(name)

    def fetch() -> object:
        return VOCDetection(root, year=year, image_set=image_set, download=True)

    def there() -> bool:
        return _complete(folder, image_set)

    return Archive(source["url"], source["filename"], root, fetch, there)


def _complete(root: Path, image_set: str) -> bool:
    """Whether all files are there that the lists called `image_set` name."""
    sets = root / "ImageSets"
    boxes, masks = (sets / folder / f"{image_set}.txt" for folder in ("Main", "Segmentation"))
    if not (boxes.is_file() and masks.is_file()):
        return False
    images = listed_images(root, boxes, "detection") + listed_images(root, masks, "segmentation")
    return all(image.photo.is_file() and image.truth.is_file() for image in images)


def _refuse_others(name: str) -> None:
    for path in official.lists_of(name):
        folder = path.parent.name
        size = dict(OFFICIAL[name][folder])[path.stem]
        if path.is_file() and (there := len(read_list(path))) != size:
            raise DataError(
                f"{official.year_folder(name)} holds another set: {folder}/{path.name} lists "
                f"{counted(there, 'image')}, and {name}'s {size:,}; move it away, or let "
                "SSL_BENCH_DATA name another folder"
            )


def _sbd() -> Archive:
    """torchvision moves what it unpacks to the folder it is given: the one it lies in anyway."""
    root = official.sbd_folder()

    def fetch() -> object:
        for part in ("cls", "img", "inst"):
            if (root / part).exists():  # what is moved there would land inside of it
                raise DataError(f"{root} is incomplete: remove {root / part} and try again")
        return SBDataset(str(root), image_set="train", download=True)

    def there() -> bool:
        if not all((root / f"{name}.txt").is_file() for name in ("train", "val")):
            return False
        return all(
            image.photo.is_file() and image.truth.is_file() for image in official.sbd_images(root)
        )

    return Archive(SBDataset.url, SBDataset.filename, root, fetch, there)
