"""The committed form of a suite: records, predictions, tables and pictures, without weights.

`bench export` writes it, `bench import` reads it back into a workspace, where the numbers count as
made. What is imported is verified first, and nothing in it is run.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl_bench.errors import DataError
from ssl_bench.records import Record, folder_of, read_record, read_records, write_atomically
from ssl_bench.tables import Table
from ssl_bench.verify import disagreements, workspaces_in

LARGEST = 10 << 20  # bytes of an export
KEPT = (".json", ".npz", ".png")  # what of a run is taken along


def export(records: Sequence[Record], workspace: Path, out: Path) -> list[Path]:
    """Write these evaluations, and the runs of their encoders, to `out`; returns the tables.

    Raises DataError for an `out` that holds something else, or an export above 10 MB.
    """
    strange = [p.name for p in out.glob("*") if p.name not in _EXPORTED] if out.exists() else []
    if strange:
        raise DataError(f"{out} holds {strange[0]}, which no export writes: choose another --out")
    pretrained = {r.key: r for r in read_records(workspace, "pretrain")}
    encoders = {(r.identity["encoder"] or {}).get("run") for r in records}
    runs = [*records, *(pretrained[key] for key in sorted(map(str, encoders)) if key in pretrained)]
    size = sum(path.stat().st_size for run in runs for path in _files(workspace, run))
    if size > LARGEST:
        raise DataError(f"the export would have {size >> 20} MB, more than {LARGEST >> 20}")
    for kind in ("pretrain", "evaluation"):
        shutil.rmtree(out / kind, ignore_errors=True)
    for run in runs:
        folder = out / run.kind / folder_of(workspace, run).name
        folder.mkdir(parents=True, exist_ok=True)
        for path in _files(workspace, run):
            shutil.copy2(path, folder / path.name)
        write_atomically(folder / "record.json", run.text)
    return Table.of(records, out).write(out)


_EXPORTED = {"pretrain", "evaluation", "table.md", "table.csv", "table.tex"}


def _files(workspace: Path, record: Record) -> Iterable[Path]:
    """The record, last, and what it names of the kinds that are kept."""
    folder = folder_of(workspace, record)
    named = [folder / name for name in record.files if "/" not in name]
    kept = [path for path in named if path.suffix in KEPT and path.exists()]
    return [*kept, folder / "record.json"]


def bring_in(path: Path, workspace: Path) -> int:
    """Copy the runs below `path` into a workspace, those that it lacks; returns how many.

    Raises DataError, naming the first, for anything that `bench verify` would not agree to.
    """
    count = 0
    for source in workspaces_in(path):
        for fault in disagreements(source):
            raise DataError(f"nothing is imported: {fault}")
        for file in sorted(source.glob("*/*/record.json")):
            record = read_record(file)
            target = workspace / record.kind / file.parent.name
            if (target / "record.json").exists():
                continue
            target.mkdir(parents=True, exist_ok=True)
            for each in _files(source, record):
                shutil.copy2(each, target / each.name)
            count += 1
    return count
