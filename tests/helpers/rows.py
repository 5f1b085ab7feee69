"""Records of evaluations that were never made, and the lines of a table as CSV has them."""

import csv
import io
from datetime import UTC, datetime

from ssl_bench.records.record import EvaluationRecord, Provenance
from ssl_bench.tables.forms import csv_lines

VALUES = {  # method -> top1 of seeds 0, 1, 2
    "context-encoder": [30.0, 32.0, 34.0],
    "autoencoder": [29.0, 28.0, 30.0],
    "random": [20.0, 22.0, 24.0],
}


def record(
    method, seed, top1, layer="pool5", settings=None, data="scenes", protocol=None, digest="d",
    arch="alexnet", depth=None,
):  # fmt: skip
    made = Provenance(
        command="bench", finished=datetime.now(UTC), seconds=1, peak_memory_mb=1, device="cpu",
        python="3", packages={}, git_commit=None, git_dirty=None,
    )  # fmt: skip
    return EvaluationRecord.model_validate(
        {
            "kind": "evaluation",
            "key": "0",
            "identity": {
                "kind": "evaluation",
                "protocol": "linear/logreg@1",
                "layer": layer,
                "config": {"seed": seed},
                "encoder": {"run": method, "weights": "w", "spec": {"arch": arch}},
                "data": {"train": digest, "test": digest},
            },
            "method": method,
            "data": data,
            "metrics": {"top1": top1, "top1_low": top1 - 2, "top1_high": top1 + 2},
            "details": {
                "metric": "top1",
                "protocol": protocol or "linear/logreg@1",
                "pretraining": {"seed": seed, **(settings or {})},
                "pretraining_data": "scenes",
                "pretraining_digest": digest,
                "test_images": 100,
                "skipped_images": [],
                "depth": depth,
            },
            "files": {},
            "provenance": made,
        }
    )


def records(layer="pool5"):
    return [record(m, s, v, layer) for m, values in VALUES.items() for s, v in enumerate(values)]


def lines_of(table):
    """The lines of the CSV by method."""
    return {line["method"]: line for line in csv.DictReader(io.StringIO(csv_lines(table)))}
