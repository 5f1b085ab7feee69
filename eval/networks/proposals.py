"""Selective search: boxes that may hold an object, computed once per split and kept in the cache.

The fast mode of Uijlings et al. (IJCV 104, 2013) by OpenCV's contributed module, which the network
does not learn. It looks at each stored image with its long side reduced to 500 px, the size of
VOC's photographs: the scale of its segments is in pixels, and the boxes of the Fast R-CNN paper
were found on those. All boxes are kept, each once, in sorted order: OpenCV's own order is random.

A split's boxes are one file beside the decoded images, named after the images' contents, their
stored sizes, these settings and OpenCV's version. Until all are found, they stand in files of BLOCK
images that a killed process leaves behind and the next one continues.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_bench.data.store.cache import cache_folder
from ssl_bench.data.store.whole import WholeStore
from ssl_bench.errors import DataError, counted, extra
from ssl_bench.files import written_at_once
from ssl_bench.progress import progress, say, waiting
from ssl_bench.workers import read_ahead

with extra("detect"):
    import cv2

LAYOUT = 1  # raised when the file's layout or the search changes
LONGEST = 500  # px of the image that is searched; a smaller one is searched as it is
BLOCK = 8  # images that are searched, and written, at a time: 3 s of one core


@dataclass(frozen=True)
class Proposals:
    """The boxes of all images of a store, in its order: float32 (n, 4) each, in stored pixels.

    A box is x0, y0, x1, y1 from 0, right and bottom exclusive. `boxes` is (T, 4), and `ends`
    int64 (N,) says where each image's end in it.
    """

    boxes: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, image: int) -> np.ndarray:
        return self.boxes[self.ends[image - 1] if image else 0 : self.ends[image]]


@dataclass(frozen=True)
class Searched:
    """A store of whole images with the boxes found on them; None if a network is to propose them.

    So what is known of an image comes from one place, for training images and for test images.
    """

    store: WholeStore
    proposals: Proposals | None

    def __len__(self) -> int:
        return len(self.store)

    def images(self, which: slice | np.ndarray) -> Tensor:
        """As the store's."""
        return self.store.images(which)

    def batch(self, which: slice | np.ndarray) -> dict[str, Tensor]:
        """As the store's."""
        return self.store.batch(which)


def selective_search(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (h, w, 3) -> float32 (n, 4), sorted, each box once; at least one.

    Boxes are in pixels of `image`, whatever size it is searched at.
    """
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    seen = image
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        seen = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    search = _contributed().createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(seen[..., ::-1]))  # OpenCV's colours are BGR
    search.switchToSelectiveSearchFast()
    found = np.unique(search.process(), axis=0).astype(np.float32)  # x, y, width, height
    found[:, 2:] += found[:, :2]
    found *= np.array([width / seen.shape[1], height / seen.shape[0]] * 2, np.float32)
    return found


def _contributed() -> Any:
    try:
        return cv2.ximgproc.segmentation
    except AttributeError as error:
        raise DataError(
            "this OpenCV has no selective search: install opencv-contrib-python-headless and no "
            "other opencv package, or take --proposals rpn"
        ) from error


def open_proposals(store: Any, title: str, workers: int = 2) -> Proposals:
    """The boxes of a WholeStore's images, from the cache or searched now by `workers` processes.

    They are the same by any number of them; 0: by this process. Raises DataError for a damaged
    cache and for one that cannot be written, WorkerDied for a process that was killed.
    """
    path = proposals_path(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        with waiting(f"waiting for another process's selective search, {title}"):
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then finds the file
        if not path.exists():
            _fill(path, store, title, workers)
    return _read(path, len(store))


def proposals_path(store: Any) -> Path:
    """Where the boxes of these images at these sizes are kept."""
    digest = hashlib.sha256(repr((LAYOUT, cv2.__version__, LONGEST)).encode())
    digest.update("".join(store.index.digests).encode())
    digest.update(np.ascontiguousarray(store.sizes, dtype="<i8").tobytes())
    return cache_folder() / f"selective-search-{digest.hexdigest()[:20]}.npz"


def _fill(path: Path, store: Any, title: str, workers: int) -> None:
    """Search what a killed process left over, then put the whole file in its place at once."""
    parts = path.with_name(f".{path.name}.parts")
    try:
        parts.mkdir(exist_ok=True)
        starts = range(0, len(store), BLOCK)
        blocks = [range(start, min(start + BLOCK, len(store))) for start in starts]
        missing = [block for block in blocks if _boxes(parts, block) is None]
        done = len(store) - sum(map(len, missing))
        if done:
            say(f"selective search, {title}: continuing after {counted(done, 'image')}")
        # Images share the cores. Threads of OpenCV's own would not outlive the fork of a worker.
        cv2.setNumThreads(1)
        searched = read_ahead(partial(_search, store, parts), missing, min(workers, len(missing)))
        images = chain.from_iterable(searched)
        for _ in progress(images, f"selective search, {title}", len(store), done):
            pass
        found = [boxes for block in blocks for boxes in _boxes(parts, block) or ()]
    except OSError as error:
        raise DataError(
            f"cannot write proposals to {parts}: {error.strerror}; make room, or let "
            "SSL_BENCH_CACHE name another folder"
        ) from error
    with written_at_once(path) as scratch:
        _save(scratch, found)
    shutil.rmtree(parts)


def _search(store: Any, parts: Path, block: range) -> range:
    """Boxes of these images in a file of their own, written by who found them: none waits."""
    found = []
    for image in block:
        height, width = store.sizes[image].tolist()
        pixels = store.images(np.array([image]))[0, :, :height, :width]
        found.append(selective_search(pixels.permute(1, 2, 0).numpy()))
    # Workers hold the lock, too, even when the process that started them was killed.
    scratch = parts / f"{block.start}.writing"
    _save(scratch, found)
    scratch.replace(parts / f"{block.start}.npz")
    return block


def _save(path: Path, found: Sequence[np.ndarray]) -> None:
    boxes, ends = np.concatenate(found), np.cumsum([len(boxes) for boxes in found])
    with open(path, "wb") as file:  # savez would give a path without it the ending .npz
        np.savez(file, boxes=boxes.astype("<f4"), ends=ends.astype(np.int64))


def _boxes(parts: Path, block: range) -> list[np.ndarray] | None:
    """Those of a block, image by image; None if it is not whole: it is searched again then."""
    try:
        found = _read(parts / f"{block.start}.npz", len(block))
    except DataError:
        return None
    return [found[i] for i in range(len(found))]


def _read(path: Path, images: int) -> Proposals:
    try:
        with open(path, "rb") as file, np.load(file) as arrays:  # its checksums tell damage
            found = Proposals(arrays["boxes"], arrays["ends"])
        fits = len(found) == images and found.boxes.shape == (found.ends[-1], 4)
    except Exception as error:  # whatever NumPy meets
        raise _damaged(path) from error
    if not fits:
        raise _damaged(path)
    return found


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: remove it, and the boxes are searched anew")
