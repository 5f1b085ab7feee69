"""A line for each finished run."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.errors import DataError
from ssl_bench.records.record import EvaluationRecord, Record
from ssl_bench.records.workspace import in_order, read_record


# ---- listings
def run_lines(workspace: Path) -> list[str]:
    """One line per finished run; a damaged record is named instead of hiding the others."""
    lines = [f"{'finished':17} {'kind':11} {'run':58} {'seconds':>8}  result"]
    found = []
    for path in workspace.glob("*/*/record.json"):
        try:
            found.append(read_record(path))
        except DataError as error:
            lines.append(f"damaged: {error}")
    marks = _marks([record for record in found if record.kind == "evaluation"])
    for record in _by_training(in_order(found)):
        if record.kind == "pretrain":
            name = f"{record.reference} on {record.data}"
        else:
            name = f"{record.identity.protocol} {record.identity.layer} of {record.method}"
            name += marks.get(record.key, "")
        first = next(iter(record.metrics.items()), None)
        result = f"{first[0]} {first[1]:.4g}" if first else ""
        when = f"{record.provenance.finished:%Y-%m-%d %H:%M}"
        lines.append(
            f"{when:17} {record.kind:11} {name:58} {record.provenance.seconds:8.1f}  {result}"
        )
    return lines


def _by_training(records: Sequence[Record]) -> list[Record]:
    """With encoders that were kept on the way behind the run that they are of, if it is there."""
    places = {record.key: place for place, record in enumerate(records)}

    def place(record: Record) -> tuple[int, int]:
        if record.kind != "pretrain":
            return places[record.key], 0
        training = record.identity.training
        return places.get(training, places[record.key]), record.identity.kept or 0

    return sorted(records, key=place)


def _marks(records: Sequence[EvaluationRecord]) -> dict[str, str]:
    """What tells encoders of one name apart, by the records' keys: a run's key, or a digest."""
    known = defaultdict[str, set[str]](set)
    for record in records:
        if record.identity.encoder:
            known[record.method].add(record.identity.encoder.weights)
    return {
        record.key: f"@{record.run(6)}" if record.pretraining else f" {encoder.weights[:6]}"
        for record in records
        if (encoder := record.identity.encoder) and len(known[record.method]) > 1
    }
