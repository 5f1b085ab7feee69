"""Protocols: the canonical settings of each evaluation as a named, versioned, frozen object.

An evaluation's class says them by its `protocol`, the defaults of its `Config` and its `source`;
here they are gathered, with a digest over all of it. A change of any setting changes the digest,
and a test asks for a new version then.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ssl_bench import catalogue
from ssl_bench.errors import DataError, UsageError, unknown
from ssl_bench.files import key_of
from ssl_bench.records.record import EvaluationRecord, Record


@dataclass(frozen=True)
class Protocol:
    """`name` is without the version; `settings` are the canonical ones, by their options' names."""

    name: str
    version: int
    command: str
    metric: str
    source: str
    settings: Mapping[str, Any]

    @property
    def printed(self) -> str:
        """As in tables: `linear/logreg@1`."""
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """Of name, version, metric and settings: 12 hexadecimal digits."""
        content = {
            "name": self.name, "version": self.version, "metric": self.metric,
            "settings": dict(self.settings),
        }  # fmt: skip
        return key_of(content)[:12]


@cache
def _installed() -> Mapping[str, tuple[Protocol, Any]]:
    """Each protocol with the class of its harness, by name without version."""
    found: dict[str, tuple[Protocol, Any]] = {}
    for entry, harness in catalogue.find_all("eval").items():
        try:
            protocol = _protocol_of(entry, harness)
            if protocol.name in found:
                raise ValueError(f"there is another {found[protocol.name][0].printed}")
        except Exception as error:  # a stranger's class: it must not take the others with it
            catalogue.left_out("eval", entry, error)
        else:
            found[protocol.name] = protocol, harness
    return MappingProxyType(dict(sorted(found.items())))


def _protocol_of(entry: str, harness: Any) -> Protocol:
    name, _, version = harness.protocol.partition("@")
    command, _, variant = entry.partition(".")
    settings = json.loads(harness.Config().model_dump_json(exclude={"seed"}))
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Protocol(
        name=name,
        version=int(version),
        command=f"bench {command}" + (f" --protocol {name.rpartition('/')[2]}" if variant else ""),
        metric=harness(harness.Config()).metrics[0].name,
        source=harness.source,
        settings=MappingProxyType(settings),
    )


def protocols() -> Mapping[str, Protocol]:
    """All that are installed, by name without version."""
    return MappingProxyType({name: protocol for name, (protocol, _) in _installed().items()})


def protocol(name: str) -> Protocol:
    """The protocol called `name`, with its version or without. Raises UsageError for another."""
    base, _, version = name.partition("@")
    known = protocols()
    if base not in known:
        raise unknown("protocol", name, [p.printed for p in known.values()])
    if version and version != str(known[base].version):
        raise UsageError(f"{name} is not installed: this is {known[base].printed}")
    return known[base]


def stale(record: EvaluationRecord) -> str | None:
    """Why an evaluation's number would come out otherwise today; None if it would not.

    A protocol that is not installed is not judged.
    """
    name, _, version = record.identity.protocol.partition("@")
    current = protocols().get(name)
    if current is not None and str(current.version) != version:
        return f"made by {name}@{version}, which is {current.printed} now"
    method, made_by = record.method, record.details.pretext_version
    version = catalogue.said_of("pretext", method, "version")
    if made_by is not None and version is not None and version != made_by:
        return f"its encoder is of {method} version {made_by}, which is {version} now"
    return None


def harness_of(record: EvaluationRecord) -> Any:
    """The harness that made a record, with its settings; None where it is not installed."""
    harness = harness_class(record.identity.protocol)
    if harness is None or harness.protocol != record.identity.protocol:
        return None
    return harness(settings_of(harness.Config, record))


def settings_of(config: Any, record: Record) -> Any:
    """The settings in a record's identity; DataError for those that `config` does not take."""
    try:
        return config(**record.identity.config)
    except ValidationError as error:
        raise DataError(
            f"run {record.key[:12]}: its settings are not those of {config.__name__}"
        ) from error


def harness_class(protocol: str) -> Any:
    """The installed class of a protocol, of whatever version; None where there is none."""
    _, harness = _installed().get(protocol.partition("@")[0], (None, None))
    return harness
