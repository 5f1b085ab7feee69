"""What stands below a table: what its numbers are, of which images, how the controls came out."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.names import data_names

ABOVE_CHANCE = 4  # standard deviations at which a control is not at chance any more


def interval_of_one(records: Sequence[EvaluationRecord]) -> str:
    """What the interval of a single seed is, by protocol where they differ."""
    kinds = {r.identity.protocol: r.details.interval for r in records}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    by_kind: dict[str, list[str]] = defaultdict(list)
    for protocol, kind in kinds.items():
        by_kind[kind].append(protocol)
    return "; ".join(f"{', '.join(names)} {kind}" for kind, names in by_kind.items())


def metric_notes(shown: Sequence[tuple[EvaluationRecord, str]]) -> list[str]:
    """What each protocol's number is, unless all are top-1 accuracies."""
    named: dict[str, dict[str, None]] = defaultdict(dict)
    for record, metric in shown:
        named[record.identity.protocol][metric] = None
    if {metric for metrics in named.values() for metric in metrics} <= {"top1"}:
        return []
    listed = (f"{protocol}: {', '.join(metrics)}" for protocol, metrics in named.items())
    return ["Metrics: " + "; ".join(listed) + "."]


def control_notes(controls: Sequence[EvaluationRecord]) -> list[str]:
    """How each protocol's runs with shuffled training labels stand to chance."""
    by_protocol: dict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in controls:
        by_protocol[record.identity.protocol].append(record)
    notes = []
    for protocol, records in by_protocol.items():
        values = [r.metrics[r.details.metric] for r in records]
        found = [r.details.control for r in records if r.details.control]
        chance, spread = (
            float(np.mean(v)) for v in zip(*((c.chance, c.spread) for c in found), strict=True)
        )
        worst = max(c.z for c in found)
        verdict = "at chance" if worst < ABOVE_CHANCE else "**ABOVE CHANCE: do not trust the rest**"
        notes.append(
            f"Control, shuffled training labels, {protocol}: {min(values):.1f} to "
            f"{max(values):.1f} over {len(values)} runs, chance {chance:.1f} ± "
            f"{2 * spread:.1f}: {verdict}."
        )
    return notes


def data_notes(records: Sequence[EvaluationRecord]) -> list[str]:
    """What every row has in common: data, number of test images, skipped ones.

    Where protocols see other images of one set, each count is followed by those that it is for.
    """
    notes: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for record, data in zip(records, data_names(records), strict=True):
        notes[data, _counted(record)][record.identity.protocol] = None
    sets = Counter(data for data, _ in notes)
    return [
        f"Data: {data}, {count}" + (f" ({', '.join(protocols)})." if sets[data] > 1 else ".")
        for (data, count), protocols in notes.items()
    ]


def _counted(record: EvaluationRecord) -> str:
    skipped = len(record.details.skipped_images)
    twice = len(record.details.duplicates)
    count = f"{record.details.test_images} test images"
    count += f", {skipped} bad images skipped" if skipped else ""
    return count + (f", **{twice} of them also in train**" if twice else "")
