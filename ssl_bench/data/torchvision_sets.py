"""Public sets by one word, read by torchvision from where `bench data get` puts them.

cifar10, cifar100, stl10, svhn (pixels in one file), flowers102, pets, dtd, food101, eurosat,
aircraft (images in files), below `$SSL_BENCH_DATA`, else `~/.cache/ssl-bench-data`, each in the
folder that torchvision gives it. Where a set has train and val, both are trained on, as is usual
for the final number (Kornblith et al., arXiv 1805.08974): protocols choose on a part of train.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_bench.data.dataset import Dataset, SmallImage, Split, SplitName, Task
from ssl_bench.data.draw import Draw
from ssl_bench.data.faults import SKIP
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.images import fit_square
from ssl_bench.data.paths import data_folder, stamp
from ssl_bench.errors import DataError, UsageError, counted

# Helber et al. (arXiv 1709.00029) draw a fifth for testing; the set has no official split.
EUROSAT = Draw(0.2, 0)
STL10_SIDE = 96
STL10_FOLDER = "stl10_binary"
UNLABELED: SplitName = "unlabeled"
# The second is that of Kornblith et al. for flowers102, pets and aircraft.
TOP1, BY_CLASS = "top1", "mean_per_class"


@dataclass(frozen=True)
class PublicSet:
    """A set: torchvision's class for it, below which folder, and what makes each split.

    `parts` are the keywords of torchvision's class, one for each part of a split; `sizes` the
    official numbers of images; `metric` what is reported on it, and `note` how the paper of the set
    reports it where that is another way; `unchecked` is an archive that torchvision has no checksum
    of.
    """

    source: str
    folder: str
    parts: Mapping[SplitName, tuple[Mapping[str, Any], ...]]
    sizes: Mapping[SplitName, int]
    metric: str = TOP1
    note: str = ""
    unchecked: str = ""


def _split(*names: str) -> tuple[dict[str, str], ...]:
    return tuple({"split": name} for name in names)


TRAIN_TEST = {"train": _split("train"), "test": _split("test")}
WITH_VAL = {"train": _split("train", "val"), "test": _split("test")}
TRAINVAL = {"train": _split("trainval"), "test": _split("test")}
CIFAR = {"train": ({"train": True},), "test": ({"train": False},)}
SETS = {
    "cifar10": PublicSet(
        "CIFAR10", "cifar-10-batches-py", CIFAR, {"train": 50_000, "test": 10_000}
    ),
    "cifar100": PublicSet(
        "CIFAR100", "cifar-100-python", CIFAR, {"train": 50_000, "test": 10_000}
    ),
    "stl10": PublicSet(
        "STL10", STL10_FOLDER, TRAIN_TEST | {UNLABELED: _split(UNLABELED)},
        {"train": 5_000, "test": 8_000, UNLABELED: 100_000},
        note="the paper reports the mean of ten folds of 1,000 training images",
    ),
    "svhn": PublicSet(
        "SVHN", "", TRAIN_TEST | {"extra": _split("extra")},
        {"train": 73_257, "test": 26_032, "extra": 531_131},
    ),
    "flowers102": PublicSet(
        "Flowers102", "flowers-102", WITH_VAL, {"train": 2_040, "test": 6_149}, BY_CLASS
    ),
    "pets": PublicSet(
        "OxfordIIITPet", "oxford-iiit-pet", TRAINVAL, {"train": 3_680, "test": 3_669}, BY_CLASS
    ),
    "dtd": PublicSet(
        "DTD", "dtd", WITH_VAL, {"train": 3_760, "test": 1_880},
        note="this is the first of ten partitions, whose mean the paper reports",
    ),
    "food101": PublicSet("Food101", "food-101", TRAIN_TEST, {"train": 75_750, "test": 25_250}),
    "eurosat": PublicSet("EuroSAT", "eurosat", {"train": ({},)}, {"train": 21_600, "test": 5_400}),
    "aircraft": PublicSet(
        "FGVCAircraft", "fgvc-aircraft-2013b", TRAINVAL, {"train": 6_667, "test": 3_333}, BY_CLASS,
        unchecked="fgvc-aircraft-2013b.tar.gz",
    ),
}  # fmt: skip


class Pixels(Split):
    """Images that one file holds, (N, H, W, 3) uint8; each process opens it when it reads."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], np.ndarray],
        labels: np.ndarray | None,
        count: int,
        classes: tuple[str, ...],
        files: list[Path],
    ) -> None:
        self.opened, self.labels, self.classes = opened, labels, classes
        self.names = [f"{name}/{index:06}" for index in range(count)]
        stamps = [(str(file), stamp(file)) for file in files]
        self.fingerprint = hashlib.sha256(repr((name, stamps)).encode()).hexdigest()

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 (N, H, W, 3)."""
        return self.opened()

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """The image at `size`; see Split.load."""
        pixels, digest = self.whole(index)
        if min(pixels.shape[:2]) < smallest:
            sides = f"{pixels.shape[1]}×{pixels.shape[0]}"
            raise SmallImage(f"{self.names[index]} is {sides}, below {smallest} px{SKIP}")
        return fit_square(Image.fromarray(pixels), size), digest

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """The image, and the digest of its size and pixels; see Split.whole."""
        pixels = np.ascontiguousarray(self.pixels[index])
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return pixels, digest

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "pixels"}


class TorchvisionDataset(Dataset):
    """A public set by its name; its splits are the official ones."""

    def __init__(self, name: str, argument: str) -> None:
        """DataError where it is not there."""
        if argument:
            raise UsageError(f"{name} takes nothing after its name: remove ':{argument[:40]}'")
        self.name, self.set = name, SETS[name]
        self.root = root_of(name)
        folder = self.root / self.set.folder
        if not folder.is_dir():
            raise DataError(
                f"{name} is not there: {folder} is no folder; `bench data get {name}` fetches it, "
                "or let SSL_BENCH_DATA name the folder that it lies in"
            )
        if unfinished(name).exists():
            raise DataError(f"{name} was not fetched to its end: `bench data get {name}` goes on")
        self.where, self.splits = str(folder), tuple(self.set.sizes)

    def count(self, name: SplitName, task: Task) -> int:
        """The official number of images."""
        return self.set.sizes[name]

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split; DataError where they are not the official number."""
        self.check_task(task)
        self.check_split(name)
        found = self._read(name)
        there, official = len(found.names), self.set.sizes[name]
        if there != official:
            raise DataError(
                f"{self.where} holds {counted(there, 'image')} for {name}, and {self.name} has "
                f"{official:,}: give a set of one's own as folder:PATH"
            )
        if name == "test" and self.set.note:
            found.notes = (*found.notes, f"{self.name}: {self.set.note}")
        if self.set.metric != TOP1:
            found.metric = self.set.metric
            # So that images decoded before sets had one are decoded again.
            said = found.fingerprint + found.metric
            found.fingerprint = hashlib.sha256(said.encode()).hexdigest()
        return found

    def split_for_pretraining(self, name: SplitName) -> Split:
        """The unlabelled images where the set has some to pretrain on."""
        if name == "train" and UNLABELED in self.splits:
            found = self.split(UNLABELED)
            found.notes = (*found.notes, "pretraining takes the unlabelled images")
            return found
        return self.split(name)

    def _read(self, name: SplitName) -> Split:
        if self.name == "stl10":
            return read_stl10(self.root / STL10_FOLDER, name)
        if self.name == "eurosat":
            return self._drawn(name)
        parts = [self.opened(each) for each in self.set.parts[name]]
        if hasattr(parts[0], "data"):
            files = sorted(path for path in Path(self.where).iterdir() if path.is_file())
            labels = np.array(getattr(parts[0], "targets", None) or parts[0].labels, np.int64)
            classes = classes_of(parts[0], labels)
            opened = partial(_pixels, self, self.set.parts[name][0])
            title = f"{self.name}/{name}"
            return Pixels(title, opened, labels, len(labels), classes, files)
        pairs = [pair for part in parts for pair in zip(files_of(part), part._labels, strict=True)]
        files, labels = [file for file, _ in pairs], [int(label) for _, label in pairs]
        where, classes = Path(self.where), classes_of(parts[0], np.array(labels))
        return ImageFiles(where, names_of(files, where), labels, classes)

    def _drawn(self, name: SplitName) -> Split:
        """EuroSAT's fifth of each class, or the rest."""
        whole = self.opened({})
        rows = EUROSAT.divided(
            whole.samples, lambda row: Path(row[0]).name, lambda row: str(row[1])
        )[name]
        files, labels = [Path(file) for file, _ in rows], [label for _, label in rows]
        note = EUROSAT.note(name, len(files), len(whole.samples))
        where = Path(self.where)
        return ImageFiles(where, names_of(files, where), labels, whole.classes, [note])

    def opened(self, keywords: Mapping[str, Any]) -> Any:
        """torchvision's own dataset; DataError for what it refuses."""
        from torchvision import datasets

        try:
            return getattr(datasets, self.set.source)(str(self.root), download=False, **keywords)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{self.where} cannot be read as {self.name} ({reason}): remove it, and "
                f"`bench data get {self.name}`"
            ) from error


def root_of(name: str) -> Path:
    """The folder that torchvision is given: SVHN's files lie in it without one of their own."""
    return data_folder() / "svhn" if name == "svhn" else data_folder()


def unfinished(name: str) -> Path:
    """A file that is there while a set is fetched and unpacked: of a part nothing else tells it."""
    return root_of(name) / f".{name}.unfinished"


# ---- what torchvision has read
def files_of(source: Any) -> list[Path]:
    """The images' files, in the set's order."""
    return [Path(file) for file in getattr(source, "_image_files", None) or source._images]


def classes_of(source: Any, labels: np.ndarray) -> tuple[str, ...]:
    """Their names; numbers where torchvision has none, as of SVHN's digits."""
    return tuple(map(str, getattr(source, "classes", range(1 + int(labels.max(initial=0))))))


def _pixels(dataset: TorchvisionDataset, keywords: Mapping[str, Any]) -> np.ndarray:
    """(N, H, W, 3); SVHN's are (N, 3, H, W)."""
    data = np.asarray(dataset.opened(keywords).data)
    return data if data.shape[-1] == 3 else data.transpose(0, 2, 3, 1)


# ---- STL-10
def read_stl10(folder: Path, name: SplitName) -> Pixels:
    """STL-10's binary files, mapped: torchvision would load 2.7 GB of unlabelled images at once.

    An image is three planes, each column by column. DataError for a file that is missing or cut.
    """
    images, labels = folder / f"{name}_X.bin", folder / f"{name}_y.bin"
    truth = None
    try:
        count, rest = divmod(images.stat().st_size, 3 * STL10_SIDE**2)
        classes = tuple((folder / "class_names.txt").read_text().split())
        if name != UNLABELED:
            truth = np.fromfile(labels, np.uint8).astype(np.int64) - 1  # classes from 1
    except OSError as error:
        raise DataError(f"{error.filename} is missing: `bench data get stl10`") from error
    wrong = truth is not None and (len(truth) != count or not set(truth) <= {*range(len(classes))})
    if rest or wrong:
        raise DataError(f"{images} and {labels.name} do not go together: `bench data get stl10`")
    opened = partial(_mapped, images)
    return Pixels(f"stl10/{name}", opened, truth, count, classes, [images, labels])


def _mapped(path: Path) -> np.ndarray:
    planes = np.memmap(path, np.uint8, mode="r").reshape(-1, 3, STL10_SIDE, STL10_SIDE)
    return planes.transpose(0, 3, 2, 1)


# ---- what entry points name
cifar10 = partial(TorchvisionDataset, "cifar10")
cifar100 = partial(TorchvisionDataset, "cifar100")
stl10 = partial(TorchvisionDataset, "stl10")
svhn = partial(TorchvisionDataset, "svhn")
flowers102 = partial(TorchvisionDataset, "flowers102")
pets = partial(TorchvisionDataset, "pets")
dtd = partial(TorchvisionDataset, "dtd")
food101 = partial(TorchvisionDataset, "food101")
eurosat = partial(TorchvisionDataset, "eurosat")
aircraft = partial(TorchvisionDataset, "aircraft")
