"""What made a number, printed whole, and the command that makes it again.

A command follows from the record's identity, not from what was typed. A set that is read from a
folder has no path in a record (`folder:photos`): say where it is with `--data`.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_bench import catalogue
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.protocols import harness_class, protocol, settings_of
from ssl_bench.records.record import EvaluationRecord, Record
from ssl_bench.records.workspace import read_records


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
        harness = harness_class(record.identity.protocol)
        if harness is None:
            raise DataError(f"{record.identity.protocol} is not installed")
        words, config = protocol(harness.protocol).command.split(), harness.Config
        if record.identity.encoder:  # a number without one is made beside whatever is there
            words += ["--encoder", encoder_reference(record)]
        words += ["--layer", record.asked_layer] if record.asked_layer else []
    settings_of(config, record)
    words += ["--data", record.data]
    for name, value in settings_to_state(config, record.identity.config).items():
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [flag] if value is True else [flag, text]
    return shlex.join(words)


def settings_to_state(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be stated for `config` to have these values.

    One default may follow from another setting, so a setting is stated only if it comes out wrong
    with those stated so far.
    """
    known = {k: v for k, v in values.items() if k in config.model_fields}
    stated: dict[str, Any] = {}
    # Each round states one setting at least, so these are enough.
    for _ in known:
        made = config(**stated).model_dump(mode="json")
        # A record holds what `auto` came to: 32 bit on a CPU is nobody's wish.
        if made.get("precision") == "auto" and known.get("precision") == "32":
            made["precision"] = "32"
        wrong = [k for k, v in known.items() if made[k] != v and k not in stated]
        if not wrong:
            break
        stated |= {k: known[k] for k in wrong}
    return stated


def encoder_reference(record: EvaluationRecord) -> str:
    """What `--encoder` takes to have the record's encoder. ValueError for a record without one."""
    encoder = record.identity.encoder
    if encoder is None:
        raise ValueError(f"run {record.key[:12]} has no encoder")
    if record.details.pretraining:
        return f"{record.details.encoder or record.method}@{encoder.run[:12]}"
    return encoder.run


def lines_of(record: Record) -> Iterator[str]:
    """All that a record says, for a person."""
    yield f"{record.kind} {record.key}"
    control = record.kind == "evaluation" and record.identity.control
    made = "made by a suite's controls; without them" if control else "made"
    yield f"{made} again by: {command_of(record)}"
    for title, content in (
        ("metrics", record.metrics),
        ("identity", record.identity.plain()),
        ("details", record.details.plain()),
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
