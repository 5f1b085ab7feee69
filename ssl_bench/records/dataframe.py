"""Records as a pandas DataFrame."""

from pathlib import Path
from typing import Any

import pandas as pd

from ssl_bench.errors import UsageError
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.records.workspace import read_records, workspaces_below

SIDES = ("_low", "_high")


def frame_of(path: Path) -> pd.DataFrame:
    """See ssl_bench.load_records."""
    lines = [
        line
        for folder in workspaces_below(path)
        for record in read_records(folder, "evaluation")
        for line in _lines(record, folder)
    ]
    if not lines:
        raise UsageError(f"{path} holds no evaluation")
    return pd.DataFrame(lines)


def _lines(record: EvaluationRecord, workspace: Path) -> list[dict[str, Any]]:
    metrics, encoder, kept = record.metrics, record.identity.encoder, record.details.kept
    shared = {
        "key": record.key,
        "method": record.method,
        "protocol": record.details.protocol,
        "layer": record.identity.layer,
        "data": record.data,
    }
    rest = {
        "pretraining_seed": record.pretraining.get("seed"),
        "pretraining_step": kept.step if kept else record.pretraining.get("steps"),
        "seed": record.identity.config["seed"],
        "encoder": encoder.run if encoder else None,
        "weights": encoder.weights if encoder else None,
        "control": record.identity.control,
        "test_images": record.details.test_images,
        "finished": record.provenance.finished,
        "workspace": str(workspace),
    }
    return [
        {
            **shared,
            "metric": name,
            "value": value,
            **{side[1:]: metrics.get(name + side, float("nan")) for side in SIDES},
            **rest,
        }
        for name, value in metrics.items()
        if not name.endswith(SIDES)
    ]
