"""Finished runs changed as an editor, or somebody who means harm, would change them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssl_bench.files import file_digest, key_of


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run's record as an editor would."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def answer_otherwise(folder: Path) -> None:
    """Store a wrong answer where there was a right one, or the other way round."""
    path = folder / "predictions.npz"
    with np.load(path) as rows:
        arrays = dict(rows)
    hit = arrays["predicted"][0] == arrays["label"][0]
    arrays["predicted"][0] = arrays["label"][0] + (1 if hit else 0)
    np.savez_compressed(path, **arrays)


def rekeyed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the identity, and with it the key and the folder's name, as a run of its own has."""

    def both(record: dict[str, Any]) -> None:
        change(record["identity"])
        record["key"] = key_of(record["identity"])

    edit(folder, both)
    key = json.loads((folder / "record.json").read_text())["key"]
    return folder.rename(folder.with_name(f"{folder.name.rpartition('-')[0]}-{key[:12]}"))


def named(bench, path, *parts: object) -> list[str]:
    """The disagreements that `bench verify` prints: some, and all parts are in one of them."""
    result = bench("verify", path)
    assert result.code == 1, result
    lines = result.out.splitlines()
    assert any(all(str(part) in line for part in parts) for line in lines), (parts, result.out)
    assert f"{len(lines)} disagreement{'s' * (len(lines) != 1)}" in result.err
    return lines


def with_digest(folder: Path) -> None:
    """The record names the predictions as they are now."""
    digest = file_digest(folder / "predictions.npz")
    edit(folder, lambda record: record["files"].update({"predictions.npz": digest}))


class Payload:
    """What a pickle would run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
