"""How, when and on what a run was made: said by its record, no part of its key."""

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

from pydantic import BaseModel, field_validator

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
    """The circumstances of a run.

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
