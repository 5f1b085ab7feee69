"""What is decoded once and kept: a folder in the cache that appears whole or not at all.

The cache is `$SSL_BENCH_CACHE`, else `~/.cache/ssl-bench`. A folder there holds `index.json`,
written last, and beside it files of pixels and, a file for each, the columns of the index: names,
digests, labels. These are mapped into memory, so that a million of them cost nothing to open.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter
from torch import Tensor

from ssl_bench.data.dataset import one_label_each, targets_of
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.paths import own_folder
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import DataError
from ssl_bench.progress import waiting
from ssl_bench.workers import WorkerDied

Triple = tuple[float, float, float]


def _strings(value: Any) -> StringArray:
    """Also of a list, as stores had them in index.json before they had columns."""
    if isinstance(value, StringArray):
        return value
    return StringArray.of(TypeAdapter(list[str]).validate_python(value))


def _labels(value: Any) -> np.ndarray:
    labels = np.asarray(value)
    if labels.size and labels.dtype.kind != "i":
        raise ValueError("labels are whole numbers")
    return labels.astype(np.int8 if labels.ndim == 2 else np.int64, copy=False)


Strings = Annotated[StringArray, BeforeValidator(_strings), PlainSerializer(list)]
Labels = Annotated[np.ndarray, BeforeValidator(_labels), PlainSerializer(np.ndarray.tolist)]


class StoredIndex(BaseModel):
    """What every store says of its images. `digest` covers names, labels, classes and contents.

    `labels` are int64 (N,), or int8 (N, C) where images have several. `notes` are lines on how a
    folder was understood, what was left out, and what was enlarged; `metric` is what the set is
    reported by.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    classes: tuple[str, ...]
    names: Strings
    labels: Labels | None
    digests: Strings
    skipped: list[str]
    notes: list[str] = []
    metric: str = "top1"
    mean: Triple
    std: Triple
    digest: str

    def file_sizes(self) -> dict[str, int]:
        """The files that stand beside the index, and their sizes in bytes."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        # pydantic's own asks arrays whether they are true.
        return isinstance(other, StoredIndex) and self.model_dump() == other.model_dump()


Model = TypeVar("Model", bound=StoredIndex)


@dataclass(frozen=True)
class Stored:
    """Decoded images of one split in a folder, with the labels that its index has."""

    folder: Path
    index: StoredIndex

    def __len__(self) -> int:
        return len(self.index.names)

    @property
    def annotations(self) -> np.ndarray:
        """int64 (N,), or int8 (N, C) where images have several labels. DataError without any."""
        if self.index.labels is None:
            raise DataError(
                "these images have no labels: an evaluation needs train/<class>/…, or what says "
                "the labels in other layouts (docs/layouts.md)"
            )
        return np.array(_labels(self.index.labels))

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,). Raises DataError where the images have none, or several each."""
        return one_label_each(self.annotations)

    @property
    def targets(self) -> np.ndarray:
        """int8 (N, C): 1 for a class that is there, 0 for one that is not, −1 not to be judged."""
        return targets_of(self.annotations, len(self.index.classes))

    @property
    def normalization(self) -> Normalization:
        """Mean and standard deviation of these very pixels, per channel, in [0, 1]."""
        return Normalization(mean=self.index.mean, std=self.index.std)

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, H, W), a copy."""
        raise NotImplementedError

    def batch(self, which: slice | np.ndarray) -> dict[str, Tensor]:
        """What a training step is given: `images`, and by other names what goes with them."""
        return {"images": self.images(which)}

    def mapped(self, name: str) -> np.ndarray:
        """The bytes of a file beside the index, read-only, through a new map."""
        return np.memmap(self.folder / name, np.uint8, mode="r")

    def will_need(self, name: str, starts: np.ndarray, sizes: np.ndarray) -> None:
        """Have the system read these parts of a file all at once, if they are not in memory.

        Read one after another, as a map's pages are, random images of a set that does not fit into
        memory take a disk four times as long.
        """
        if not hasattr(os, "posix_fadvise"):  # macOS
            return
        with open(self.folder / name, "rb") as file:
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)

    def __getstate__(self) -> dict[str, object]:
        # Without cached maps: pickled, they would be all pixels. Each process maps the files.
        return {"folder": self.folder, "index": self.index}


def cache_folder() -> Path:
    """Where decoded images are kept."""
    return own_folder("SSL_BENCH_CACHE", "ssl-bench")


def cache_key(*parts: object) -> str:
    """20 hexadecimal digits that change with any of the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def fill_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write the files of `folder`, unless they are there.

    However many processes ask, one of them does it and the others wait. Raises DataError where
    the cache cannot be written to, and whatever `fill` raises; then nothing is left behind. What
    an interrupted process, or one whose workers were killed, leaves is there for the next `fill`.
    """
    if (folder / "index.json").exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The lock file stays: who removed it could let a third process lock another of its name.
        with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
            with waiting(f"waiting for another process, which decodes {folder.name}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Looked at again: who held the lock may have filled the folder meanwhile.
            if not (folder / "index.json").exists():
                _fill_beside(folder, fill)
    except OSError as error:
        raise DataError(
            f"cannot write decoded images to {folder}: {error.strerror}; make room, or let "
            "SSL_BENCH_CACHE name another folder"
        ) from error


def _fill_beside(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write beside the final place, then rename: that is the commit, as it happens or does not."""
    scratch = folder.with_name(f".{folder.name}.decoding")
    scratch.mkdir(exist_ok=True)
    try:
        fill(scratch)
        scratch.rename(folder)
    except WorkerDied:
        raise
    except Exception:  # Ctrl-C is none
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def write_index(folder: Path, index: StoredIndex) -> None:
    """Write the columns of an index as files of their own, and the rest as index.json."""
    columns = {name: v for name, v in index if isinstance(v, StringArray | np.ndarray)}
    for name, column in columns.items():
        if isinstance(column, StringArray):
            np.save(folder / f"{name}-ends.npy", column.ends)
            column = column.text
        np.save(folder / f"{name}.npy", column)
    (folder / "index.json").write_text(index.model_dump_json(exclude=set(columns)))


def _columns(folder: Path, model: type[StoredIndex]) -> dict[str, StringArray | np.ndarray]:
    found: dict[str, StringArray | np.ndarray] = {}
    for name in model.model_fields:
        path, ends = folder / f"{name}.npy", folder / f"{name}-ends.npy"
        if path.exists():  # else it is in index.json, as in stores of before
            column = _mapped(path)
            found[name] = StringArray(column, _mapped(ends)) if ends.exists() else column
    return found


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: remove that folder") from error


def read_index(folder: Path, model: type[Model]) -> Model:
    """The index of a folder, and a check that its files have the sizes that the index says.

    Raises DataError for a damaged folder.
    """
    try:
        rest = TypeAdapter(dict[str, Any]).validate_json((folder / "index.json").read_bytes())
        index = model.model_validate(rest | _columns(folder, model))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}/index.json is damaged: remove that folder") from error
    # The sizes only: to read a hundred gigabytes for a checksum would cost what decoding costs.
    for name, size in index.file_sizes().items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(f"{path} is damaged: remove that folder")
    return index
