"""`wds:GLOB`: WebDataset's tars, read in place and once into the store.

wds:PATH/train-{000..009}.tar,test=PATH/val-*.tar     shards by name
wds:PATH                                              PATH/train-*.tar, val-*.tar …, or
                                                      PATH/train/*.tar, PATH/test/*.tar

Files of one name up to its first dot are one sample: an image (.jpg, .png, …; of several not
.depth.png, and not .png beside a .jpg, which are maps of it), and its class, in .cls, .cls.txt or
.label, or under `label`, `class` or `cls` in .json. Several classes stand with a `|` between them,
or in a list. `classnames.txt` beside the shards, a name a line, names 0, 1, …

The shards are plain tars, so that an image is read where it lies; a compressed one is refused.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.encoded import EncodedImages
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.labelled import (
    by_number,
    checked_draw,
    have_several,
    judged,
    label_array,
    no_test,
    with_test,
)
from ssl_bench.data.layout import files_by_split
from ssl_bench.data.paths import path_and_options, resolved
from ssl_bench.data.tree import SUFFIXES
from ssl_bench.errors import DataError, UsageError, plain, unknown
from ssl_bench.files import refuse_pointer

USE = "wds:GLOB[,test=GLOB or SHARE][,val=GLOB]"
KNOWN = ("val", *OPTIONS)
LABELS = ("cls", "cls.txt", "label", "class")
KEYS = ("label", "cls", "class", "class_name", "category")  # in .json
LARGEST = 2**20  # bytes of a label's file


@dataclass(frozen=True)
class TarSample:
    """Where the bytes of an image lie, and its classes."""

    name: str
    shard: Path
    start: int
    size: int
    labels: tuple[str, ...]


class WebDataset(Dataset):
    """Shards by split, indexed as they are opened: the headers of a tar say where all lies."""

    def __init__(self, argument: str) -> None:
        text, options = path_and_options(argument)
        for key in options.keys() - set(KNOWN):
            raise unknown("option of wds", key, KNOWN)
        if not text:
            raise UsageError(f"shards are asked for as {USE}")
        globs = {key: options[key] for key in ("val", "test") if "tar" in options.get(key, "")}
        found = (
            {"train": shards(text)} | {key: shards(glob) for key, glob in globs.items()}
            if globs or not resolved(text).is_dir()
            else find_shards(resolved(text))
        )
        if "train" not in found:
            raise DataError(f"{text} has no shards to train on, only {', '.join(found)}")
        self.draw = None if "test" in globs else Draw.of(options)
        checked_draw(self.draw, found, f"wds:{text}")
        self.where = str(found["train"][0].parent)
        given = [f",{key}={plain(Path(options[key]).name)}" for key in KNOWN if key in options]
        self.name = f"wds:{plain(Path(text).name)}{''.join(given)}"
        samples = {split: indexed(paths) for split, paths in found.items()}
        labels = {split: [one.labels for one in each] for split, each in samples.items()}
        self.several = have_several(labels, self.name, listed=False)
        self.samples = with_test(judged(samples, labels, self.name))
        self.splits = tuple(self.samples) if self.draw is None else ("train", "test")

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The images of a split; Faults with all classes that no training image has."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(Path(self.where), "wds")
        self.check_split(name)
        samples, notes = self.samples["train" if self.draw else name], list[str]()
        if self.draw is not None:
            total = len(samples)
            samples = self.draw.divided(samples, lambda one: one.name, lambda one: str(one.labels))
            samples = samples[name]
            notes = [self.draw.note(name, len(samples), total)]
        classes, shown = self._classes()
        strange = {label for one in samples for label in one.labels} - set(classes)
        refuse([f"{self.name} {name} has the class '{label}', which train lacks" for label in
                sorted(strange)], self.name)  # fmt: skip
        labels = label_array([one.labels for one in samples], classes, self.several)
        read = partial(_read, samples)
        files = sorted({one.shard for one in samples})
        return EncodedImages([one.name for one in samples], read, labels, shown, notes, files)

    def count(self, name: SplitName, task: Task) -> int:
        """How many samples there are."""
        return len(self.split(name, task).names)

    def _classes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """As the samples say them, and as they are called."""
        found = by_number(label for one in self.samples["train"] for label in one.labels)
        for folder in (Path(self.where), Path(self.where).parent):
            path = folder / "classnames.txt"
            if path.is_file() and all(name.isdecimal() for name in found):
                names = path.read_text(encoding="utf-8-sig").strip().split("\n")
                if len(names) > max(map(int, found), default=0):
                    return found, tuple(names[int(name)].strip() for name in found)
        return found, found


def _read(samples: Sequence[TarSample], index: int) -> bytes:
    one = samples[index]
    with open(one.shard, "rb") as file:
        file.seek(one.start)
        return file.read(one.size)


# ---- which shards
def shards(glob: str) -> list[Path]:
    """The tars that a glob names: *, ?, {000..009} and {a,b}. DataError where there are none."""
    found: list[Path] = []
    for text in braced(glob):
        path = resolved(text)
        pattern = re.search(r"[*?[]", path.name)
        found += sorted(path.parent.glob(path.name)) if pattern else [path]
    there = [path for path in found if path.is_file()]
    if len(there) < len(found) or not there:
        missing = [path for path in found if not path.is_file()]
        raise DataError(f"{plain(missing[0] if missing else glob)} is no file: shards are {USE}")
    return there


def braced(text: str) -> list[str]:
    """`a{1..3}` and `a{x,y}` written out, as shells and WebDataset do."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if not found:
        return [text]
    if found[3] is not None:
        inner = found[3].split(",")
    else:
        inner = [f"{i:0{len(found[1])}}" for i in range(int(found[1]), int(found[2]) + 1)]
    return [
        one for each in inner for one in braced(text[: found.start()] + each + text[found.end() :])
    ]


def find_shards(root: Path) -> dict[SplitName, list[Path]]:
    """Those in a folder, and in its sub-folders, by the split that their names say."""
    found = sorted([*root.glob("*.tar"), *root.glob("*/*.tar")])
    if not found:
        raise DataError(f"{root} has no .tar: shards are asked for as {USE}")
    return files_by_split(found, root)


# ---- what is in them
def indexed(paths: Sequence[Path]) -> list[TarSample]:
    """The samples of all shards; Faults with all that cannot be read."""
    found: list[TarSample] = []
    faults: list[str] = []
    for path in paths:
        with collecting_faults(faults):
            found += _samples(path, faults)
    refuse(faults, str(paths[0].parent))
    if not found:
        raise DataError(f"{paths[0]} has no images ({', '.join(SUFFIXES)})")
    return found


def _samples(path: Path, faults: list[str]) -> list[TarSample]:
    found = []
    refuse_pointer(path)
    try:
        with tarfile.open(path, "r:") as tar:  # "r:": not compressed
            for key, members in _grouped(tar):
                images = [e for e in members if f".{e.rpartition('.')[2]}" in SUFFIXES]
                if not images:
                    continue
                ending = min(images, key=_behind)
                member = members[ending]
                with collecting_faults(faults):
                    labels = _labels(f"{path}: {plain(key)}", tar, members)
                    _check_one(f"{path}: {plain(key)}", images, ending)
                    name = f"{path.stem}/{key}.{ending}"
                    found.append(TarSample(name, path, member.offset_data, member.size, labels))
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read as a tar ({error}): unpack a .tar.gz to .tar, or fetch it anew"
        ) from error
    return found


def _behind(ending: str) -> tuple[int, bool]:
    """What makes an image a map of another one of its sample: .depth.png, .png beside .jpg."""
    return ending.count("."), ending not in ("jpg", "jpeg")


def _check_one(what: str, images: Sequence[str], taken: str) -> None:
    """DataError where nothing says which of a sample's images is the photograph."""
    alike = [ending for ending in images if _behind(ending) == _behind(taken)]
    if len(alike) > 1:
        raise DataError(
            f"{what} has several images, .{plain(', .'.join(alike[:3]))}: leave one; a sample's "
            "name ends at its first dot"
        )


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Members of one key that follow each other, by extension, as webdataset groups them."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in tar:
        named = re.fullmatch(r"((?:.*/|)[^./][^./]*)\.([^/]*)", member.name)
        if not member.isreg() or member.issparse() or not named:
            continue
        if named[1] != key and members:
            yield key, members
            members = {}
        key = named[1]
        members[named[2].lower()] = member
    if members:
        yield key, members


def _labels(
    what: str, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]
) -> tuple[str, ...]:
    """The classes of a sample; none where nothing says any."""
    said = next((ending for ending in (*LABELS, "json") if ending in members), None)
    if said is None:
        return ()
    if members[said].size > LARGEST:
        raise DataError(f"{what} has a .{said} of {members[said].size:,} bytes: it takes a class")
    file = tar.extractfile(members[said])
    assert file is not None  # of a regular file there is content
    try:
        text = file.read().decode()
        value: Any = json.loads(text) if said == "json" else text.strip().split("|")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{what} has a .{said} that cannot be read ({error}): correct it"
        ) from error
    if said == "json":
        value = (
            next((value[key] for key in KEYS if key in value), ())
            if isinstance(value, dict)
            else value
        )
    values = value if isinstance(value, list | tuple) else [value]
    values = [int(one) if isinstance(one, float) and one.is_integer() else one for one in values]
    if not all(isinstance(one, str | int) for one in values):
        raise DataError(
            f"{what} has the class {plain(values)[:60]}: it takes names or whole numbers"
        )
    return tuple(dict.fromkeys(str(one).strip() for one in values if str(one).strip()))
