"""The record: one finished run with all that made it."""

import platform
import re
import resource
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator

Kind = Literal["pretrain", "evaluation"]
PACKAGES = (
    "ssl-bench",
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "numpy",
    "scikit-learn",
)


class Provenance(BaseModel):
    """How, when and on what a run was made; none of it is part of the key.

    `seconds` and `peak_memory_mb` are those of the process that finished it.
    """

    command: str  # as typed, but for the folders of the machine it was typed on
    finished: datetime
    seconds: float
    peak_memory_mb: int
    device: str
    python: str
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None

    @field_validator("command")
    @classmethod
    def _without_folders(cls, typed: str) -> str:
        """`folder:/home/me/photos` becomes `folder:…/photos`: records are made to be shared."""
        return _FOLDERS.sub(r"\1…/", typed)


_FOLDERS = re.compile(r"""(^|[\s:=,'"])(?:~|\.{1,2})?/(?:[^/\s:=,'"]+/)*""")


class Record(BaseModel):
    """One finished run. `key` is the digest of `identity`.

    identity    all that determines the result: configuration, versions, digests of data and weights
    method      the pretext that made the encoder, or the encoder's reference
    data        the dataset's printed name
    metrics     the numbers, in the units that their names say
    details     what explains them: selection split, losing points, speed, skipped images
    files       SHA-256 of each file beside the record
    """

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    kind: Kind
    key: str
    identity: dict[str, Any]
    method: str
    data: str
    metrics: dict[str, FiniteFloat]
    details: dict[str, Any]
    files: dict[str, str]
    provenance: Provenance

    @property
    def text(self) -> str:
        """The content of record.json."""
        return self.model_dump_json(indent=2) + "\n"


def provenance_of(started: float, device: str) -> Provenance:
    commit, dirty = _git()
    return Provenance(
        command=shlex.join(["bench", *sys.argv[1:]]),
        finished=datetime.now(UTC),
        seconds=round(time.monotonic() - started, 2),
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        device=device,
        python=platform.python_version(),
        packages=_packages(),
        git_commit=commit,
        git_dirty=dirty,
    )


@cache
def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def _git() -> tuple[str | None, bool | None]:
    """Commit of ssl-bench's own checkout, and whether tracked files differ from it."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "-uno"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
