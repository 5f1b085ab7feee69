"""What lies in a folder or a file, as specifications that open it, and which layouts come near.

`bench data guess PATH` tries every layout that PATH has a sign of; what opens is proposed, of the
others it says what is missing. docs/layouts.md has a tree for each.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ssl_bench import catalogue
from ssl_bench.data.coco.find import json_files, looks_like_coco, panoptic_files
from ssl_bench.data.dataset import Dataset
from ssl_bench.data.labelme.files import looks_like_labelme
from ssl_bench.data.layout import IMAGES, TRUTH, split_in, split_of
from ssl_bench.data.masks.dataset import BEHIND, has_masks_beside
from ssl_bench.data.masks.key import FILES
from ssl_bench.data.paths import resolved
from ssl_bench.data.tree import LeftOut, folders_in, head_of, images_below
from ssl_bench.data.voc.files import list_names
from ssl_bench.data.voc.unlisted import XML
from ssl_bench.data.yolo import NAMES
from ssl_bench.errors import BenchError, DataError, counted, plain

Signs = dict[str, bool]  # what a layout has, in words, and whether it is there
DRAWN = ",test=0.25"
NO_LABELS = "no labels"
FILES_OF = {".csv": "csv:{}", ".tsv": "csv:{}", ".tar": "wds:{}", ".json": "coco:{parent}",
            ".yaml": "yolo:{parent}", ".yml": "yolo:{parent}", ".arrow": "hf:{parent}",
            ".parquet": "hf:{parent}"}  # fmt: skip


# Tools whose own files are not read: what these have near their beginning.
TOOLS = {"CVAT": (b"<annotations>", b"<image "), "VGG Image Annotator": (b'"shape_attributes"',),
         "Label Studio": (b'"annotations"', b'"result"'), "Supervisely": (b'"classTitle"',),
         "Labelbox": (b'"data_row"',)}  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """A specification: what it has, if it opens, or why it does not."""

    specification: str
    said: tuple[str, ...]
    opens: bool


# ---- signs
def _has(root: Path, *patterns: str) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def _with_splits(root: Path, ending: str) -> bool:
    """Files of that ending in a folder, or in those of its splits, or one level below."""
    return _has(root, f"*{ending}", f"*/*{ending}", f"*/*/*{ending}")


def _cityscapes(root: Path) -> Signs:
    return {"leftImg8bit/": _has(root, "leftImg8bit"), "gtFine/": _has(root, "gtFine")}


def _camvid(root: Path) -> Signs:
    return {"trainannot/": _has(root, "trainannot")}


def _voc(root: Path) -> Signs:
    sets = [root / "ImageSets" / name for name in ("Main", "Segmentation")]
    return {
        "JPEGImages/": _has(root, "JPEGImages"),
        "Annotations/ or SegmentationClass/": _has(root, "Annotations", "SegmentationClass"),
        "lists in ImageSets/": any(list_names(at) for at in sets),
    }


def _unlisted(root: Path) -> Signs:
    below = [root, *(root / name for name in folders_in(root))]
    return {
        f"annotations (.xml) beside the images, or in {', '.join(sorted(XML)[:3])} …": any(
            _has(at, "*.xml", "*/*.xml") for at in below
        )
    }


def _coco(root: Path) -> Signs:
    return {
        "annotations (.json), in it, in annotations/ or in train/": any(
            map(looks_like_coco, json_files(root))
        )
    }


def _panoptic(root: Path) -> str:
    """Options for the panoptic files of a folder where `coco:PATH` takes its instances."""
    if not any("instances" in path.name for path in json_files(root)):
        return ""
    files = {split_in(path, root) or "train": path for path in panoptic_files(root)}
    return "".join(f",{split}={path.relative_to(root)}" for split, path in files.items())


def _yolo(root: Path) -> Signs:
    described = _has(root, "*.yaml", "*.yml") or any((root / name).is_file() for name in NAMES)
    # Darknet has them beside the images.
    return {
        "data.yaml or classes.txt": described,
        "labels/": _has(root, "labels", "*/labels", "*/*.txt"),
    }


def _masks(root: Path) -> Signs:
    inner = [root, *(root / name for name in folders_in(root) if split_of(name))]
    images = any(name.lower() in IMAGES for at in inner for name in folders_in(at))
    masks = any(name.lower() in TRUTH for at in inner for name in folders_in(at))
    names = folders_in(root)
    beside = any(
        split_of(n) and re.fullmatch(f"{re.escape(n)}{BEHIND}", m) for n in names for m in names
    )
    beside = beside or any(map(has_masks_beside, inner))
    return {"images/": images or beside, "masks/": masks or beside}


def _labelme(root: Path) -> Signs:
    found = (path for pattern in ("*.json", "*/*.json") for path in sorted(root.glob(pattern))[:3])
    return {"LabelMe's .json beside the images": any(map(looks_like_labelme, found))}


def _hf(root: Path) -> Signs:
    rows = _with_splits(root, ".arrow") or _with_splits(root, ".parquet")
    return {".arrow, .parquet or metadata.csv": rows or _has(root, "metadata.*", "*/metadata.*")}


def _wds(root: Path) -> Signs:
    return {"shards (.tar)": _has(root, "*.tar", "*/*.tar")}


def _folder(root: Path) -> Signs:
    return {"images": bool(images_below(root, LeftOut()))}


LAYOUTS: list[tuple[str, Callable[[Path], Signs]]] = [
    ("cityscapes", _cityscapes), ("camvid", _camvid), ("voc", _voc), ("voc", _unlisted),
    ("coco", _coco), ("labelme", _labelme), ("yolo", _yolo), ("hf", _hf), ("wds", _wds),
    ("masks", _masks), ("folder", _folder),
]  # fmt: skip


# ---- what they come to
def guesses(path: Path) -> list[Guess]:
    """What opens, labels first, most special first; then what is near, and what it is missing."""
    found = list(_of_file(path) if path.is_file() else _of_folder(path))
    return sorted(found, key=lambda guess: (not guess.opens, NO_LABELS in str(guess.said)))


def _of_file(path: Path) -> Iterator[Guess]:
    """The set that a file belongs to: its folder's, or that of the folder above, as COCO's."""
    if form := FILES_OF.get(path.suffix.lower()):
        given = form.format(path, parent=path.parent)
        own = _table(path) if given.startswith("csv:") else _tried(given)
        above = None if own.opens else _tried(form.format(path, parent=path.parent.parent))
        yield above if above and above.opens else own


def _of_folder(root: Path) -> Iterator[Guess]:
    seen = set[str]()
    for name, signs_of in LAYOUTS:
        signs = signs_of(root)
        there = [what for what, is_there in signs.items() if is_there]
        missing = [what for what, is_there in signs.items() if not is_there]
        if not there or name in seen:
            continue
        if missing:
            said = f"there is {', '.join(there)}; missing: {', '.join(missing)}"
            yield Guess(f"{name}:{root}", (said,), False)
            continue
        seen.add(name)
        yield _tried(f"{name}:{root}")
        if name == "coco" and (options := _panoptic(root)):
            yield _tried(f"{name}:{root}{options}")
    yield from _of_tables(root)
    yield from _of_tools(root)


def _of_tables(root: Path) -> Iterator[Guess]:
    """Tables in the folder, and those of one name in the folder of each split, with its images."""
    at = {split: root / name for name in folders_in(root) if (split := split_of(name))}
    found = [_table(table) for table in _tables(root)]
    for table in _tables(at.pop("train")) if "train" in at else []:
        others = {split: folder / table.name for split, folder in at.items()}
        said = [f",{s}=../{o.parent.name}/{o.name}" for s, o in others.items() if o.is_file()]
        found += [_tried(f"csv:{table}{''.join(said)}")] if said else []
    # A palette or a class list is a table, too, and no set.
    lists = tuple(f"/{name}" for name in FILES)
    return (g for g in found if g.opens or not g.specification.partition(",")[0].endswith(lists))


def _tables(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.csv")) if path.name != "metadata.csv"][:5]


def _of_tools(root: Path) -> Iterator[Guess]:
    """What to ask of a label tool whose own file lies there."""
    files = [path for kind in ("*.xml", "*.json", "*.ndjson") for path in sorted(root.glob(kind))]
    for path in files[:10]:
        head = head_of(path)
        tool = next((name for name, has in TOOLS.items() if all(one in head for one in has)), "")
        if tool:
            said = f"{path.name} is {tool}'s own: export from it in COCO's format, or in YOLO's"
            yield Guess(f"coco:{root}", (said,), False)


def _table(path: Path) -> Guess:
    """As it is, or with the folder beside it that has its images."""
    ways = ["", *(f",images={name}" for name in folders_in(path.parent)[:20])]
    found = [_tried(f"csv:{path}{way}") for way in ways]
    return next((guess for guess in found if guess.opens), found[0])


def _tried(specification: str) -> Guess:
    """Opened, with a drawn test set where it has none of its own and can have one."""
    try:
        dataset = catalogue.dataset(specification)
        lines = _counts(dataset)
    except BenchError as error:
        return Guess(specification, tuple(str(error).splitlines()[:2]), False)
    if "test" not in dataset.splits:
        try:
            drawn = catalogue.dataset(specification + DRAWN)
            classes = {name.lower() for name in drawn.split("train", drawn.tasks[0]).classes}
            # Folders of one class, or of images/, are no classes: a folder of photographs.
            if not (classes & IMAGES or (specification.startswith("folder:") and len(classes) < 2)):
                return Guess(specification + DRAWN, _counts(drawn), True)
        except BenchError:
            pass
        lines = (*lines, "nothing to test on: for pretraining")
    return Guess(specification, lines, True)


def _counts(dataset: Dataset) -> tuple[str, ...]:
    """A line for each task: images of each split, and how many classes."""
    lines = []
    for task in dataset.tasks:
        splits = {name: dataset.split(name, task) for name in dataset.splits}
        counts = ", ".join(f"{name} {len(split.names):,}" for name, split in splits.items())
        train = splits["train"]
        count = len(train.classes)
        classes = counted(count, "class") if count else NO_LABELS
        lines.append(f"{task}: {counts}; {classes}")
    return tuple(lines)


# ---- for the command line
def proposals(text: str) -> list[str]:
    """Lines for `bench data guess`; DataError where nothing opens, with what comes near."""
    path = resolved(text)
    if not path.exists():
        raise DataError(f"{plain(path)} is not there: give a folder or a file")
    found = guesses(path)
    lines = [line for guess in found for line in _shown(guess)]
    if not any(guess.opens for guess in found):
        near = "; ".join(
            f"{guess.specification.partition(':')[0]}: {guess.said[0]}" for guess in found
        )
        raise DataError(
            f"no layout opens {plain(path)} ({near or 'no sign of any'}): docs/layouts.md has a "
            "tree for each"
        )
    return lines


def _shown(guess: Guess) -> list[str]:
    if guess.opens:
        return [guess.specification, *(f"  {line}" for line in guess.said)]
    return [f"near: {guess.specification}", *(f"  {line}" for line in guess.said)]


def nearby(specification: str) -> list[str]:
    """What else what is asked for could be: lines for `bench data check` that cannot open it."""
    name, _, rest = specification.partition(":")
    text = rest.partition(",")[0] if name in catalogue.names("data") else specification
    try:
        path = resolved(text)
        if not text or not path.exists():
            return []
        found = [
            one for one in guesses(path) if one.specification.partition(",")[0] != specification
        ]
    except BenchError:
        return []
    return [line for guess in found for line in _shown(guess)]
