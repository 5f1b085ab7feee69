"""Verification: what is claimed is computed again from what is stored.

For every record below a path: its key from its identity, the digest of each file beside it, its
metrics from its predictions, its encoder from the pretraining record beside it; and every table
from the records beside it. Each disagreement is named. Weights need not be there (committed results
leave them out); predictions must be.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssl_bench.comparison import harness_of, predictions_of
from ssl_bench.errors import BenchError, DataError, UsageError
from ssl_bench.protocols import protocols
from ssl_bench.records import Record, file_digest, read_record
from ssl_bench.tables import FORMS, Table

EQUAL = 1e-9  # relative: the same arithmetic on another machine


def workspaces_in(path: Path) -> list[Path]:
    """Folders at or below `path` that hold records or a table. UsageError if there is none."""
    records = {found.parent.parent.parent for found in path.rglob("record.json")}
    tables = {found.parent for form in FORMS for found in path.rglob(f"table.{form}")}
    if not records | tables:
        raise UsageError(f"{path} holds no record and no table")
    return sorted(records | tables)


def disagreements(workspace: Path) -> Iterator[str]:
    """A line for each thing in a workspace that is not what its records and files say."""
    found: dict[Path, Record] = {}
    for path in sorted(workspace.glob("*/*/record.json")):
        try:
            found[path.parent] = read_record(path)
        except DataError as error:
            yield str(error)
    pretrained = {r.key: r for r in found.values() if r.kind == "pretrain"}
    for folder, record in found.items():
        yield from (f"{folder}: {fault}" for fault in _of_record(folder, record, pretrained))
    try:
        yield from _of_tables(workspace, list(found.values()))
    except BenchError as error:
        yield f"{workspace}: the table cannot be made: {error}"


def _of_record(folder: Path, record: Record, pretrained: Mapping[str, Record]) -> Iterator[str]:
    if folder.parent.name != record.kind or not folder.name.endswith(f"-{record.key[:12]}"):
        yield f"the record is of {record.kind} {record.key[:12]}, which belongs in another folder"
    yield from _of_files(folder, record)
    if record.kind == "pretrain":
        return
    encoder = record.identity.get("encoder")
    made = pretrained.get(str(encoder.get("run"))) if encoder else None
    if encoder and made is None and record.details.get("pretraining"):
        yield f"its encoder, run {str(encoder.get('run'))[:12]}, has no record here"
    if encoder and made and made.details["encoder"]["digest"] != encoder["weights"]:
        yield f"its encoder's weights are not those of run {made.key[:12]}"
    yield from _of_metrics(folder, record)


def _of_files(folder: Path, record: Record) -> Iterator[str]:
    for name, digest in record.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"names a file outside its folder: {name}"
        elif not path.exists():
            if path.suffix != ".safetensors":
                yield f"{name} is missing"
        elif file_digest(path) != digest:
            yield f"{name} is not the file that the record names"


def _of_metrics(folder: Path, record: Record) -> Iterator[str]:
    name, _, version = str(record.identity["protocol"]).partition("@")
    current = protocols().get(name)
    if current is None or str(current.version) != version:
        now = current.printed if current else "not installed"
        yield f"{name}@{version} cannot be computed again: it is {now}"
        return
    try:
        harness = harness_of(record)
        metrics = harness.score(predictions_of(record, folder.parent.parent))
        deviations = " ".join([harness.protocol, *harness.config.deviations()])
    except (BenchError, KeyError, ValueError) as error:
        yield f"its metrics cannot be computed again: {error}"
        return
    if deviations != record.details["protocol"]:
        yield f"its protocol is printed as {record.details['protocol']}, and is {deviations}"
    for metric in sorted(metrics.keys() | record.metrics.keys()):
        claimed, computed = record.metrics.get(metric), metrics.get(metric)
        if claimed is None or computed is None:
            yield f"{metric} is {claimed} in the record, {computed} by its predictions"
        elif not math.isclose(claimed, computed, rel_tol=EQUAL, abs_tol=EQUAL):
            yield f"{metric} is {claimed:g} in the record, {computed:g} by its predictions"


def _of_tables(workspace: Path, records: list[Record]) -> Iterator[str]:
    """Tables beside the records, word by word."""
    evaluations = sorted(
        (r for r in records if r.kind == "evaluation"), key=lambda r: r.provenance.finished
    )
    present = [form for form in FORMS if (workspace / f"table.{form}").exists()]
    if present and not evaluations:
        yield f"{workspace}: a table without a record"
    elif present:
        table = Table.of(evaluations, workspace)
        for form in present:
            path = workspace / f"table.{form}"
            if path.read_text(encoding="utf-8") != FORMS[form](table) + "\n":
                yield f"{path} is not the table of the records beside it"
