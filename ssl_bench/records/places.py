"""Where a workspace's images and weights files lie on this machine: `places.json`.

A record says what a set or an encoder is called, and the digest of its content; the path that was
typed is nobody else's business. It is kept beside the records, is part of none, and never exported.
Without it, nothing but the commands that make runs again is lost.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ssl_bench.errors import DataError
from ssl_bench.files import write_atomically
from ssl_bench.records.record import EncoderIdentity, Record

FILE = "places.json"
LARGEST = 1 << 20  # bytes of it
Options = dict[str, str | int]  # of a command, by their names in Python


def remember(workspace: Path, name: str, digests: Iterable[str], options: Options) -> None:
    """Keep what was typed for the contents that a record names; nothing where it cannot be."""
    found = _read(workspace)
    known = {**found, **{_entry(name, digest): options for digest in digests}}
    if known != found and workspace.is_dir():
        with suppress(DataError):  # a workspace that is only read
            write_atomically(workspace / FILE, json.dumps(known, indent=2) + "\n")


def places_of_data(workspace: Path, record: Record) -> list[str | None]:
    """What `--data` took for each of a record's sets; None where it is not known."""
    known = _read(workspace)
    return [_place(known, name, digests) for name, digests in record.sets]


def _place(known: Mapping[str, Any], name: str, digests: Iterable[str]) -> str | None:
    places = {str(known.get(_entry(name, digest), {}).get("data")) for digest in digests}
    return None if len(places) != 1 or "None" in places else places.pop()


def place_of_encoder(workspace: Path, encoder: EncoderIdentity) -> Options | None:
    """What `--encoder`, `--weights` and `--image-size` took for an encoder from elsewhere."""
    found = _read(workspace).get(_entry(encoder.run, encoder.weights))
    return dict(found) if found and "encoder" in found else None


def _entry(name: str, digest: str) -> str:
    return f"{name} {digest}"


def _read(workspace: Path) -> Mapping[str, Any]:
    """What is known; nothing for a file that is damaged or another's."""
    path = workspace / FILE
    try:
        if path.stat().st_size > LARGEST:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: place for name, place in found.items() if isinstance(place, dict)}
