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
from safetensors.numpy import load_file

from ssl_bench import catalogue
from ssl_bench.comparison import harness_class, harness_of, predictions_of, settings_of
from ssl_bench.errors import DataError, UsageError
from ssl_bench.protocols import protocol
from ssl_bench.records import Record, folder_of, read_records
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
    if record.kind == "pretrain":
        words, config = (
            ["bench", "pretrain", record.method],
            catalogue.pretext(record.method).Config,
        )
    else:
        harness = harness_class(record.identity["protocol"])
        if harness is None:
            raise DataError(f"{record.identity['protocol']} is not installed")
        words, config = protocol(harness.protocol).command.split(), harness.Config
        encoder = record.identity.get("encoder")  # none: it is made beside whatever is there
        words += [*(["--encoder", _encoder(record)] if encoder else []), *_layer(record)]
    settings_of(config, record)
    words += ["--data", record.data]
    for name, value in told(config, record.identity["config"]).items():
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [flag] if value is True else [flag, text]
    return shlex.join(words)


def told(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be said for `config` to have these values; a default may follow."""
    known = {k: v for k, v in values.items() if k in config.model_fields}
    said: dict[str, Any] = {}
    for _ in known:
        made = config(**said).model_dump(mode="json")
        if made.get("precision") == "auto" and known.get("precision") == "32":
            made["precision"] = "32"
        wrong = [k for k, v in known.items() if made[k] != v and k not in said]
        if not wrong:
            break
        said |= {k: known[k] for k in wrong}
    return said


def _encoder(record: Record) -> str:
    """A reference to the encoder."""
    encoder = record.identity["encoder"]
    if record.details.get("pretraining"):
        return f"{record.details.get('encoder') or record.method}@{encoder['run'][:12]}"
    return str(encoder["run"])


def _layer(record: Record) -> list[str]:
    layer = record.details.get("asked_layer", record.identity["layer"])
    return ["--layer", layer] if layer else []


def lines_of(record: Record) -> Iterator[str]:
    """All that a record says, for a person."""
    yield f"{record.kind} {record.key}"
    made = "made by a suite's controls; without them" if "control" in record.identity else "made"
    yield f"{made} again by: {command_of(record)}"
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


def rerun(
    record: Record, workspace: Path, data: str, runtime: Runtime, *, skip_bad_images: bool = False
) -> list[str]:
    """Make a finished run again, apart from it, and say how the two differ; empty: in nothing.

    Weights and predictions are compared bit for bit. Raises UsageError for a baseline where the
    workspace has no encoder of its size.
    """
    with tempfile.TemporaryDirectory(prefix=".rerun-", dir=workspace) as folder:
        apart = Path(folder)
        again = _pretrained if record.kind == "pretrain" else _evaluated
        found = again(record, workspace, apart, data, runtime, skip_bad_images)
        if found.key != record.key:
            parts = [k for k, v in record.identity.items() if found.identity.get(k) != v]
            return [f"{part} differs: this is another run" for part in parts]
        return list(_differences(record, found, workspace, apart))


def _pretrained(
    record: Record, workspace: Path, apart: Path, data: str, runtime: Runtime, skip: bool
) -> Record:
    from ssl_bench.pretrain import pretrain

    config = settings_of(catalogue.pretext(record.method).Config, record)
    return pretrain(record.method, config, data, apart, runtime, skip_bad_images=skip)


def _evaluated(
    record: Record, workspace: Path, apart: Path, data: str, runtime: Runtime, skip: bool
) -> Record:
    from ssl_bench.evaluate import evaluate
    from ssl_bench.reference import Reference

    harness = harness_of(record)
    if harness is None:
        raise DataError(f"{record.identity['protocol']} is not installed")
    reference = Reference(_some_encoder(record, workspace), workspace)
    control = record.identity.get("control")
    made = evaluate(
        [(harness, _layer(record)[1:])], reference, data, apart, runtime,
        skip_bad_images=skip, controls=bool(control),
    )  # fmt: skip
    alike = [r for r in made if r.identity.get("control") == control]
    same = [r for r in alike if r.identity["layer"] == record.identity["layer"]]
    return (same or made)[0]


def _some_encoder(record: Record, workspace: Path) -> str:
    """The record's encoder, or for a row without one any of the same size of images."""
    if record.identity.get("encoder"):
        return _encoder(record)
    size = record.identity["image_size"]
    for run in read_records(workspace, "pretrain"):
        if run.details["encoder"]["spec"]["image_size"] == size:
            return f"{run.method}@{run.key[:12]}"
    raise UsageError(
        f"{record.method} needs no encoder, but is made beside one: `bench pretrain random "
        f"--image-size {size}` makes one"
    )


def _differences(record: Record, found: Record, workspace: Path, apart: Path) -> Iterator[str]:
    for name, value in record.metrics.items():
        if found.metrics.get(name) != value:
            yield f"{name} was {value:g} and is {found.metrics.get(name)}"
    if record.kind == "pretrain":
        before, now = (r.details["encoder"]["digest"] for r in (record, found))
        if before != now:
            yield f"the encoder's weights were {before[:12]} and are {now[:12]}"
        yield from _differing_weights(folder_of(workspace, record), folder_of(apart, found))
        return
    before, now = predictions_of(record, workspace), predictions_of(found, apart)
    if different := _unlike(before, now):
        harness = harness_of(found)  # what was imported may be compact
        different = _unlike(before, harness.compact(now)) if harness else different
    yield from (f"the predictions' {name} differ" for name in different)


def _unlike(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that are not the same, value by value."""
    names = sorted(before.keys() | now.keys())
    return [n for n in names if n not in before or n not in now or not _same(before[n], now[n])]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def _differing_weights(before: Path, now: Path) -> Iterator[str]:
    """What a pretext keeps beside its encoder, where it is still there."""
    for path in sorted(before.glob("*.safetensors")):
        if path.name == "encoder.safetensors":
            continue
        held, found = load_file(path), load_file(now / path.name)
        for name in sorted(held.keys() | found.keys()):
            if not np.array_equal(held.get(name, ()), found.get(name, ())):
                yield f"{path.name}: {name} differs"
