"""`folder:PATH`: one's own images in torchvision's ImageFolder layout, or a flat folder.

PATH/train/<class>/…  and  PATH/val/<class>/…  (or test/)   for training and evaluation
PATH/NAME/<class>/…                                         any other split that is asked for
PATH/…                                                      images only, for pretraining
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes

from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.images import load_square, load_whole
from ssl_bench.data.paths import resolved, stamp
from ssl_bench.errors import DataError, UsageError, plain


class FolderSplit(Split):
    """Image files below one root, by path relative to it."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Sequence[int] | None,
        classes: Sequence[str],
    ) -> None:
        self.root = root
        self.names = [file.relative_to(root).as_posix() for file in files]
        self.labels = None if labels is None else np.array(labels, dtype=np.int64)
        self.classes = tuple(classes)
        digest = hashlib.sha256(repr((str(root), self.classes)).encode())
        for name, file, label in zip(self.names, files, labels or [0] * len(files), strict=True):
            text = (name, stamp(file), label)
            # A name in an old encoding is not UTF-8: it is refused by name when it is read.
            digest.update(repr(text).encode(errors="backslashreplace"))
        self.fingerprint = digest.hexdigest()

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one file, turned upright as its EXIF says; see Split.load."""
        return load_square(self.root / self.names[index], size, smallest, turn=True)

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Decode one file, turned upright as its EXIF says; see Split.whole."""
        return load_whole(self.root / self.names[index], turn=True)


class FolderDataset(Dataset):
    """Images in `train/<class>/` and `val/<class>/`, or directly in a folder."""

    def __init__(self, argument: str) -> None:
        if not argument:
            raise UsageError("a folder of images is asked for as folder:PATH")
        self.root = resolved(argument)
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder: give folder:PATH an existing one")
        self.where = str(self.root)
        self.name = f"folder:{plain(self.root.name)}"
        if not (self.root / "train").is_dir():
            self.splits = ("train",)

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """`train` is PATH/train, else all images of PATH; `test` is PATH/val, else PATH/test.

        Any other split is the folder of its name, of the classes of `train`.
        """
        self.check_task(task)
        train = self.root / "train"
        if not train.is_dir():
            if name != "train":
                raise DataError(
                    f"{self.root} has no train/ and val/ folders of classes: a flat folder "
                    "serves pretraining only"
                )
            return self._flat()
        classes = self._classes(train)
        if name == "train":
            return self._labelled(train, classes)
        for folder in ("val", "test") if name == "test" else (name,):
            if (self.root / folder).is_dir():
                return self._labelled(self.root / folder, classes)
        missing = "val/ (or test/) beside train/: nothing to test on"
        raise DataError(f"{self.root} has no {missing if name == 'test' else f'{name}/'}")

    def _classes(self, root: Path) -> list[str]:
        try:
            return find_classes(root)[0]
        except FileNotFoundError as error:
            raise DataError(f"{root} has no class folders: expected {root}/<class>/…") from error

    def _labelled(self, root: Path, classes: list[str]) -> Split:
        """Labels count in the order of train's class folders; val may lack some of them."""
        index = {name: i for i, name in enumerate(classes)}
        training = root.name == "train"
        strange = set(self._classes(root)) - set(classes)
        if strange:
            raise DataError(f"{root} has class '{min(strange)}', which train/ lacks")
        each = {name: _listed(root / name) for name in classes}
        empty = [name for name, found in each.items() if not found]
        if training and empty:
            raise DataError(
                f"{root / empty[0]} has no images ({', '.join(IMG_EXTENSIONS)}): fill or remove it"
            )
        files = [path for found in each.values() for path in found]
        if not files:
            raise DataError(f"{root} has no images ({', '.join(IMG_EXTENSIONS)})")
        labels = [index[name] for name, found in each.items() for _ in found]
        return FolderSplit(root, files, labels, classes)

    def _flat(self) -> Split:
        files = _images(self.root)
        if not files:
            raise DataError(f"{self.root} has no images ({', '.join(IMG_EXTENSIONS)})")
        return FolderSplit(self.root, files, None, ())


def _listed(folder: Path) -> list[Path]:
    """A class's images in torchvision's order. Links to folders may lead round: they are left."""
    return sorted(_images(folder), key=lambda f: (str(f.parent), f.name))


def _images(folder: Path) -> list[Path]:
    # Sorted, as a file system lists in any order, and order is part of the digest.
    found = (f for f in folder.rglob("*") if f.suffix.lower() in IMG_EXTENSIONS)
    return sorted(f for f in found if not f.is_dir())
