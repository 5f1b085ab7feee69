"""Images in files of their own below one folder: what most layouts come down to."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import Split
from ssl_bench.data.images import load_square, load_whole
from ssl_bench.data.paths import stamp
from ssl_bench.data.string_array import StringArray


class ImageFiles(Split):
    """Image files by their path relative to one root, with `/`.

    `labels` are places in `classes`, or int8 (N, C) for several each. `truth` are the files that
    boxes or masks are read from: the fingerprint changes with them.
    """

    # As cameras mean it; layouts whose boxes or masks are in pixels of the file set it to False.
    turn = True

    def __init__(
        self,
        root: Path,
        names: Iterable[str],
        labels: Sequence[int] | np.ndarray | None,
        classes: Sequence[str],
        notes: Sequence[str] = (),
        truth: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.names = StringArray.of(names)
        given = isinstance(labels, np.ndarray)
        self.labels = labels if given or labels is None else np.array(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self.notes = tuple(notes)
        digest = hashlib.sha256(repr((str(root), self.classes)).encode())
        each = repeat(0) if self.labels is None else (label.tolist() for label in self.labels)
        for name, label in zip(self.names, each, strict=self.labels is not None):
            # A string, not a Path: of a million files these cost more than to look at the files.
            text = (name, stamp(f"{root}/{name}"), label)
            # A name in an old encoding is not UTF-8: it is refused by name when it is read.
            digest.update(repr(text).encode(errors="backslashreplace"))
        for file in truth:
            digest.update(repr((str(file), stamp(file))).encode(errors="backslashreplace"))
        self.fingerprint = digest.hexdigest()

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one file, turned upright as its EXIF says if `turn`; see Split.load."""
        return load_square(self.root / self.names[index], size, smallest, turn=self.turn)

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Decode one file, turned upright as its EXIF says if `turn`; see Split.whole."""
        return load_whole(self.root / self.names[index], turn=self.turn)


def names_of(files: Iterable[Path], root: Path) -> list[str]:
    """The paths of files relative to a root that they lie below."""
    return [file.relative_to(root).as_posix() for file in files]
