"""Records: every number with all that made it, and the workspace that holds them.

A run is a folder `<kind>/<name>-<key>` in the workspace. Its key is a digest of its identity: all
that determines the number. `record.json` is written last and at once, so a folder with one is a
finished run, and a folder without one is work to be continued.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, field_validator
from safetensors import SafetensorError

from ssl_bench.errors import Busy, DataError, UsageError, unknown
from ssl_bench.form import check_form
from ssl_bench.progress import say

Kind = Literal["pretrain", "evaluation"]
UMASK = os.umask(0)
os.umask(UMASK)
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


def key_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of what determines a result."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Run:
    """A run's folder, finished or not."""

    def __init__(self, workspace: Path, kind: Kind, name: str, identity: Mapping[str, Any]) -> None:
        self.kind: Kind = kind
        self.identity = dict(identity)
        self.key = key_of(identity)
        slug = "".join(c if c.isalnum() or c in "-." else "-" for c in name)
        self.folder = workspace / kind / f"{slug}-{self.key[:12]}"

    @property
    def record(self) -> Record | None:
        """The record if the run is finished; DataError if it is damaged."""
        path = self.folder / "record.json"
        return read_record(path) if path.exists() else None

    @contextmanager
    def working(self, *, wait: bool = True) -> Iterator[Path]:
        """The folder, made and locked. Where another process holds it: wait, or raise Busy."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.folder, *self.folder.iterdir()):
                if path.is_symlink():
                    raise DataError(f"{path} is a link: nothing is written through it; remove it")
            lock = open(self.folder / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise DataError(
                f"cannot write to {self.folder}: {error.strerror}; choose another --workspace"
            ) from error
        with lock:
            self._take(lock.fileno(), wait=wait)
            if not self._is_current(lock.fileno()):  # removed while this process waited
                lock.close()
                with self.working(wait=wait) as folder:
                    yield folder
                return
            for path in self.folder.rglob(".*.writing"):  # of a process that was killed
                path.unlink(missing_ok=True)
            yield self.folder

    def _take(self, lock: int, *, wait: bool) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise Busy(f"another process is at {self.folder.name}") from error
            say(f"waiting for another process, which is at {self.folder.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)

    def _is_current(self, lock: int) -> bool:
        """Whether an open lock is still the one that another process would take."""
        try:
            return os.path.samestat(os.fstat(lock), os.stat(self.folder / ".lock"))
        except FileNotFoundError:
            return False

    def finish(
        self,
        *,
        method: str,
        data: str,
        metrics: Mapping[str, float],
        details: Mapping[str, Any],
        started: float,
        device: str,
    ) -> Record:
        """Write the record, last and at once. `started` is of time.monotonic()."""
        files = {
            path.relative_to(self.folder).as_posix(): file_digest(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix in (".safetensors", ".npz", ".png")
        }
        record = Record(
            kind=self.kind,
            key=self.key,
            identity=self.identity,
            method=method,
            data=data,
            metrics=dict(metrics),
            details=dict(details),
            files=files,
            provenance=_provenance(started, device),
        )
        write_atomically(self.folder / "record.json", record.text)
        self.sweep()
        return record

    def sweep(self) -> None:
        """Remove the checkpoints of a finished run; a kill may have come before."""
        for name in ("checkpoint.pt", ".checkpoint.pt.*writing"):
            for path in self.folder.rglob(name):
                with suppress(OSError):  # a workspace that is only read keeps them
                    path.unlink()


def _provenance(started: float, device: str) -> Provenance:
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


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """A scratch file to write: in the end it takes the place of `path`, whole, or is gone.

    Libraries hide a full disk behind errors of their own; all of them become a DataError.
    """
    name = path.name if len(path.name.encode()) < 240 else key_of({"name": path.name})
    scratch = path.with_name(f".{name}.{os.getpid()}.writing")
    try:
        scratch.unlink(missing_ok=True)  # a link would be written through
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        scratch.chmod(0o666 & ~UMASK)  # safetensors writes for its owner only
        scratch.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise DataError(
            f"cannot write {path}: {reason}; make room or choose another --workspace"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all, also after a power cut."""
    with written_at_once(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_predictions(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One row per test image in each array; compressed, no pickles."""
    with written_at_once(path) as scratch, open(scratch, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_record(path: Path) -> Record:
    """Read and check one record; DataError names a damaged or foreign one."""
    remedy = f"remove the folder {path.parent} and run again; other runs are not touched"
    try:
        if not path.is_file():
            raise OSError(errno.EINVAL, "not a regular file")
        record = Record.model_validate_json(path.read_bytes())
        check_form(record.model_dump(mode="json"))
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} errors): {remedy}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): {remedy}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if record.key != key_of(record.identity):
        raise DataError(f"{path}: its key does not fit its identity: {remedy}")
    return record


def read_records(workspace: Path, kind: Kind | None = None) -> list[Record]:
    """All finished runs, oldest first. DataError at the first damaged one."""
    kinds = [kind] if kind else ["pretrain", "evaluation"]
    paths = [path for k in kinds for path in sorted((workspace / k).glob("*/record.json"))]
    return in_order(read_record(path) for path in paths)


def in_order(records: Iterable[Record]) -> list[Record]:
    """Oldest first; of one moment by key, so that all commands agree."""
    return sorted(records, key=lambda r: (r.provenance.finished, r.key))


def workspaces_below(path: Path) -> list[Path]:
    """The workspaces at or below `path`: folders that hold records, sorted."""
    found = {record.parent.parent.parent for record in path.rglob("record.json")}
    return sorted(f for f in found if not _hidden(f.relative_to(path)))


def _hidden(path: Path) -> bool:
    """Whether it lies in what a command makes for itself, and a kill may have left."""
    return any(part.startswith(".") for part in path.parts)


def folder_of(workspace: Path, record: Record) -> Path:
    """The folder that holds a record of this workspace."""
    found = list((workspace / record.kind).glob(f"*-{record.key[:12]}"))
    if not found:
        raise DataError(f"run {record.key[:12]} is not in {workspace}")
    return found[0]


def find_run(workspace: Path, reference: str) -> Record:
    """The pretraining run that `method` (the newest) or `method@key` names."""
    method, _, key = reference.partition("@")
    runs = read_records(workspace, "pretrain")
    fitting = [r for r in runs if r.method == method and r.key.startswith(key)]
    if not fitting and key and any(r.method == method for r in runs):
        raise UsageError(
            f"no run of {method} in {workspace} has a key that begins with '{key}'; "
            "`bench runs` lists them"
        )
    if not fitting:
        error = unknown("encoder", reference, {r.method for r in runs})
        raise UsageError(f"{error}; `bench pretrain METHOD` makes one in {workspace}")
    return fitting[-1]
