"""Which JSON files of a folder are COCO's annotations, and of which split."""

import re
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.data.dataset import SplitName
from ssl_bench.data.layout import Layout, split_in, split_of
from ssl_bench.data.tree import head_of
from ssl_bench.errors import DataError

OTHERS = {"captions", "keypoints", "stuff", "panoptic", "densepose", "info"}  # files of other tasks


def find_files(root: Path) -> dict[SplitName, Path]:
    """The annotation file of each split; DataError where there is none, or several for one.

    Panoptic ones where there are no others: `instances_` files have boxes, too.
    """
    kept = [path for path in json_files(root) if not _words(path) & OTHERS]
    instances = [path for path in kept if "instances" in _words(path)]
    alike = [path for path in instances or kept if looks_like_coco(path)]
    kept = alike or instances or panoptic_files(root) or kept
    by_split: dict[SplitName, list[Path]] = {}
    for path in kept:
        by_split.setdefault(split_in(path, root) or "train", []).append(path)
    # COCO's image_info_test2017.json has images, and nothing of what is on them.
    found = {split: _told(split, paths, root) for split, paths in by_split.items()}
    if not found:
        raise DataError(
            f"{root} has no JSON file of COCO's format, in it, in annotations/ or in train/: "
            "name it, coco:PATH,train=FILE"
        )
    return found


def panoptic_files(root: Path) -> list[Path]:
    """Those that their names call so."""
    return [p for p in json_files(root) if "panoptic" in _words(p) and looks_like_coco(p)]


def json_files(root: Path) -> list[Path]:
    """Of a folder, of annotations/, and of the folders of splits."""
    folders = [root, root / "annotations"]
    folders += [root / name for name in Layout(root).folders if split_of(name)]
    return [path for at in folders if at.is_dir() for path in sorted(at.glob("*.json"))]


def _words(path: Path) -> set[str]:
    return set(re.findall("[a-z]+", path.stem.lower()))


def _told(split: SplitName, paths: Sequence[Path], root: Path) -> Path:
    if len(paths) == 1:
        return paths[0]
    shown = ", ".join(str(path.relative_to(root)) for path in paths[:4])
    raise DataError(f"{root} has {shown} for {split}: name one, coco:PATH,{split}=FILE")


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file begins as one of COCO's, which may have hundreds of megabytes."""
    head = head_of(path)
    return any(f'"{key}"'.encode() in head for key in ("images", "annotations", "categories"))
