"""What made a number, printed whole, and the command that makes it again.

A command follows from the record's identity, not from what was typed. A set that is read from a
folder has no path in a record (`folder:photos`), nor has a weights file: a workspace may remember
them (places.py), else `PATH` stands in their place.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_bench import catalogue
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.places import Options, place_of_encoder, places_of_data
from ssl_bench.records.protocols import harness_class, protocol, settings_of
from ssl_bench.records.record import EvaluationRecord, PretrainRecord, Record
from ssl_bench.records.workspace import read_records

PATH = "PATH"  # in a command: what only who runs it knows


def record_of(workspace: Path, key: str) -> Record:
    """The one run whose key begins with `key`, or KEY:STEP, also behind METHOD@.

    UsageError for none or several.
    """
    method, _, key = key.rpartition("@")
    if ":" in key:
        training, _, step = key.partition(":")
        fitting = [
            r
            for r in read_records(workspace, "pretrain")
            if r.identity.training.startswith(training) and str(r.identity.kept) == step
        ]
    else:
        fitting = [r for r in read_records(workspace) if r.key.startswith(key)]
    fitting = [r for r in fitting if method in ("", r.method)]
    if len(fitting) != 1:
        count = "no run" if not fitting else f"{len(fitting)} runs"
        raise UsageError(
            f"{count} in {workspace} with a key that begins with '{key}': `bench runs` lists them"
        )
    return fitting[0]


def command_of(record: Record, workspace: Path | None = None) -> str:
    """What makes the record anew, with every setting that is not the default.

    With a `workspace`, by the paths of this machine that it remembers.
    """
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
            words += _words(encoder_options(record, workspace))
        words += ["--layer", record.asked_layer] if record.asked_layer else []
    settings_of(config, record)
    places = places_of_data(workspace, record) if workspace else [None] * len(record.sets)
    for (name, _), place in zip(record.sets, places, strict=True):
        words += ["--data", place or without_place(name)]
    stated = settings_to_state(config, record.identity.config)
    if isinstance(record, PretrainRecord) and (parent := record.details.parent):
        stated["start"] = parent[: parent.index("@") + 13]
    words += _words(stated)
    if isinstance(record, PretrainRecord) and record.identity.kept:
        words += ["--keep-at", str(record.identity.kept)]
    return shlex.join(words)


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield ",".join(map(str, value)) if isinstance(value, list) else str(value)


def without_place(data: str) -> str:
    """A set's printed name as `--data` takes it: `folder:PATH` where it says no more than a name.

    Other sets are called what they are asked for by: `voc07`, `scenes:train=60`.
    """
    kind, _, argument = data.partition(":")
    if kind not in catalogue.names("data"):
        return f"SET:{PATH}"
    name, comma, options = argument.partition(",")
    return data if not name or "=" in name else f"{kind}:{PATH}{comma}{options}"


def settings_to_state(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be stated for `config` to have these values.

    One default may follow from another setting, so a setting is stated only if it comes out wrong
    with those stated so far.
    """
    known = {k: v for k, v in values.items() if k in config.model_fields}
    stated: dict[str, Any] = {}
    if recipe := known.get("recipe"):  # of another version than today's, it stands for nothing
        stated = {"recipe": recipe} if config.named(recipe) else dict(known)
    # Each round states one setting at least, so these are enough.
    for _ in known:
        # A record holds what `auto` came to, which is another precision on another machine.
        made = config(**stated).model_dump(mode="json")
        # What is left out at its default is not in `made`.
        wrong = [k for k, v in known.items() if made.get(k) != v and k not in stated]
        if not wrong:
            break
        stated |= {k: known[k] for k in wrong}
    return stated


def encoder_options(record: EvaluationRecord, workspace: Path | None = None) -> Options:
    """`encoder`, and `weights` and `image_size` where they are set, as an evaluation takes them.

    A path that is not remembered is PATH. ValueError for a record without an encoder.
    """
    encoder = record.identity.encoder
    if encoder is None:
        raise ValueError(f"run {record.key[:12]} has no encoder")
    if record.details.pretraining:
        return {"encoder": f"{record.details.encoder or record.method}@{record.run()}"}
    if workspace and (place := place_of_encoder(workspace, encoder)):
        return place
    named = re.fullmatch(r"(\S+?)( (\d+)px)?( weights=.*)?", encoder.run)
    if named is None or not (named[4] or ":" in named[1]):  # a weights file of ours
        return {"encoder": PATH}
    size: Options = {"image_size": int(named[3])} if named[3] else {}
    return {"encoder": named[1], **({"weights": PATH} if named[4] else {}), **size}


def lines_of(record: Record, workspace: Path) -> Iterator[str]:
    """All that a record of this workspace says, for a person."""
    yield f"{record.kind} {record.key}"
    control = record.kind == "evaluation" and record.identity.control
    made = "made by a suite's controls; without them" if control else "made"
    yield f"{made} again by: {command_of(record, workspace)}"
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
