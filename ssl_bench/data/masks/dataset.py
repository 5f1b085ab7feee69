"""`masks:PATH`: photographs and masks in parallel folders, for segmentation.

PATH/images/train/…, PATH/masks/train/…        and val, test
PATH/train/images/…, PATH/train/masks/…
PATH/train/…, PATH/trainannot/…                (train_labels/, train_masks/ …)
PATH/train/a.jpg, PATH/train/a_mask.png        side by side (Roboflow), or all in PATH
PATH/images/…, PATH/masks/…    as  masks:PATH,test=0.25     a test set is drawn

Masks are indices or colours, as the class list says (key.py). A mask goes by its image's name, or
by that name with _mask, _label, _L … behind it. `images=` and `masks=` name other folders,
`classes=FILE` the class list.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssl_bench.data.dataset import VOID, Dataset, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.faults import SKIP, refuse
from ssl_bench.data.image_files import ImageFiles, names_of
from ssl_bench.data.images import read_image
from ssl_bench.data.labelled import checked_draw, no_test, with_test
from ssl_bench.data.layout import IMAGES, TRUTH, split_of
from ssl_bench.data.masks.key import FILES, Key, key_file, key_of_masks, read_key
from ssl_bench.data.paths import asked_folder
from ssl_bench.data.tree import LeftOut, entries, folders_in, images_below, is_image
from ssl_bench.errors import DataError

USE = "masks:PATH[,test=SHARE][,images=FOLDER][,masks=FOLDER][,classes=FILE]"
KNOWN = (*OPTIONS, "images", "masks", "classes")
# What a mask's folder is called beside the one of its images: trainannot, train_labels, …
BEHIND = r"[-_ ]?(?:masks?|annot|annotations?|labels?|gt|segmentations?)"
# Behind a name, of a mask or of its image; only looked at where the names themselves differ.
ENDS = (r"[-_](?:mask|masks|label|labels|l|p|gt|seg|segmentation|annotation|color|colour|labelids|"
        r"image|img|sat|leftimg8bit|gtfine_labelids|gtfine_labeltrainids)$")  # fmt: skip
ASIDE = r"[-_](?:masks?|labels?|gt|seg|segmentation|annotation)$"  # of a mask beside its image
Pair = tuple[Path, Path]


class MaskSplit(ImageFiles):
    """Images with their masks. EXIF turns nothing: masks are in the file's pixels."""

    turn = False

    def __init__(self, root: Path, pairs: Sequence[Pair], key: Key, notes: Sequence[str]) -> None:
        self.masks, self.key = [mask for _, mask in pairs], key
        names = names_of((image for image, _ in pairs), root)
        super().__init__(root, names, None, key.classes, notes, self.masks)

    def mask(self, index: int) -> np.ndarray:
        """What the key makes of the file; see Split.mask."""
        photo = self.root / self.names[index]
        if not self.masks[index].exists():
            raise DataError(f"{_lacking(photo, self.masks[index].parent)}{SKIP}")
        height, width = read_image(photo, lambda opened: (opened.height, opened.width))[0]
        return self.key.read(self.masks[index], height, width)


class MasksDataset(Dataset):
    """Photographs and masks in folders that go together by their names.

    `folders` are those of images and of masks by split, `given` says what the masks' values mean
    (None: the masks do); only masks whose names end in `ending` count.
    """

    tasks = ("segmentation",)

    def __init__(
        self,
        name: str,
        root: Path,
        folders: Mapping[SplitName, Pair],
        given: Key | None,
        draw: Draw | None = None,
        ending: str = "",
    ) -> None:
        self.name, self.root, self.where, self.draw = name, root, str(root), draw
        self.given, self.ending = given, ending
        self.folders = with_test(folders)
        checked_draw(draw, self.folders, name)
        self.splits = tuple(self.folders) if draw is None else ("train", "test")

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split; Faults with all that have no mask."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "masks")
        self.check_split(name)
        left = LeftOut(read=FILES)
        pairs = paired(*self.folders["train" if self.draw else name], left, self.ending)
        key, note = self._key()
        notes = [*([note] if note else []), *left.notes()]
        if self.draw is not None:
            total = len(pairs)
            pairs = self.draw.divided(pairs, self._name, lambda _: "")[name]
            notes.append(self.draw.note(name, len(pairs), total, "all images"))
        return MaskSplit(self.root, pairs, key, notes)

    def split_for_pretraining(self, name: SplitName) -> Split:
        """The images of the masks."""
        return self.split(name, "segmentation")

    def _key(self) -> tuple[Key, str]:
        """What the class list says; without one, or for two values, what is in all masks."""
        if self.given and (self.given.colours is not None or len(self.given.classes) != 1):
            return self.given, ""
        masks = [
            mask
            for at in self.folders.values()
            for _, mask in paired(*at, LeftOut(), self.ending)
            if mask.exists()
        ]
        found, note = key_of_masks(masks, self.given.classes if self.given else ())
        if self.given and not (len(found.classes) == 1 and self._lacks(found)):
            return self.given, ""
        return found, note

    def _lacks(self, found: Key) -> bool:
        """Whether the list has no line for the one value of the masks, or makes it void."""
        listed = self.given.indices if self.given else {}
        (value,) = (value for value, ours in found.indices.items() if ours == 1)
        return listed.get(value, VOID) == VOID

    def _name(self, pair: Pair) -> str:
        return pair[0].relative_to(self.root).as_posix()


def masks(argument: str) -> MasksDataset:
    """`masks:PATH`; DataError for what is no folder, or has no images and masks."""
    root, options, name = asked_folder("masks", argument, KNOWN, USE)
    folders = find_pairs(root, options.get("images"), options.get("masks"))
    own = key_file(root, folders["train"][0])
    given = root / options["classes"] if "classes" in options else own
    return MasksDataset(name, root, folders, given and read_key(given), Draw.of(options))


# ---- which folders
def find_pairs(
    root: Path, images: str | None = None, masks: str | None = None
) -> dict[SplitName, Pair]:
    """The folder of images and that of masks for each split; DataError where there are none."""
    found = _below(root, images, masks)
    for name in folders_in(root):
        split = split_of(name)
        if split and split not in found:
            if own := _below(root / name, images, masks).get("train"):
                found[split] = own
            elif beside := _beside(root, name):
                found[split] = root / name, beside
            elif has_masks_beside(root / name):
                found[split] = root / name, root / name
    if not found and has_masks_beside(root):
        found["train"] = root, root
    if "train" not in found:
        there = ", ".join(f"{name}/" for name in folders_in(root)[:8]) or "no folder"
        raise DataError(
            f"{root} has {there}, but no images/ and masks/: name the folders, "
            "masks:PATH,images=FOLDER,masks=FOLDER"
        )
    return found


def _below(root: Path, images: str | None, masks: str | None) -> dict[SplitName, Pair]:
    """images/ and masks/ of a folder, by the splits in them, or all as train."""
    names = folders_in(root)
    photo = [n for n in names if n == images or (not images and n.lower() in IMAGES)]
    truth = [n for n in names if n == masks or (not masks and n.lower() in TRUTH)]
    if not photo or not truth:
        return {}
    one, other = root / photo[0], root / truth[0]
    inner = {split_of(n): n for n in folders_in(one)}
    both = {split_of(n): n for n in folders_in(other)}
    found: dict[SplitName, Pair] = {
        s: (one / n, other / both[s]) for s, n in inner.items() if s and s in both
    }
    return found or {"train": (one, other)}


def _beside(root: Path, name: str) -> Path | None:
    """trainannot/ of train/."""
    found = [n for n in folders_in(root) if re.fullmatch(re.escape(name) + BEHIND, n)]
    return root / found[0] if found else None


def has_masks_beside(folder: Path) -> bool:
    """Whether a folder has an image and, under its name with _mask behind it, a mask."""
    names = (entry.name for entry in entries(folder))
    return bool(beside_each([folder / name for name in names if is_image(name)]))


# ---- which files
def paired(images: Path, masks: Path, left: LeftOut, ending: str = "") -> list[Pair]:
    """Each image with its mask; Faults with all images that have several, or where none has any.

    An image without a mask has the place where it should be: a fault once it is read.
    """
    photos = images_below(images, left)
    if images == masks:
        found_of = beside_each(photos)
        truth = [mask for each in found_of.values() for mask in each]
        photos = sorted({*photos} - {*truth})
    else:
        truth = [file for file in images_below(masks, LeftOut()) if file.name.endswith(ending)]
        found_of = _by_name(photos, images, truth, masks)
    pairs: list[Pair] = []
    faults: list[str] = []
    for photo in photos:
        found = found_of.get(photo.with_suffix(""), [])
        if len(found) == 1:
            pairs.append((photo, found[0]))
        elif found:
            faults.append(f"{photo} has {len(found)} masks in {masks}: leave one of its name")
        else:
            end = "_mask.png" if images == masks else ".png"
            pairs.append((photo, masks / f"{photo.relative_to(images).with_suffix('')}{end}"))
    if not photos:
        faults.append(f"{images} has no images")
    elif not {*truth} & {mask for _, mask in pairs}:
        faults += [_lacking(photo, masks) for photo, _ in pairs]
    refuse(faults, str(images))
    if alone := {*truth} - {mask for _, mask in pairs}:
        left.add("mask without an image", min(alone).name)
    return pairs


def _lacking(photo: Path, masks: Path) -> str:
    return f"{photo} has no mask in {masks}: put one of its name there"


def beside_each(files: Sequence[Path]) -> dict[Path, list[Path]]:
    """By an image's path without its suffix, the masks that lie beside it: a_mask.png of a.jpg."""
    found: dict[Path, list[Path]] = {file.with_suffix(""): [] for file in files}
    for file in files:
        if end := re.search(ASIDE, file.stem, re.IGNORECASE):
            of = file.with_name(file.stem[: end.start()])
            if of in found:
                found[of].append(file)
    return {of: masks for of, masks in found.items() if masks}


def _by_name(
    photos: Sequence[Path], images: Path, files: Sequence[Path], masks: Path
) -> dict[Path, list[Path]]:
    """The same of masks in a folder of their own: those of its name, else without both ends."""

    def places(ends: bool) -> Mapping[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for file in files:
            found.setdefault(_key(file.relative_to(masks), ends), []).append(file)
        return found

    exact, ended = places(ends=False), places(ends=True)
    found: dict[Path, list[Path]] = {}
    for photo in photos:
        at = photo.relative_to(images)
        own = exact.get(_key(at, ends=False)) or ended.get(_key(at, ends=True), [])
        found[photo.with_suffix("")] = own
    return found


def _key(place: Path, ends: bool) -> str:
    text = place.with_suffix("").as_posix()
    return re.sub(ENDS, "", text, flags=re.IGNORECASE) if ends else text
