"""The committed form of a suite: records, predictions, tables and pictures, without weights.

`bench export` writes it, `bench import` reads it back into a workspace, where the numbers count as
made. What is imported is verified first, and nothing in it is run.
"""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_BZIP2, ZipFile

import numpy as np

from ssl_bench.data.images import own_picture
from ssl_bench.errors import DataError
from ssl_bench.files import written_at_once
from ssl_bench.records.protocols import harness_of
from ssl_bench.records.record import EvaluationRecord, Record
from ssl_bench.records.workspace import (
    Run,
    folder_of,
    in_order,
    predictions_of,
    read_record,
    read_records,
)
from ssl_bench.tables.family import FILE as FAMILY
from ssl_bench.tables.family import Family
from ssl_bench.tables.forms import write_table
from ssl_bench.tables.table import Table
from ssl_bench.trust.verify import disagreements, workspaces_in

LARGEST = 10 << 20  # bytes of an export
WIDEST = 640  # px of a picture in an export: images of others are shown as thumbnails only
COLOURS = 128
KEPT = (".json", ".npz", ".png")  # what of a run is taken along


def export(
    records: Sequence[EvaluationRecord], workspace: Path, out: Path, family: Family | None = None
) -> list[Path]:
    """Write these evaluations, and the runs of their encoders, to `out`; returns the tables.

    The tables test the differences of this family. The pictures in the workspace's folder `figures`
    go along; all pictures are shrunk. Raises DataError for an `out` that holds something else, or
    an export above 10 MB.
    """
    strange = [p.name for p in out.glob("*") if p.name not in _EXPORTED] if out.exists() else []
    if strange:
        raise DataError(f"{out} holds {strange[0]}, which no export writes: choose another --out")
    pretrained = {r.key: r for r in read_records(workspace, "pretrain")}
    encoders = {r.identity.encoder.run for r in records if r.identity.encoder}
    runs = [*records, *(pretrained[key] for key in sorted(encoders) if key in pretrained)]
    folders = {f"{run.kind}/{folder_of(workspace, run).name}": run for run in runs}
    written = {folder: _compact(workspace, run) for folder, run in folders.items()}
    pictures = sorted((workspace / "figures").glob("*.png"))
    written["figures"] = {path.name: _shrunk(path) for path in pictures}
    size = sum(len(content) for files in written.values() for content in files.values())
    if size > LARGEST:
        raise DataError(f"the export would have {size >> 20} MB, more than {LARGEST >> 20}")
    for part in PARTS:
        if (out / part).is_symlink():
            raise DataError(f"{out / part} is a link: choose another --out")
    try:
        return _write(written, in_order(records), family or Family(), out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; what it held is kept") from error


def _write(
    written: Mapping[str, Mapping[str, bytes]],
    records: list[EvaluationRecord],
    family: Family,
    out: Path,
) -> list[Path]:
    """Write all beside what `out` holds, then put it in its place."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        apart = Path(folder)
        for name, files in written.items():
            for file, content in files.items():
                (apart / name).mkdir(parents=True, exist_ok=True)
                (apart / name / file).write_bytes(content)
        tables = write_table(Table.of(records, apart, family), apart)
        (out / FAMILY).unlink(missing_ok=True)  # of an export before
        for part in PARTS:
            shutil.rmtree(out / part, ignore_errors=True)
            if (apart / part).exists():
                (apart / part).rename(out / part)
        return [table.replace(out / table.name) for table in tables]


PARTS = ("pretrain", "evaluation", "figures")
_EXPORTED = {*PARTS, "table.md", "table.csv", "table.tex", FAMILY}


def _compact(workspace: Path, run: Record) -> dict[str, bytes]:
    """A run's files by name, the record last: it names the pictures as they are in the export."""
    files = {path.name: path.read_bytes() for path in _files(workspace, run)[:-1]}
    folder = folder_of(workspace, run)
    files |= {name: _shrunk(folder / name) for name in files if name.endswith(".png")}
    named = "predictions.npz" in files
    if named and run.kind == "evaluation" and (harness := harness_of(run)):
        predictions = predictions_of(run, workspace)
        if (compact := harness.compact(predictions)) is not predictions:
            files["predictions.npz"] = _packed(compact)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    known = {**run.files, **digests}
    return {**files, "record.json": run.model_copy(update={"files": known}).text.encode()}


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A .npz archive as NumPy reads it, by bzip2, which NumPy does not write."""
    made = io.BytesIO()
    with ZipFile(made, "w", ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return made.getvalue()


def _shrunk(path: Path) -> bytes:
    """The same PNG, at most WIDEST px wide and with COLOURS colours, unless it is larger so."""
    small, picture = own_picture(path), path.read_bytes()
    small.thumbnail((WIDEST, 1 << 16))
    made = io.BytesIO()
    small.quantize(COLOURS).save(made, "PNG", optimize=True)
    return min(made.getvalue(), picture, key=len)  # a palette makes a tiny picture larger


def _files(workspace: Path, record: Record) -> list[Path]:
    """What the record names of the kinds that are kept, and the record, last."""
    folder = folder_of(workspace, record)
    named = [folder / name for name in record.files if "/" not in name]
    kept = [path for path in named if path.suffix in KEPT and path.exists()]
    return [*kept, folder / "record.json"]


def import_runs(path: Path, workspace: Path) -> int:
    """Copy the runs below `path` into a workspace, those that it lacks; returns how many.

    Raises DataError, naming the first, for anything that `bench verify` would not agree to.
    """
    count = 0
    for source in workspaces_in(path):
        for fault in disagreements(source):
            raise DataError(f"nothing is imported: {fault}")
        for file in sorted(source.glob("*/*/record.json")):
            record = read_record(file)
            # A folder's name is a stranger's: Run makes it one that leads nowhere else.
            name = file.parent.name.removesuffix(f"-{record.key[:12]}")
            run = Run(workspace, type(record), name, record.identity)
            if run.record is None:
                with run.working() as folder:
                    count += run.record is None  # unless another process brought it in
                    for each in _files(source, record) if run.record is None else ():
                        with written_at_once(folder / each.name) as scratch:
                            shutil.copy2(each, scratch)
    return count
