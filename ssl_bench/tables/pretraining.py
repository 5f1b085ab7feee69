"""What rows were pretrained on, for how long, in which precision, where they differ in it."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ssl_bench import catalogue
from ssl_bench.errors import plain
from ssl_bench.records.budget import budget
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.names import pretraining_sets
from ssl_bench.tables.table import Table


def pretraining_notes(table: Table) -> list[str]:
    """A line on the images, length and precision of trainings, if names do not tell them apart.

    Rows without a training, such as random weights, and encoders from elsewhere have none.
    """
    trained = {row: settings for row, settings in _trainings(table).items() if settings}
    differing = {
        name
        for name in ("steps", "batch_size", "precision", "on")
        if len({settings[name] for settings in trained.values() if name in settings}) > 1
    }
    if all(_says(row, settings, differing) for row, settings in trained.items()):
        return []
    rows = defaultdict[str, list[str]](list)
    for row, settings in trained.items():
        rows[_text(settings)].append(plain(row))
    return [
        "Pretraining differs: "
        + "; ".join(f"{text}: {', '.join(of)}" for text, of in rows.items())
        + "."
    ]


def pretraining_of(table: Table, row: str) -> str:
    """`200 steps of 64 on scenes`; empty for a row without a training of ours."""
    return _text(_trainings(table)[row])


def _trainings(table: Table) -> dict[str, dict[str, Any]]:
    """The settings of each row that say it, and the images, as `on`; empty for those of no row.

    What all were computed in is left out.
    """
    records = [table.record_of(row) for row in table.rows]
    named = zip(table.rows, records, pretraining_sets(records), strict=True)
    found = {row: _training(record, images) for row, record, images in named}
    if len({settings["precision"] for settings in found.values() if "precision" in settings}) < 2:
        for settings in found.values():
            settings.pop("precision", None)
    return found


def _training(record: EvaluationRecord, images: str) -> dict[str, Any]:
    settings = record.pretraining
    # A fitted pretext has no steps, and its images make its weights all the same.
    method = record.details.encoder or record.method
    if "steps" not in settings and not catalogue.said_of("pretext", method, "fit"):
        return {}
    names = ("steps", "batch_size", "precision")
    found = {name: settings[name] for name in names if name in settings}
    kept = {"kept": record.details.kept.step} if record.details.kept else {}
    return {**found, **kept, "on": images}


def _says(row: str, settings: Mapping[str, str], differing: set[str]) -> bool:
    words = f"{row} "
    return all(
        f"on {settings[name]} " in words if name == "on" else f" {name}={settings[name]} " in words
        for name in differing & settings.keys()
    )


def _text(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    length = budget(settings, settings.get("kept"))
    computed = {"32": "in 32 bit ", "bf16": "in bf16 "}.get(settings.get("precision", ""), "")
    return f"{length} {computed}on {settings['on']}".strip()
