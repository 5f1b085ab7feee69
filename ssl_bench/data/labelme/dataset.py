"""`labelme:PATH`: what LabelMe draws on images, in a JSON file beside each, as it lies on disk.

PATH/<image>.jpg, <image>.json         as  labelme:PATH,test=0.25   a test set is drawn
PATH/train/…, PATH/val/…               the same for each split; JSON files may lie in other folders

Polygons, rectangles, circles and masks are objects; shapes of one group and label are one. Lines
and points have no area, and are counted as left out. As in LabelMe's own masks, what is drawn later
covers what is drawn before; `__ignore__` is void, `_background_` background. Where no image has a
shape, the flags that are set are an image's classes. Images without a JSON file are left out.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_bench.data.boxes import clipped
from ssl_bench.data.dataset import VOID, Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.images import read_image, upright_size
from ssl_bench.data.labelled import by_number, checked_draw, label_array, no_test, with_test
from ssl_bench.data.labelme.files import (
    BACKGROUND,
    IGNORED,
    Annotated,
    Shape,
    annotations_below,
    read_annotation,
)
from ssl_bench.data.layout import split_of
from ssl_bench.data.paths import asked_folder
from ssl_bench.data.tree import LeftOut, folders_in, images_below
from ssl_bench.data.voc.masks import MOST
from ssl_bench.errors import DataError, counted, plain
from ssl_bench.progress import waiting

USE = "labelme:PATH[,test=SHARE][,seed=NUMBER]"


class LabelmeSplit(ImageFiles):
    """Images turned upright as EXIF says, as LabelMe shows them and counts their pixels."""

    def __init__(
        self,
        root: Path,
        images: Sequence[Annotated],
        classes: tuple[str, ...],
        notes: Sequence[str],
        labels: np.ndarray | None,
    ) -> None:
        truth = [image.source for image in images]
        files = names_of((image.file for image in images), root)
        super().__init__(root, files, labels, classes, notes, truth)
        self.images = images

    def objects(self, index: int) -> Objects:
        """A box around each group of one label; Faults for those outside their image or empty."""
        image = self.images[index]
        groups: dict[object, list[Shape]] = {}
        for place, shape in enumerate(image.shapes):
            if shape.name in self.classes:
                key = place if shape.group is None else ("group", shape.group, shape.name)
                groups.setdefault(key, []).append(shape)
        around = [_around(shapes) for shapes in groups.values()]
        width, height = read_image(image.file, upright_size)[0]
        boxes, wrong = clipped(np.array(around, np.float64).reshape(-1, 4), width, height)
        refuse(
            [
                f"{image.source} has '{plain(shapes[0].name)}' at "
                f"{', '.join(f'{edge:g}' for edge in box)}, which is empty or lies outside its "
                f"image of {width}×{height} px: correct it"
                for shapes, box, is_wrong in zip(groups.values(), around, wrong, strict=True)
                if is_wrong
            ],
            str(image.source),
        )
        labels = [self.classes.index(shapes[0].name) for shapes in groups.values()]
        return Objects.of(boxes, labels, [False] * len(labels))

    def mask(self, index: int) -> np.ndarray:
        """Shapes in the order in which they were drawn; see Split.mask."""
        image = self.images[index]
        painted = Image.new("L", read_image(image.file, upright_size)[0])
        values = {name: 1 + place for place, name in enumerate(self.classes)}
        for shape in image.shapes:
            shape.paint(painted, (values | {IGNORED: VOID, BACKGROUND: 0})[shape.name])
        return np.asarray(painted)


class LabelmeDataset(Dataset):
    """Images with LabelMe's JSON files, by folders of splits."""

    def __init__(self, argument: str) -> None:
        self.root, options, self.name = asked_folder("labelme", argument, OPTIONS, USE)
        self.where, self.draw = str(self.root), Draw.of(options)
        splits = {split: name for name in folders_in(self.root) if (split := split_of(name))}
        self.folders = with_test({s: self.root / n for s, n in splits.items()})
        if not self.folders:
            self.folders = {"train": self.root}
        if "train" not in self.folders:
            raise DataError(f"{self.root} has {', '.join(self.folders)}, but no train/")
        checked_draw(self.draw, self.folders, self.name)
        self.splits = tuple(self.folders) if self.draw is None else ("train", "test")
        self.by_flags = not any(one.shapes for one in self._read["train"])
        if not self.classes:
            raise DataError(f"{self.root} has no shape and no flag in its JSON files: draw some")
        flags = [image.names(self.by_flags) for images in self._read.values() for image in images]
        self.several = not self.by_flags or any(len(each) != 1 for each in flags)
        boxes = () if self.by_flags else ("detection",)
        masks = () if self.by_flags or len(self.classes) > MOST else ("segmentation",)
        self.tasks = ("classification", *boxes, *masks)

    @cached_property
    def _read(self) -> dict[SplitName, list[Annotated]]:
        """All JSON files, once: classes are what they say. Faults with all that is wrong."""
        faults: list[str] = []
        found: dict[SplitName, list[Annotated]] = {}
        for split, folder in self.folders.items():
            files = annotations_below(folder)
            found[split] = []
            with waiting(f"reading {counted(len(files), 'file')} of LabelMe's", len(files)) as wait:
                for file in files:
                    with collecting_faults(faults):
                        found[split] += read_annotation(file, self.root)
                    wait.done += 1
        refuse(faults, self.name)
        often = Counter(one.file for images in found.values() for one in images)
        if twice := [file for file, count in often.items() if count > 1]:
            raise DataError(f"{twice[0]} has several JSON files: leave one")
        if empty := [split for split, images in found.items() if not images]:
            raise DataError(f"{self.folders[empty[0]]} has no JSON file of LabelMe's: {USE}")
        return found

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names that train has, sorted."""
        return by_number(n for image in self._read["train"] for n in image.names(self.by_flags))

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split that have a JSON file; DataError for a class that train lacks."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "labelme")
        self.check_split(name)
        own: SplitName = "train" if self.draw else name
        images = self._read[own]
        for image in images:
            if strange := {*image.names(self.by_flags)} - {*self.classes}:
                raise DataError(f"{image.source} has '{plain(min(strange))}', which train lacks")
        left = LeftOut(read={image.source.name for image in images})
        annotated = {image.file for image in images}
        for photo in images_below(self.folders[own], left):
            if photo not in annotated:
                left.add("image without a JSON file", photo.name)
        for image in images:
            for _ in range(image.flat):
                left.add("line or point", image.file.name)
        notes = left.notes()
        if self.draw is not None:
            total = len(images)
            images = self.draw.divided(images, self._name, lambda _: "")[name]
            notes.append(self.draw.note(name, len(images), total, "all images"))
        found = [image.names(self.by_flags) for image in images]
        labels = label_array(found, self.classes, self.several)
        return LabelmeSplit(self.root, images, self.classes, notes, labels)

    def _name(self, image: Annotated) -> str:
        return image.file.relative_to(self.root).as_posix()


def _around(shapes: Sequence[Shape]) -> tuple[float, ...]:
    return (
        *np.min([shape.low for shape in shapes], 0).tolist(),
        *np.max([shape.high for shape in shapes], 0).tolist(),
    )
