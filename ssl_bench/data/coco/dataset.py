"""`coco:PATH`: boxes, masks and labels in COCO's JSON files: COCO itself, and what tools export.

PATH/annotations/instances_train2017.json, instances_val2017.json     and  train2017/, val2017/
PATH/annotations/<any name with train, val or test>.json              and  images/, images/train/ …
PATH/train/_annotations.coco.json, valid/…                            images beside (Roboflow)
PATH/<only one>.json        as  coco:PATH,test=0.25                   a test set is drawn
PATH/annotations/panoptic_train2017.json, panoptic_train2017/*.png …  where there are no instances

`train=FILE`, `val=FILE` and `test=FILE` name the files, relative to PATH, `images=FOLDER` where the
images are. Classes are the categories of train, in the order of their ids.
"""

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ssl_bench.data.boxes import clipped
from ssl_bench.data.coco.files import CocoFile, CocoImage, class_mask, load, read_objects
from ssl_bench.data.coco.find import find_files
from ssl_bench.data.coco.panoptic import (
    has_segments,
    read_segments,
    segment_files,
    segment_folder,
    segment_mask,
)
from ssl_bench.data.dataset import VOID, Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.images import exchanged, read_image
from ssl_bench.data.labelled import checked_draw, no_test, targets, with_test
from ssl_bench.data.layout import split_in, split_of
from ssl_bench.data.lists import lists_of
from ssl_bench.data.paths import asked_folder, inside, stamp
from ssl_bench.data.tree import folders_in
from ssl_bench.errors import DataError, plain

USE = "coco:PATH[,train=FILE][,val=FILE][,test=FILE or SHARE][,images=FOLDER]"
KNOWN = ("train", "val", *OPTIONS, "images")


class CocoSplit(ImageFiles):
    """Images with their annotations. EXIF turns nothing: boxes are in the file's pixels."""

    turn = False

    def __init__(
        self,
        base: Path,
        images: Sequence[CocoImage],
        classes: tuple[str, ...],
        notes: Sequence[str],
        source: Path,
        crowds: bool,
        segments: Sequence[Path] = (),
    ) -> None:
        """Raises Faults with all names that lead out of `base`.

        `segments` are the PNGs of panoptic annotations, for segmentation.
        """
        files: list[Path] = []
        faults: list[str] = []
        for image in images:
            with collecting_faults(faults):
                files.append(inside(base, image.name, base))
        refuse(faults, str(source))
        labels = targets([tuple(image.categories) for image in images], classes)
        truth = [source, *segments]
        super().__init__(base, names_of(files, base), labels, classes, notes, truth)
        self.images, self.crowds, self.segments = images, crowds, segments

    def objects(self, index: int) -> Objects:
        """The boxes; crowds are difficult where they are kept, as COCO judges them: not at all."""
        image = self.images[index]
        self._check_size(index)
        found = [one for one in image.objects if self.crowds or not one.crowd]
        boxes = np.array([one.box for one in found], np.float64).reshape(-1, 4)
        inside_image, wrong = clipped(boxes, image.size[1], image.size[0])
        faults = [
            f"{plain(image.name)} has the annotation {plain(one.number)[:40]} with the box "
            f"{', '.join(f'{edge:g}' for edge in one.box)}, which lies outside its image of "
            f"{image.size[1]}×{image.size[0]} px: correct it"
            for one, is_wrong in zip(found, wrong, strict=True)
            if is_wrong
        ]
        refuse(faults, image.name)
        labels = [self.classes.index(one.name) for one in found]
        return Objects.of(inside_image, labels, [one.crowd for one in found])

    def mask(self, index: int) -> np.ndarray:
        """Things as classes, of panoptic annotations stuff, too; see class_mask, segment_mask."""
        self._check_size(index)
        image = self.images[index]
        if image.segments is not None:
            return segment_mask(self.segments[index], image.segments, image.size, self.classes)
        return class_mask(image, self.classes)

    def _check_size(self, index: int) -> None:
        path, said = self.root / self.names[index], self.images[index].size
        size, _ = read_image(path, lambda opened: (opened.height, opened.width))
        if size != said:
            raise DataError(
                f"{path} is {size[1]}×{size[0]} px, but its annotation file says "
                f"{said[1]}×{said[0]}: put the image's own file there, or correct the size"
                f"{exchanged(size, said)}"
            )


class CocoDataset(Dataset):
    """Files of annotations in COCO's format, one a split, or one to draw a test set from."""

    def __init__(self, argument: str) -> None:
        self.root, options, self.name = asked_folder("coco", argument, KNOWN, USE)
        self.where, self.given = str(self.root), options.get("images")
        named = {
            split: options[split]
            for split in ("train", "val", "test")
            if split in options and (split != "test" or (self.root / options[split]).is_file())
        }
        self.files = with_test(lists_of(self.root, named) or find_files(self.root))
        self.draw = None if "test" in named else Draw.of(options)
        if "train" not in self.files:
            raise DataError(f"{self.root} has no file to train on: name it, coco:PATH,train=FILE")
        checked_draw(self.draw, self.files, self.name)
        self.splits = tuple(self.files) if self.draw is None else ("train", "test")
        # By the smaller file: whether there are masks is the same in all.
        smallest = read_coco(min(self.files.values(), key=lambda path: path.stat().st_size))
        self.panoptic = smallest.panoptic
        boxes = () if self.panoptic else ("detection",)
        masks = ("segmentation",) if smallest.has_masks and len(smallest.classes) < VOID else ()
        self.tasks = ("classification", *boxes, *masks)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Those of train."""
        return read_coco(self.files["train"]).classes

    def check_task(self, task: Task) -> None:
        """As Dataset; says where the boxes of a set with panoptic annotations are."""
        if task == "detection" and self.panoptic:
            raise DataError(
                f"{self.name} has panoptic annotations, which are for {' and '.join(self.tasks)}: "
                "COCO's boxes are in its instances files, coco:PATH,train=FILE,val=FILE"
            )
        super().check_task(task)

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split, with all that the file says of them.

        Of train a crowd's box is left out, as every trainer on COCO does. Raises Faults for a file
        with entries that cannot be used.
        """
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "coco")
        self.check_split(name)
        path = self.files["train" if self.draw else name]
        source = read_coco(path)
        images, notes = self._images(source, name, task)
        base = self._base(path, images, name)
        segments = segment_files(path, images) if task == "segmentation" else []
        return CocoSplit(base, images, self.classes, notes, path, name != "train", segments)

    def _images(
        self, source: CocoFile, name: SplitName, task: Task
    ) -> tuple[list[CocoImage], list[str]]:
        """Those of a split, and what there is to say of them."""
        if source.panoptic != self.panoptic:
            raise DataError(
                f"{source.path} and another file of {self.name} are of two kinds, panoptic and "
                "instances: name files of one kind"
            )
        strange = {name for image in source.images for name in image.categories}
        if strange := strange - set(self.classes):
            raise DataError(
                f"{source.path} has the category '{plain(min(strange))}', which "
                f"{self.files['train'].name} lacks: correct it"
            )
        notes = [f"{name} is {source.path.relative_to(self.root)}"]
        if source.empty:
            notes.append(f"left out: {source.empty:,} × box without width or height")
        if source.unannotated:
            notes.append(f"left out: {source.unannotated:,} × image without an annotation")
        crowds = sum(one.crowd for image in source.images for one in image.objects)
        if crowds and name == "train" and task == "detection":
            notes.append(f"left out of the boxes: {crowds:,} × crowd")
        if self.draw is None:
            return source.images, notes
        images = self.draw.divided(source.images, lambda image: image.name, lambda _: "")[name]
        total = len(source.images)
        return images, [*notes, self.draw.note(name, len(images), total, "all images")]

    def _base(self, path: Path, images: Sequence[CocoImage], name: SplitName) -> Path:
        """The first folder that has one of the first images; DataError if none does."""
        places = self._places(path, name)
        masks = segment_folder(path, images)
        for at in places:
            for image in images[:20]:
                # A PNG of segments may have its photograph's own name: it is not that photograph.
                is_mask = image.segments and at == masks and image.name == image.segments.file
                names = {image.name, image.name.replace("\\", "/")}  # or Windows' separators
                if any(os.path.isfile(at / one) for one in names) and not is_mask:
                    return at
        raise DataError(
            f"{path} names images such as {plain(images[0].name)[:80]}, which are in none of "
            f"{', '.join(map(str, dict.fromkeys(places)))}: say where, as coco:PATH,images=FOLDER"
        )

    def _places(self, path: Path, name: SplitName) -> list[Path]:
        """Folders that a file's images may be in, the likeliest first."""
        if self.given:
            return [self.root / Path(self.given).expanduser()]
        word = split_in(path, self.root) or name
        found = []
        for base in (self.root, self.root / "images"):
            if base.is_dir():
                found += [base / one for one in folders_in(base) if split_of(one) == word]
        below = [at / "images" for at in found]
        # CVAT's instances_default.json has its images in images/default/.
        own = self.root / "images" / path.stem.removeprefix("instances_")
        return [path.parent, *found, *below, own, self.root / "images", self.root]


# ---- reading
def read_coco(path: Path) -> CocoFile:
    """A file of either kind, by what is in it; Faults with all entries that cannot be used."""
    return _read(path, stamp(path))


@lru_cache(maxsize=4)  # COCO's train2017 takes seconds to parse, and is asked for by every task
def _read(path: Path, _: object) -> CocoFile:
    content = load(path)
    return (read_segments if has_segments(content) else read_objects)(path, content)
