"""What made a number: printed whole, as the command that makes it again, and made again.

A command follows from the record's identity, not from what was typed. A set that is read from a
folder has no path in a record (`folder:photos`): say where it is with `--data`.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_bench import catalogue
from ssl_bench.comparison import harness_of, predictions_of
from ssl_bench.errors import DataError, UsageError
from ssl_bench.protocols import protocols
from ssl_bench.records import Record, read_records
from ssl_bench.runtime import Runtime


def record_of(workspace: Path, key: str) -> Record:
    """The one run whose key begins with `key`. UsageError for none or several."""
    fitting = [r for r in read_records(workspace) if r.key.startswith(key)]
    if len(fitting) != 1:
        count = "no run" if not fitting else f"{len(fitting)} runs"
        raise UsageError(
            f"{count} in {workspace} with a key that begins with '{key}': `bench runs` lists them"
        )
    return fitting[0]


def command_of(record: Record) -> str:
    """What makes the record anew, with every setting that is not the default."""
    words = ["bench", "pretrain", record.method]
    config = record.identity["config"]
    if record.kind == "pretrain":
        defaults = catalogue.pretext(record.method).Config
    else:
        harness = harness_of(record)
        name = record.identity["protocol"].partition("@")[0]
        if harness is None or name not in protocols():
            raise DataError(f"{record.identity['protocol']} is not installed")
        defaults = harness.Config
        words = protocols()[name].command.split()
        layer = record.details.get("column", record.identity["layer"])
        words += ["--encoder", _encoder(record), *(["--layer", layer] if layer else [])]
    words += ["--data", record.data]
    for setting, field in defaults.model_fields.items():
        value, default = config.get(setting), field.default
        default = list(default) if isinstance(default, tuple) else default
        if value == default or value is None or (setting == "precision" and value == "32"):
            continue
        flag = f"--{setting.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [flag] if value is True else [flag, text]
    return shlex.join(words)


def _encoder(record: Record) -> str:
    encoder = record.identity.get("encoder") or {}
    if record.details.get("pretraining"):
        return f"{record.method}@{encoder['run'][:12]}"
    return str(encoder.get("run", "random"))


def lines_of(record: Record) -> Iterator[str]:
    """All that a record says, for a person."""
    yield f"{record.kind} {record.key}"
    yield f"made again by: {command_of(record)}"
    for title, content in (
        ("metrics", record.metrics),
        ("identity", record.identity),
        ("details", record.details),
        ("provenance", record.provenance.model_dump(mode="json")),
        ("files", record.files),
    ):
        yield f"\n{title}"
        yield from _indented(content)


def _indented(content: Mapping[str, Any]) -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield f"  {name}"
            yield from (f"  {line}" for line in _indented(value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"  {name}"
            yield from (f"    {json.dumps(item, ensure_ascii=False)}" for item in value)
        else:
            yield f"  {name}: {value if isinstance(value, str) else json.dumps(value)}"


def rerun(record: Record, workspace: Path, data: str, runtime: Runtime) -> list[str]:
    """Make a finished run again, apart from it, and say how the two differ; empty: in nothing.

    Weights and predictions are compared bit for bit. Raises DataError for other images.
    """
    with tempfile.TemporaryDirectory(prefix=".rerun-", dir=workspace) as folder:
        apart = Path(folder)
        again = _pretrained if record.kind == "pretrain" else _evaluated
        found = again(record, workspace, apart, data, runtime)
        if found.key != record.key:
            parts = [k for k, v in record.identity.items() if found.identity.get(k) != v]
            return [f"{part} differs: this is another run" for part in parts]
        return list(_differences(record, found, workspace, apart))


def _pretrained(
    record: Record, workspace: Path, apart: Path, data: str, runtime: Runtime
) -> Record:
    from ssl_bench.pretrain import pretrain

    config = catalogue.pretext(record.method).Config(**record.identity["config"])
    return pretrain(record.method, config, data, apart, runtime)


def _evaluated(record: Record, workspace: Path, apart: Path, data: str, runtime: Runtime) -> Record:
    from ssl_bench.evaluate import evaluate
    from ssl_bench.reference import Reference

    harness = harness_of(record)
    if harness is None:
        raise DataError(f"{record.identity['protocol']} is not installed")
    reference = Reference(_encoder(record), workspace)
    layer = record.identity["layer"]
    layers = [layer] if layer in reference.encoder.layers else []
    made = evaluate([(harness, layers)], reference, data, apart, runtime)
    same = [r for r in made if r.identity["layer"] == layer]
    return (same or made)[0]


def _differences(record: Record, found: Record, workspace: Path, apart: Path) -> Iterator[str]:
    for name, value in record.metrics.items():
        if found.metrics.get(name) != value:
            yield f"{name} was {value:g} and is {found.metrics.get(name)}"
    if record.kind == "pretrain":
        before, now = (r.details["encoder"]["digest"] for r in (record, found))
        if before != now:
            yield f"the encoder's weights were {before[:12]} and are {now[:12]}"
        return
    before, now = predictions_of(record, workspace), predictions_of(found, apart)
    for name in sorted(before.keys() | now.keys()):
        if name not in now or name not in before or not np.array_equal(before[name], now[name]):
            yield f"the predictions' {name} differ"
