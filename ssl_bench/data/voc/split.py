"""The images of one list of PASCAL VOC, with the truth that a task takes."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import VOID, Objects, Split, Task
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.images import load_square, load_whole, read_image
from ssl_bench.data.paths import stamp
from ssl_bench.data.voc.files import CLASSES, boxes_of, compare, labels_of, read_list, read_objects
from ssl_bench.data.voc.masks import MOST, read_class_mask
from ssl_bench.errors import DataError

# Suffixes that a photo may have, the official one first.
PHOTOS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
# Where the truth of an image lies, and its files' suffix.
TRUTH: dict[Task, tuple[str, str]] = {
    "classification": ("Annotations", ".xml"),
    "detection": ("Annotations", ".xml"),
    "segmentation": ("SegmentationClass", ".png"),
}


@dataclass(frozen=True)
class VOCImage:
    """An image's files: `truth` is its annotation or its mask, `listed` the list that names it."""

    name: str
    photo: Path
    truth: Path
    listed: Path

    def present(self, path: Path) -> Path:
        """The photo's or the truth's path; DataError if there is no such file."""
        try:
            path.stat()
        except OSError as error:
            # VOC2012's test images, where somebody added them, have no annotations.
            annotated = "annotated lists (train=train,test=val)"
            other = annotated if path.suffix == ".xml" else "another list"
            raise DataError(
                f"{path} is missing ({error.strerror}), though {self.listed.name} lists "
                f"{self.name}: unpack it, take it off the list, or name {other}"
            ) from error
        return path


class VOCSplit(Split):
    """Images with their annotations or masks; int8 labels (N, C) once they are read."""

    def __init__(
        self, root: Path, images: Sequence[VOCImage], classes: tuple[str, ...] = CLASSES
    ) -> None:
        self.files = images
        self.names = [image.name for image in images]
        self.classes = classes
        self.labels = None
        digest = hashlib.sha256(repr((str(root), classes)).encode(errors="backslashreplace"))
        for image in images:
            stamps = stamp(image.photo), stamp(image.truth)
            digest.update(repr((image.name, stamps)).encode())
        self.fingerprint = digest.hexdigest()

    def read_labels(self, listed: Path) -> None:
        """Set `labels` by the annotations, and compare them with the class files of the list.

        Raises DataError with the faults of all files.
        """
        labels, faults = [], []
        for image in self.files:
            with collecting_faults(faults):
                image.present(image.photo)
            with collecting_faults(faults):
                found = read_objects(image.present(image.truth), self.classes)
                labels.append(labels_of(found, self.classes))
        refuse(faults, str(listed))
        self.labels = np.stack(labels)
        compare(listed, self.names, self.labels, self.classes)

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Decode one file; see Split.load. EXIF turns nothing: boxes are in the file's pixels."""
        return load_square(self.files[index].photo, size, smallest)

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Decode one file; see Split.whole."""
        image = self.files[index]
        return load_whole(image.present(image.photo))

    def objects(self, index: int) -> Objects:
        """What the annotation says; see Split.objects."""
        image = self.files[index]
        if image.truth.suffix != ".xml":
            return super().objects(index)
        found = read_objects(image.present(image.truth), self.classes)
        return boxes_of(image.truth, found, *_size(image), self.classes)

    def mask(self, index: int) -> np.ndarray:
        """The mask's indices; see Split.mask."""
        image = self.files[index]
        if image.truth.suffix == ".xml":
            return super().mask(index)
        path = image.present(image.truth)
        return read_class_mask(path, *_size(image), len(self.classes))


def indices_of(images: Sequence[VOCImage]) -> set[int]:
    """The classes' indices in those of the masks that can be read: without 0 and void."""
    found = set[int]()
    for image in images:
        with suppress(DataError):  # said when the mask is read
            mask = read_class_mask(image.present(image.truth), *_size(image), MOST)
            found.update(np.unique(mask).tolist())
    return found - {0, VOID}


def _size(image: VOCImage) -> tuple[int, int]:
    """Height and width, from the photo's header: pixels decide, not an annotation's <size>."""
    photo = image.present(image.photo)
    return read_image(photo, lambda opened: (opened.height, opened.width))[0]


def listed_images(root: Path, path: Path, task: Task) -> list[VOCImage]:
    """The images of the list at `path`, with what the task takes."""
    photos, (folder, suffix) = root / "JPEGImages", TRUTH[task]
    return [
        VOCImage(name, photo_called(photos / name), root / folder / f"{name}{suffix}", path)
        for name in read_list(path)
    ]


def photo_called(name: Path) -> Path:
    """The image file of this name without a suffix; the official one where there is none."""
    # Not with_suffix: the name may have a point of its own.
    paths = [name.with_name(name.name + suffix) for suffix in PHOTOS]
    return next((path for path in paths if path.is_file()), paths[0])
