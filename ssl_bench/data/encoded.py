"""Images that lie encoded in larger files: rows of Arrow and Parquet files, members of tars."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import Split
from ssl_bench.data.images import decode, squared, whole_pixels
from ssl_bench.data.paths import stamp


class EncodedImages(Split):
    """Images as bytes that `read` gives by their place; the digest is of these bytes.

    `files` are what they lie in: the fingerprint changes with them and with the labels.
    """

    def __init__(
        self,
        names: Sequence[str],
        read: Callable[[int], bytes],
        labels: np.ndarray | None,
        classes: tuple[str, ...],
        notes: Sequence[str],
        files: Sequence[Path],
    ) -> None:
        self.names, self.read, self.labels, self.classes = names, read, labels, classes
        self.notes = tuple(notes)
        stamps = [(str(file), stamp(file)) for file in files]
        digest = hashlib.sha256(repr((list(names), classes, stamps)).encode())
        digest.update(b"" if labels is None else labels.tobytes())
        self.fingerprint = digest.hexdigest()

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one image, turned upright as its EXIF says; see Split.load."""
        name = self.names[index]
        return decode(self.read(index), name, squared(name, size, smallest, turn=True))

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Decode one image, turned upright as its EXIF says; see Split.whole."""
        return decode(
            self.read(index), self.names[index], lambda image: whole_pixels(image, turn=True)
        )
