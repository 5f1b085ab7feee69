"""`hf:PATH`: datasets of Hugging Face, in the files that they lie in.

hf:PATH                        what `save_to_disk` wrote: PATH/train/data-*.arrow, dataset_info.json
                               or Parquet files: PATH/data/train-*.parquet, PATH/train/*.parquet …
                               or imagefolder: PATH/train/metadata.csv (.jsonl) with file_name
hf:ORG/NAME@REVISION           the same of the Hub, where there is a network: a commit or a tag;
                               @refs/convert/parquet has Parquet files of nearly every set

`image=COLUMN` and `label=COLUMN` name the columns where their types do not tell, `config=NAME` the
folder of one of several sets; `test=0.25` draws a test set. Rows are read by pyarrow where they lie
(extra `hf`): nothing is converted or copied, and the images' bytes are decoded once into the store,
as all others.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from ssl_bench.data import arrow
from ssl_bench.data.dataset import Dataset, Split, SplitName, Task
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.encoded import EncodedImages
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.labelled import (
    Labelled,
    LabelledDataset,
    by_number,
    checked_draw,
    have_several,
    image_file,
    judged,
    label_array,
    no_test,
    with_test,
)
from ssl_bench.data.layout import files_by_split, split_of
from ssl_bench.data.paths import inside, path_and_options, resolved
from ssl_bench.data.table import USUAL, read_table
from ssl_bench.data.tree import folders_in
from ssl_bench.errors import DataError, UsageError, plain, unknown

USE = "hf:PATH or hf:ORG/NAME@REVISION[,label=COLUMN][,image=COLUMN][,test=SHARE][,config=NAME]"
KNOWN = (*OPTIONS, "image", "label", "config")
METADATA = ("metadata.csv", "metadata.jsonl")
REMOTE = r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?"


def hf(argument: str) -> Dataset:
    """Raises DataError for a folder with none of these files."""
    path, options = path_and_options(argument)
    for key in options.keys() - set(KNOWN):
        raise unknown("option of hf", key, KNOWN)
    if not path:
        raise UsageError(f"this set is asked for as {USE}")
    root, name = _found(path)
    given = [f",{key}={plain(options[key])}" for key in KNOWN if key in options]
    name = f"hf:{name}{''.join(given)}"
    if described := _metadata(root):
        parts = {split: _rows(file, options) for split, file in described.items()}
        return LabelledDataset(name, root, parts, Draw.of(options))
    return ArrowDataset(name, root, options)


def _found(path: str) -> tuple[Path, str]:
    """The folder, and what it is called: here, or fetched from the Hub."""
    remote = re.fullmatch(REMOTE, path)
    if resolved(path).is_dir():
        return resolved(path), plain(resolved(path).name)
    if not remote:
        raise DataError(f"{plain(resolved(path))} is no folder: give {USE}")
    if remote[2] is None:
        raise UsageError(
            f"{path} is no folder here; of the Hub name a revision, so that the same images come "
            f"again: hf:{path}@REVISION, a commit or a tag"
        )
    return _fetched(remote[1], remote[2]), path


def _fetched(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision))
    except (OSError, ValueError, HFValidationError) as error:  # of a network, of the Hub
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{name}@{revision} cannot be had from the Hub ({reason}): fetch it where there is a "
            "network, and give its folder as hf:PATH"
        ) from error


# ---- imagefolder
def _metadata(root: Path) -> dict[SplitName, Path]:
    """The metadata file of each split's folder, or of the root."""
    places = {split_of(name) or name: root / name for name in folders_in(root)}
    found: dict[SplitName, Path] = {}
    for split, at in {"train": root, **places}.items():
        for name in METADATA:
            if (at / name).is_file():
                found[split] = at / name
    return found


def _rows(file: Path, options: Mapping[str, str]) -> list[Labelled]:
    """Images beside a metadata file; Faults with all its lines that cannot be used."""
    faults: list[str] = []
    if file.suffix == ".csv":
        wanted = {key: value for key, value in options.items() if key in USUAL}
        rows = [row for _, row in read_table(file, file.parent, wanted, faults)]
    else:
        rows = _json_rows(file, options.get("label", "label"), faults)
    refuse(faults, str(file))
    return rows


def _json_rows(file: Path, label: str, faults: list[str]) -> list[Labelled]:
    rows: list[Labelled] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            path = image_file(inside(file.parent, one["file_name"], file.parent))
            rows.append(Labelled(path, _names(one.get(label), None)))
        except (ValueError, TypeError, KeyError, AttributeError, DataError) as error:
            faults.append(f"line {number} of {file} cannot be used ({error}): correct it")
    return rows


# ---- Arrow and Parquet
@dataclass(frozen=True)
class _Columns:
    """What the images and labels are called; `names` of a ClassLabel's numbers.

    `notes` say what was taken where there was a choice.
    """

    image: str
    label: str | None
    names: tuple[str, ...] | None
    several: bool
    notes: tuple[str, ...]


class ArrowDataset(Dataset):
    """Arrow or Parquet files with a column of images."""

    def __init__(self, name: str, root: Path, options: Mapping[str, str]) -> None:
        self.name, self.root, self.where, self.draw = name, root, str(root), Draw.of(options)
        found = find_files(root, options.get("config"))
        if "train" not in found:
            raise DataError(f"{root} has no rows to train on, only {', '.join(found)}")
        checked_draw(self.draw, found, name)
        self.columns = _columns(found["train"][0], options)
        self.labels = self._read_labels(found)
        self.several = have_several(self.labels, name, self.columns.several)
        self.files = with_test(judged(found, self.labels, name))
        if "test" in self.files and self.files["test"] != found.get("test"):
            self.labels["test"] = self.labels.pop("val")
        self.splits = tuple(self.files) if self.draw is None else ("train", "test")
        # A ClassLabel's own names in their order, else those in train, sorted.
        self.classes = self.columns.names or by_number(
            label for one in self.labels["train"] for label in one
        )

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """The rows of a split; DataError for a class that no training image has."""
        self.check_task(task)
        if name == "test" and name not in self.splits:
            raise no_test(self.root, "hf")
        self.check_split(name)
        part = "train" if self.draw else name
        labels = self.labels[part]
        places, notes = list(range(len(labels))), list(self.columns.notes)
        if self.draw is not None:
            parts = self.draw.divided(places, lambda i: f"{part}/{i}", lambda i: str(labels[i]))
            places = parts[name]
            notes.append(self.draw.note(name, len(places), len(labels)))
        if strange := {label for one in labels for label in one} - set(self.classes):
            raise DataError(f"{self.name} {part} has the class '{min(strange)}', not in train")
        return EncodedImages(
            [f"{part}/{place:06}" for place in places],
            _Images(tuple(self.files[part]), self.columns.image, places),
            label_array([labels[place] for place in places], self.classes, self.several),
            self.classes,
            notes,
            self.files[part],
        )

    def _read_labels(
        self, files: Mapping[SplitName, Sequence[Path]]
    ) -> dict[SplitName, list[tuple[str, ...]]]:
        """Of each row; none without a column for them. Faults with all values that are no class."""
        found: dict[SplitName, list[tuple[str, ...]]] = {}
        faults: list[str] = []
        for split, paths in files.items():
            found[split] = []
            for value in (value for path in paths for value in self._column(path)):
                names: tuple[str, ...] = ()
                with collecting_faults(faults):
                    names = _names(value, self.columns.names)
                found[split].append(names)
        refuse(faults, self.name)
        return found

    def _column(self, path: Path) -> list[Any]:
        """Values of the column of labels; a test set without it has none."""
        label = self.columns.label
        return arrow.column(path, label if label in arrow.schema(path).names else None)


def find_files(root: Path, config: str | None) -> dict[SplitName, list[Path]]:
    """Arrow and Parquet files by the split that their names, or their folders', say."""
    described = root / "dataset_dict.json"
    if described.is_file():  # of save_to_disk, which says what its folders are
        names = _splits(described)
        return {split_of(name) or name: sorted((root / name).glob("data-*")) for name in names}
    found = [path for end in ("arrow", "parquet") for path in sorted(root.rglob(f"*.{end}"))]
    # cache-….arrow are what a `map` left behind, and no part of the set.
    found = [path for path in found if not path.name.startswith(("cache-", "tmp"))]
    configs = {_config(path, root) for path in found}
    if len(configs) > 1 and config not in configs:
        raise DataError(
            f"{root} has several sets, {', '.join(sorted(configs))}: name one, hf:PATH,config=NAME"
        )
    found = [path for path in found if config is None or _config(path, root) == config]
    if not found:
        raise DataError(
            f"{root} has no .arrow and no .parquet{f' of {config}' if config else ''}, and no "
            f"{' or '.join(METADATA)}: images in folders of classes are folder:{root}"
        )
    return files_by_split(found, root)


def _splits(described: Path) -> list[str]:
    try:
        names = json.loads(described.read_text())["splits"]
        return [name for name in names if (described.parent / Path(name).name).is_dir()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{described} cannot be read ({error}): save the set anew") from error


def _config(path: Path, root: Path) -> str:
    """The folders that a file lies in, but for those of splits and data/: one of several sets."""
    parts = path.relative_to(root).parts[:-1]
    return "/".join(part for part in parts if part != "data" and split_of(part) is None)


# ---- what a cell says
def _names(value: object, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes of a row; none for an empty cell, and for −1, a ClassLabel's way to say so."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    found: list[str] = []
    for one in values:
        if isinstance(one, float) and one.is_integer():  # pandas makes floats of integers with gaps
            one = int(one)
        if isinstance(one, bool) or not isinstance(one, str | int):
            raise DataError(f"{plain(one)[:60]} is no class: it takes names or whole numbers")
        if names is None or isinstance(one, str):
            found.append(str(one))
        elif 0 <= one < len(names):
            found.append(names[one])
        elif one != -1:
            raise DataError(f"{one} is no class: there are {len(names)}")
    return tuple(dict.fromkeys(found))


def _columns(file: Path, options: Mapping[str, str]) -> _Columns:
    """By the types that Hugging Face's own description says, else by Arrow's types and by names."""
    schema = arrow.schema(file)
    described = arrow.features(schema)
    features = {name: one for name, one in described.items() if name in schema.names}
    for key in ("image", "label"):
        if key in options and options[key] not in schema.names:
            raise unknown(f"column of {file}", options[key], schema.names)
    kinds = {n: one.get("_type") for n, one in features.items() if isinstance(one, dict)}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    images += [n for n in schema.names if n not in images and arrow.holds_bytes(schema, n)]
    image = options.get("image") or next(iter(images), None)
    if image is None:
        shown = ", ".join(map(plain, schema.names))
        raise DataError(f"{file} has the columns {shown}, none of images: name it with image=")
    known = [name for name, one in features.items() if _class_names(one) is not None]
    known += [n for n in schema.names if n not in known and n.lower() in USUAL["label"]]
    label = options.get("label") or next(iter(known), None)
    several = label is not None and arrow.holds_lists(schema, label)
    notes = [
        f"{key}s are the column {plain(taken)}, of {', '.join(map(plain, found))}: {key}= names one"
        for key, taken, found in (("image", image, images), ("label", label, known))
        if len(found) > 1 and key not in options
    ]
    if label is None and (others := [n for n in schema.names if n != image]):
        notes.append(f"no labels in the columns {', '.join(map(plain, others))}: label= names one")
    return _Columns(image, label, _class_names(features.get(label or "", {})), several, (*notes,))


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """Of a ClassLabel, or of a list of them."""
    inner = feature[0] if isinstance(feature, list) and feature else feature
    inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
    if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
        return tuple(map(str, inner["names"]))
    return None


@dataclass(frozen=True)
class _Images:
    """The bytes of the images at some rows of several files."""

    files: tuple[Path, ...]
    column: str
    rows: Sequence[int]

    @cached_property
    def starts(self) -> list[int]:
        """Rows before each file, and all of them."""
        return [0, *accumulate(arrow.count(file) for file in self.files)]

    def __call__(self, index: int) -> bytes:
        row = self.rows[index]
        which = bisect_right(self.starts, row) - 1
        file, row = self.files[which], row - self.starts[which]
        cell = arrow.cell(file, self.column, row)
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            path = cell.get("path") if isinstance(cell, dict) else None
            lay = f", only the path {plain(path)[:100]}" if path else ""
            raise DataError(f"row {row} of {file} has no image{lay}: save it with its images")
        return content
