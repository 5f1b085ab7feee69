"""Lists of images as text files: `folder:PATH,train=lists/train.txt,test=lists/test.txt`.

A line is a path below PATH (or PATH/images), and behind it, where the list says one, its class,
after a tab, a comma or a space. Without, the class is the folder that the image lies in. The suffix
may be left out.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ssl_bench.data.dataset import SplitName
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.labelled import Labelled, image_file, repeated
from ssl_bench.data.paths import inside
from ssl_bench.data.tree import SUFFIXES
from ssl_bench.errors import DataError, plain

SUFFIX = "|".join(map(re.escape, SUFFIXES))


def read_lists(root: Path, lists: Mapping[SplitName, Path]) -> dict[SplitName, list[Labelled]]:
    """The images of each list; Faults with all lines that cannot be used."""
    faults: list[str] = []
    parts: dict[SplitName, list[Labelled]] = {}
    for split, path in lists.items():
        parts[split] = _read(path, root, root, faults)
    with_class = {bool(row.labels) for rows in parts.values() for row in rows}
    if len(with_class) > 1:
        faults.append(f"of the images in the lists of {root} some have a class, and others none")
    refuse(faults, f"the lists of {root}")
    return parts


def read_annotations(path: Path, root: Path) -> list[Labelled]:
    """The images beside a list such as Tiny ImageNet's val_annotations.txt: name, tab, class."""
    faults: list[str] = []
    rows = _read(path, path.parent, root, faults)
    refuse([*faults, *repeated({"val": rows})], str(path))
    return rows


def _read(path: Path, base: Path, root: Path, faults: list[str]) -> list[Labelled]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a list ({error}): name another file") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line.strip(), base, root))
        except DataError as error:
            faults.append(f"line {number} of {path}: {error}")
    if not rows and not faults:
        raise DataError(f"{path} lists no images: write one a line")
    return rows


def _row(line: str, base: Path, root: Path) -> Labelled:
    name, label = _columns(line)
    file = image_file(inside(base, name, root))
    if not file.exists() and (below := image_file(inside(base / "images", name, root))).exists():
        file = below
    if label:
        return Labelled(file, (label,))
    # Of <class>/images/<file> it is the folder above, as in folders of classes.
    parts = [part for part in Path(name).parts[:-1] if part not in ("images", ".")]
    return Labelled(file, (parts[-1],) if parts else ())


def _columns(line: str) -> tuple[str, str]:
    """Path and class; more columns, such as boxes, are not looked at."""
    if re.search(r"[\t,]", line):
        name, label, *_ = (part.strip() for part in re.split(r"[\t,]", line))
    elif found := re.fullmatch(rf"(.+?(?:{SUFFIX}))(?:\s+(\S+).*)?", line, re.IGNORECASE):
        name, label = found[1], found[2] or ""  # a path may have spaces
    else:
        name, _, label = line.rpartition(" ") if " " in line else (line, "", "")
    if not name.strip():
        raise DataError(f"'{plain(line)[:60]}' names no image: write a path, and then its class")
    return name.strip(), label.strip()


def lists_of(root: Path, options: Mapping[SplitName, str]) -> dict[SplitName, Path]:
    """The files that options such as `train=lists/train.txt` name; Faults for any not there."""
    faults: list[str] = []
    found: dict[SplitName, Path] = {}
    for split, text in options.items():
        with collecting_faults(faults):
            found[split] = _list(root, split, text)
    refuse(faults, str(root))
    return found


def _list(root: Path, split: SplitName, text: str) -> Path:
    path = Path(text).expanduser()
    path = path if path.is_absolute() else root / path
    if not path.is_file():
        raise DataError(f"{plain(path)} is no file: {split}= names a list below {root}")
    return path
