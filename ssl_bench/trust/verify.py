"""Verification: what is claimed is computed again from what is stored.

For every record below a path: its key from its identity, the digest of each file beside it, its
metrics from its predictions, its encoder from the pretraining record beside it; and every table
from the records beside it. Each disagreement is named. Weights need not be there (committed results
leave them out); predictions must be.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssl_bench.data.store.concat import joined_digest
from ssl_bench.errors import BenchError, DataError, UsageError, counted
from ssl_bench.evaluation.harness import printing, score_with_intervals
from ssl_bench.files import file_digest
from ssl_bench.progress import waiting
from ssl_bench.records.protocols import harness_of, protocols
from ssl_bench.records.record import EvaluationRecord, Kept, PretrainRecord, Record
from ssl_bench.records.workspace import in_order, predictions_of, read_record, workspaces_below
from ssl_bench.tables.forms import FORMS
from ssl_bench.tables.table import Table

EQUAL = 1e-9  # relative: the same arithmetic on another machine


def workspaces_in(path: Path) -> list[Path]:
    """Folders at or below `path` that hold records or a table. UsageError if there is none."""
    tables = {found.parent for form in FORMS for found in path.rglob(f"table.{form}")}
    if not (found := tables.union(workspaces_below(path))):
        raise UsageError(f"{path} holds no record and no table")
    return sorted(found)


def disagreements(workspace: Path) -> Iterator[str]:
    """A line for each thing in a workspace that is not what its records and files say."""
    found: dict[Path, Record] = {}
    keys: dict[str, Path] = {}
    for path in sorted(workspace.glob("*/*/record.json")):
        try:
            record = found[path.parent] = read_record(path)
        except DataError as error:
            yield str(error)
            continue
        if record.key in keys:
            yield f"{path.parent}: run {record.key[:12]} is in {keys[record.key]} too"
        keys.setdefault(record.key, path.parent)
    pretrained = {r.key: r for r in found.values() if r.kind == "pretrain"}
    with waiting(f"verifying {workspace}") as wait:
        for place, (folder, record) in enumerate(found.items()):
            wait.done, wait.total, wait.unit = place, len(found), "records"
            # A harness meets arrays that anybody may have made: what it raises is a finding.
            try:
                faults = list(_of_record(folder, record, pretrained))
            except MALFORMED as error:
                faults = [f"the record cannot be checked: {_line(error)}"]
            yield from (f"{folder}: {fault}" for fault in faults)
    try:
        with waiting(f"the table of {workspace} again"):
            yield from _of_tables(workspace, list(found.values()))
    except (BenchError, *MALFORMED) as error:
        yield f"{workspace}: the table cannot be made: {_line(error)}"


# What a record or an array of another form leads to.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)


def _line(error: Exception) -> str:
    """An error in one line, with its kind where the text says little."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"


def _of_record(
    folder: Path, record: Record, pretrained: Mapping[str, PretrainRecord]
) -> Iterator[str]:
    if folder.parent.name != record.kind or not folder.name.endswith(f"-{record.key[:12]}"):
        yield f"the record is of {record.kind} {record.key[:12]}, which belongs in another folder"
    yield from _of_files(folder, record)
    if record.kind == "pretrain":
        if _course(record.details.kept) != _course_of(record):
            yield "it was not kept where its details say"
        yield from _of_sets(record)
        yield from _of_parent(record, pretrained)
        return
    if "predictions.npz" not in record.files:
        yield "predictions.npz is not among the files that it names"
    yield from _of_encoder(record, pretrained)
    yield from _of_metrics(folder, record)


def _of_sets(record: PretrainRecord) -> Iterator[str]:
    """What it says of the several sets that made its images, beside digest and number of these."""
    sets, details = record.details.sets, record.details
    if sets and joined_digest(part.digest for part in sets) != record.identity.data:
        yield "the sets that it names are not the images that it is made from"
    if sets and sum(part.images for part in sets) != details.images:
        yield f"the sets that it names do not have {details.images} images together"


def _of_parent(record: PretrainRecord, pretrained: Mapping[str, PretrainRecord]) -> Iterator[str]:
    """What it says of the run that it starts from, beside that run's own record, if it is here."""
    made = pretrained.get((record.details.parent or "").partition("@")[2])
    start = record.identity.start
    if made and made.details.encoder.digest != start:
        yield f"it does not start from the weights of run {made.key[:12]}"
    if start and record.details.encoder.start != start:
        yield "its starting weights are not those of its key"


def _of_encoder(
    record: EvaluationRecord, pretrained: Mapping[str, PretrainRecord]
) -> Iterator[str]:
    """What the record says of its encoder, beside what the encoder's own record says."""
    encoder, details = record.identity.encoder, record.details
    made = pretrained.get(encoder.run) if encoder else None
    if encoder and made is None and details.pretraining:
        yield f"its encoder, run {encoder.run[:12]}, has no record here"
    if not encoder or made is None:
        if details.pretraining and not encoder:
            yield "it has no encoder, but says how one was pretrained"
        return
    if made.details.encoder.digest != encoder.weights:
        yield f"its encoder's weights are not those of run {made.key[:12]}"
    # Another point of the harness (a search by a layer's features, say) has a row of its own: but
    # one with the name of a pretext is that pretext's.
    own = record.column == record.identity.layer or not record.asked_layer
    own = own or record.method in {run.method for run in pretrained.values()}
    if own and record.method != made.method:
        yield f"its method is {record.method}, its encoder is of {made.method}"
    said = {
        "pretraining": made.identity.config,
        "pretraining_data": made.data,
        "pretraining_digest": made.identity.data,
        "pretext_version": made.identity.version,
    }
    if _course(details.kept) != _course_of(made):
        yield f"it does not say at which step run {made.key[:12]} was kept"
    for name, value in said.items():
        if name in details.model_fields_set and getattr(details, name) != value:
            yield f"{name} is not that of run {made.key[:12]}"


def _course(kept: Kept | None) -> tuple[str, int] | None:
    return (kept.run, kept.step) if kept else None


def _course_of(run: PretrainRecord) -> tuple[str, int] | None:
    """The training and the step of an encoder that was kept on the way, by its identity."""
    step = run.identity.kept
    return (run.identity.training, step) if step else None


def _of_files(folder: Path, record: Record) -> Iterator[str]:
    for name, digest in record.files.items():
        path = folder / name
        # Also through a link: a digest of a file elsewhere would tell what is in it.
        if not path.resolve().is_relative_to(folder.resolve()):
            yield f"names a file outside its folder: {name}"
        elif not path.exists():
            if path.suffix != ".safetensors":
                yield f"{name} is missing"
        elif file_digest(path) != digest:
            yield f"{name} is not the file that the record names"


def _of_metrics(folder: Path, record: EvaluationRecord) -> Iterator[str]:
    name, _, version = record.identity.protocol.partition("@")
    current = protocols().get(name)
    if current is None or str(current.version) != version:
        now = current.printed if current else "not installed"
        yield f"{name}@{version} cannot be computed again: it is {now}"
        return
    try:
        harness = harness_of(record)
        predictions = predictions_of(record, folder.parent.parent)
        metrics = score_with_intervals(harness, predictions)
        printed = printing(harness, predictions)
        deviations = " ".join([harness.protocol, *harness.config.deviations()])
        counts = {name: len(rows) for name, rows in predictions.items()}
    except (BenchError, *MALFORMED) as error:
        yield f"its metrics cannot be computed again: {_line(error)}"
        return
    for name, count in counts.items():
        if count != record.details.test_images:
            images = counted(record.details.test_images, "test image")
            yield f"{name} has {counted(count, 'row')} for {images}"
    for name, value in printed.items():
        # What an earlier version did not say cannot be wrong.
        claimed = getattr(record.details, name)
        if name in record.details.model_fields_set and claimed != value:
            yield f"{name} is {claimed}, and {harness.protocol} has {value}"
    if deviations != record.details.protocol:
        yield f"its protocol is printed as {record.details.protocol}, and is {deviations}"
    for metric in sorted(metrics.keys() | record.metrics.keys()):
        claimed, computed = record.metrics.get(metric), metrics.get(metric)
        if claimed is None or computed is None:
            yield f"{metric} is {claimed} in the record, {computed} by its predictions"
        elif not math.isclose(claimed, computed, rel_tol=EQUAL, abs_tol=EQUAL):
            yield f"{metric} is {claimed:g} in the record, {computed:g} by its predictions"


def _of_tables(workspace: Path, records: list[Record]) -> Iterator[str]:
    """Tables beside the records, word by word."""
    evaluations = in_order(r for r in records if r.kind == "evaluation")
    present = [form for form in FORMS if (workspace / f"table.{form}").exists()]
    if present and not evaluations:
        yield f"{workspace}: a table without a record"
    elif present:
        table = Table.of(evaluations, workspace)
        for form in present:
            path = workspace / f"table.{form}"
            if path.read_bytes() != (FORMS[form](table) + "\n").encode():
                yield f"{path} is not the table of the records beside it"
