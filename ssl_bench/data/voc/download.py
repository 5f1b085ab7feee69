"""`bench data get`: the official archives, fetched, checked and unpacked by torchvision.

An archive that lies in its place already, put there by hand, is not fetched again.
"""

import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from torchvision.datasets import SBDataset, VOCDetection
from torchvision.datasets.voc import DATASET_YEAR_DICT

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset
from ssl_bench.data.voc import official
from ssl_bench.data.voc.dataset import OFFICIAL
from ssl_bench.data.voc.files import read_list
from ssl_bench.data.voc.split import listed_images
from ssl_bench.errors import DataError, unknown
from ssl_bench.progress import say, waiting

SECONDS = 60  # without an answer, after which the network counts as absent


@dataclass(frozen=True)
class Archive:
    """A file to have from `url` in `folder`; `there` says whether its contents are all there."""

    url: str
    file: str
    folder: Path
    fetch: Callable[[], object]
    there: Callable[[], bool]


def get(name: str) -> Dataset:
    """Fetch what is missing of an official set, and open it.

    Raises UsageError for a set that is none of them; DataError where an archive cannot be had,
    with its name and the place to put it, and where another set lies in the place.
    """
    known = [*OFFICIAL, official.WITH_SBD]
    if name not in known:
        raise unknown("set to download", name, known)
    for archive in archives(name):
        if not archive.there():
            _fetch(archive, name)
    return catalogue.dataset(name)


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
                f"{there:,} images, and {name}'s {size:,}; move it away, or let SSL_BENCH_DATA "
                "name another folder"
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


def _fetch(archive: Archive, name: str) -> None:
    say(f"fetching {archive.file} to {archive.folder}")
    try:
        archive.folder.mkdir(parents=True, exist_ok=True)
        with _impatient(), waiting(f"fetching {archive.file}"):
            archive.fetch()
    except (OSError, EOFError, RuntimeError, HTTPException, tarfile.TarError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise DataError(
            f"{archive.file} cannot be had from {archive.url} ({error}): put it into "
            f"{archive.folder} by hand, then `bench data get {name}` unpacks it"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()  # torchvision lets us give none, and waits for ever
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
