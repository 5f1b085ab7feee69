"""Images in files of their own below one folder: what most layouts come down to."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import Split
from ssl_bench.data.images import load_square, load_whole
from ssl_bench.data.paths import stamp


class ImageFiles(Split):
    """Image files by their path relative to one root.

    `labels` are places in `classes`, or int8 (N, C) for several each. `truth` are the files that
    boxes or masks are read from: the fingerprint changes with them.
    """

    # As cameras mean it; layouts whose boxes or masks are in pixels of the file set it to False.
    turn = True

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Sequence[int] | np.ndarray | None,
        classes: Sequence[str],
        notes: Sequence[str] = (),
        truth: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.names = [file.relative_to(root).as_posix() for file in files]
        several = isinstance(labels, np.ndarray)
        self.labels = labels if several or labels is None else np.array(labels, dtype=np.int64)
        self.classes = tuple(classes)
        self.notes = tuple(notes)
        digest = hashlib.sha256(repr((str(root), self.classes)).encode())
        each = [0] * len(files) if labels is None else labels.tolist() if several else labels
        for name, file, label in zip(self.names, files, each, strict=True):
            text = (name, stamp(file), label)
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
