"""`voc:PATH` of folders without ImageSets: annotations in VOC's XML, as label tools write them.

PATH/<image>.jpg, <image>.xml                 annotations beside the images
PATH/images/…, PATH/annots/…                  or in a folder of their own (Annotations/, xml/ …)
PATH/train/…, PATH/valid/…                    either of these for each split (Roboflow's export)

Without folders for splits, `voc:PATH,test=0.25,seed=1` draws a test set from all images.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw, is_share
from ssl_bench.data.labelled import checked_draw, no_test, with_test
from ssl_bench.data.layout import IMAGES, TRUTH, split_of
from ssl_bench.data.paths import asked_folder, resolved
from ssl_bench.data.tree import LeftOut, entries, folders_in, has_images, is_hidden, is_image
from ssl_bench.data.voc.dataset import VOCDataset, chosen_classes, given_classes
from ssl_bench.data.voc.files import count_names, list_names
from ssl_bench.data.voc.split import VOCImage, VOCSplit, photo_called
from ssl_bench.errors import DataError

USE = "voc:PATH[,test=SHARE][,seed=NUMBER][,classes=A,B,…]"
XML = {"annots", "annot", "xml", "xmls"} | TRUTH
Places = tuple[Path, Path]  # of the images and of their annotations


def voc(argument: str) -> Dataset:
    """A year's folder with its lists, or a folder of images and annotations without any.

    With lists, too, `test=0.25` draws from all annotated images, as where a tool's one list has
    them all (CVAT's default.txt).
    """
    path, *items = re.split(r",(?=\w*=)", argument)
    path = resolved(path)
    listed = any(list_names(path / "ImageSets" / name) for name in ("Main", "Segmentation"))
    listed = listed and not any(i.startswith("test=") and is_share(i[5:]) for i in items)
    if not argument or listed or not path.is_dir() or not find_places(path):
        return VOCDataset(argument)  # which says what is missing
    return UnlistedVOC(argument)


class UnlistedVOC(Dataset):
    """Images and annotations in VOC's XML, without lists."""

    tasks = ("classification", "detection")

    def __init__(self, argument: str) -> None:
        known = (*OPTIONS, "classes")
        self.root, options, self.name = asked_folder("voc", argument, known, USE)
        self.where, self.draw = str(self.root), Draw.of(options)
        self.given = given_classes(options["classes"]) if "classes" in options else ()
        self.places = with_test(find_places(self.root))
        if "train" not in self.places:
            raise DataError(f"{self.root} has annotations, but none to train on: expected train/")
        checked_draw(self.draw, self.places, self.name)
        self.splits = tuple(self.places) if self.draw is None else ("train", "test")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Those given, or VOC's, or the names in all annotations, sorted."""
        images = [one for split in self.places for one in self._images(split, LeftOut())]
        return self.given or chosen_classes(self.name, count_names(one.truth for one in images))

    def split(self, name: SplitName, task: Task = "classification") -> VOCSplit:
        """Images that have an annotation; Faults for those that cannot be read, as in VOC."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "voc")
        self.check_split(name)
        left = LeftOut()
        images = self._images("train" if self.draw else name, left)
        notes = left.notes()
        if self.draw is not None:
            total = len(images)
            images = self.draw.divided(images, lambda image: image.name, lambda _: "")[name]
            notes.append(self.draw.note(name, len(images), total, "all images"))
        split = VOCSplit(self.root, images, self.classes)
        split.notes = tuple(notes)
        if task == "classification":
            split.read_labels(images[0].listed)
        return split

    def _images(self, split: SplitName, left: LeftOut) -> list[VOCImage]:
        """By the annotations; `left` counts images that have none."""
        photos, truth = self.places[split]
        names = [Path(name).stem for name in _names(truth) if _is_xml(name)]
        annotated = set(names)
        for name in _names(photos):
            if is_image(name) and Path(name).stem not in annotated:
                left.add("image without an annotation", name)
        return [
            VOCImage(name, photo_called(photos / name), truth / f"{name}.xml", truth)
            for name in names
        ]


# ---- which folders
def find_places(root: Path) -> Mapping[SplitName, Places]:
    """Where images and annotations are, by split; empty where no annotation is found."""
    if own := _places(root):
        return {"train": own}
    found: dict[SplitName, Places] = {}
    for name in folders_in(root):
        split = split_of(name)
        if split and split not in found and (own := _places(root / name)):
            found[split] = own
    return found


def _places(root: Path) -> Places | None:
    below = folders_in(root)
    truth = [root, *(root / name for name in below if name.lower() in XML)]
    photos = [*(root / name for name in below if name.lower() in IMAGES), root]
    with_xml = [at for at in truth if any(_is_xml(entry.name) for entry in entries(at))]
    if not with_xml:
        return None
    # Beside the annotations first: images/ may hold both.
    beside = [at for at in (with_xml[0], *photos) if has_images(at)]
    return (beside[0], with_xml[0]) if beside else None


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in entries(folder))


def _is_xml(name: str) -> bool:
    return name.endswith(".xml") and not is_hidden(name)
