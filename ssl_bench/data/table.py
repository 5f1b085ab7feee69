"""`csv:FILE`: a table of paths and labels, and, if it has one, a column that says the split.

image,label,split                 one label an image
cats/1.jpg,cat,train
cats/2.jpg,cat|kitten,train       several, where any cell has a `|` or all are lists ["cat"]
image,cat,dog                     or a column for each class: 1 there, 0 not there, −1 not judged
cats/1.jpg,1,0

Commas, semicolons or tabs stand between the columns. Paths are relative to the table's folder, or
to `images=FOLDER`; their suffix may be left out. `path=`, `label=` and `split=` name the columns
that are not called as usual. Without a column for the split, `test=FILE` is a second table, and
`test=0.25` draws a test set.
"""

import ast
import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.data.dataset import SplitName
from ssl_bench.data.draw import OPTIONS, Draw
from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.data.labelled import Labelled, LabelledDataset, image_file
from ssl_bench.data.layout import split_of
from ssl_bench.data.paths import asked, inside
from ssl_bench.data.tree import folders_in, is_image
from ssl_bench.errors import DataError, plain, unknown
from ssl_bench.progress import say_once

USE = "csv:FILE[,test=FILE or SHARE][,images=FOLDER][,path=COLUMN][,label=COLUMN][,split=COLUMN]"
# What a column is called, in capitals or not; the first of these that is there is taken.
USUAL = {
    "path": ("path", "image", "images", "file", "filename", "file_name", "filepath", "file_path",
             "image_path", "image_name", "img", "image_id", "id", "name"),
    "label": ("label", "labels", "class", "classes", "class_name", "category", "categories",
              "target", "tags", "species", "cls"),
    "split": ("split", "set", "subset", "partition"),
}  # fmt: skip
KNOWN = ("val", *OPTIONS, "images", *USUAL)
SEVERAL = "|"  # between the labels of a cell
FLAGS = {"0": 0, "1": 1, "-1": -1, "0.0": 0, "1.0": 1, "-1.0": -1, "false": 0, "true": 1}


@dataclass(frozen=True)
class _Columns:
    """What a table's columns are called; `flags` have a class's name and 0, 1 or −1."""

    path: str
    label: str | None
    split: str | None
    flags: tuple[str, ...]


def table(argument: str) -> LabelledDataset:
    """Raises Faults with all lines of the tables that cannot be used."""
    file, options, name = asked("csv", argument, KNOWN, USE)
    first = (file.parent / options.get("images", "")).resolve()
    beside = {key: file.parent / options[key] for key in ("val", "test") if key in options}
    tables = {"train": file} | {key: path for key, path in beside.items() if path.is_file()}
    if "val" in beside.keys() - tables.keys():
        raise DataError(f"{beside['val']} is no file: val= names a table beside {file.name}")
    parts: dict[SplitName, list[Labelled]] = {}
    faults: list[str] = []
    roots = [first]
    for split, path in tables.items():
        with collecting_faults(faults):
            roots.append(_root_of(path, first, options))
            for own, row in read_table(path, roots[-1], options, faults):
                parts.setdefault(own or split, []).append(row)
    refuse(faults, str(file))
    _check_there([row.file for rows in parts.values() for row in rows], file, first)
    root = Path(os.path.commonpath(roots))
    return LabelledDataset(name, root, parts, None if "test" in tables else Draw.of(options))


def _root_of(path: Path, first: Path, options: Mapping[str, str]) -> Path:
    """Where a table's images lie: with it, as Roboflow has it, or where those of the first do."""
    own = path.parent.resolve()
    if own == first or "images" in options:
        return first
    return own if any(row.file.exists() for _, row in read_table(path, own, options, [])) else first


def _check_there(images: Sequence[Path], table: Path, root: Path) -> None:
    """DataError where none of the images is there, with the folders that have the first."""
    if not images or any(image.exists() for image in images):
        return
    name = images[0].relative_to(root)
    found = [at for at in folders_in(table.parent) if image_file(table.parent / at / name).exists()]
    raise DataError(
        f"none of the {len(images):,} images of {table} is there, such as {plain(images[0])}: say "
        f"where they are, csv:FILE,images={plain(found[0]) if found else 'FOLDER'}"
    )


def read_table(
    path: Path, root: Path, options: Mapping[str, str], faults: list[str]
) -> Iterator[tuple[SplitName | None, Labelled]]:
    """The images of a table, each with the split that it names, if any; lines of `faults`."""
    lines = _lines(path)
    columns = _columns(path, lines, options)
    cells = [line[columns.label] for _, line in lines] if columns.label else []
    cut = _cut(cells)
    if cut is None and (example := _combined(cells)):
        say_once(
            f"{path.name}: each of its labels, such as '{plain(example)[:60]}', is taken as one "
            f"class; if they are several, write {SEVERAL} between them"
        )
    for number, line in lines:
        try:
            labels, unjudged = _labels(line, columns, cut)
            file = image_file(inside(root, line[columns.path], root))
            listed = cut is not None or bool(columns.flags)
            yield _split(line, columns), Labelled(file, labels, unjudged, listed)
        except DataError as error:
            faults.append(f"line {number} of {path}: {error}")


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Number and cells of each line, stripped; Faults for lines of other lengths."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head, above = file.readline(), 1
            if head.lower().startswith("sep="):  # Excel's line that names the separator
                head, above = file.readline(), 2
            # Of the separators the one that the titles have most of; a path may hold commas.
            separator = max(",;\t", key=head.count)
            titles = [one.strip() for one in next(csv.reader([head], delimiter=separator), [])]
            reader = csv.reader(file, delimiter=separator)
            found = [(reader.line_num + above, cells) for cells in reader if any(cells)]
    except UnicodeError as error:
        raise DataError(
            f"{path} is not in UTF-8 ({error}): save it as CSV in UTF-8, in Excel as `CSV UTF-8`"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): save it as CSV") from error
    if not found:
        raise DataError(f"{path} has no lines below its titles, which stand in the first line")
    wrong = [
        f"line {number} of {path} has {len(cells)} cells, and the titles are {len(titles)}"
        for number, cells in found
        if len(cells) != len(titles)
    ]
    twice = [title for title in dict.fromkeys(titles) if title and titles.count(title) > 1]
    wrong += [f"{path} has two columns '{plain(title)}': name each anew" for title in twice]
    refuse(wrong, str(path))
    return [(n, dict(zip(titles, map(str.strip, cells), strict=True))) for n, cells in found]


def _columns(
    path: Path, lines: Sequence[tuple[int, dict[str, str]]], options: Mapping[str, str]
) -> _Columns:
    """Raises UsageError for a column that is named and not there, DataError where none is found."""
    titles = list(lines[0][1])
    for key in USUAL:
        if key in options and options[key] not in titles:
            raise unknown(f"column of {path}", options[key], titles)
    found = {key: options.get(key) or _usual(titles, key) for key in USUAL}
    there = f"{path} has the columns {', '.join(map(plain, titles))}"
    if found["path"] is None:
        if any(is_image(title) for title in titles):
            raise DataError(f"{path} has no titles in its first line: write image,label above")
        raise DataError(f"{there}: say which one has the images, as csv:FILE,path=COLUMN")
    others = [title for title in titles if title not in found.values()]
    flags = ()
    if found["label"] is None:
        flags = tuple(
            title for title in others if all(line[title].lower() in FLAGS for _, line in lines)
        )
        if others and not flags:
            raise DataError(f"{there}: say which one has the labels, as csv:FILE,label=COLUMN")
    return _Columns(found["path"], found["label"], found["split"], flags)


def _usual(titles: Sequence[str], key: str) -> str | None:
    lowered = {title.lower(): title for title in reversed(titles)}
    return next((lowered[name] for name in USUAL[key] if name in lowered), None)


def _labels(
    line: Mapping[str, str], columns: _Columns, cut: Callable[[str], list[str]] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that are there, and those that are not judged."""
    if columns.label is None:
        values = {name: FLAGS[line[name].lower()] for name in columns.flags}
        return tuple(n for n, v in values.items() if v > 0), tuple(
            n for n, v in values.items() if v < 0
        )
    cell = line[columns.label]
    labels = [name.strip() for name in cut(cell)] if cut else [cell]
    if not cut and not cell:
        raise DataError(f"the column {columns.label} is empty: give the image a label")
    return tuple(dict.fromkeys(filter(None, labels))), ()


def _cut(cells: Sequence[str]) -> Callable[[str], list[str]] | None:
    """How the labels of a cell are told apart, where cells can have several."""
    if any(SEVERAL in cell for cell in cells):
        return lambda cell: cell.split(SEVERAL)
    written = [cell for cell in cells if cell]
    are_lists = bool(written) and all(cell[0] + cell[-1] == "[]" for cell in written)
    return _items if are_lists else None


def _items(cell: str) -> list[str]:
    """Of a list as JSON and Python write it, or without quotes."""
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        found = ast.literal_eval(cell or "[]")
        if isinstance(found, list) and all(isinstance(one, str | int) for one in found):
            return [str(one) for one in found]
    return [one.strip("'\" ") for one in cell[1:-1].split(",")]


def _combined(cells: Sequence[str]) -> str | None:
    """A cell that looks like several labels: cells are made of far fewer parts than there are."""
    distinct = dict.fromkeys(cells)
    for separator in (";", ",", " "):
        whole = [cell for cell in distinct if separator in cell]
        parts = {part.strip() for cell in distinct for part in cell.split(separator)}
        if 2 * len(whole) > len(distinct) > 2 * len(parts):
            return whole[0]
    return None


def _split(line: Mapping[str, str], columns: _Columns) -> SplitName | None:
    """What a line says of its split: train, val and test by their usual names, or its own word."""
    if columns.split is None:
        return None
    word = line[columns.split]
    if not word:
        raise DataError(f"the column {columns.split} is empty: write train, val or test")
    return split_of(word) or word
