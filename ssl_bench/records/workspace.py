"""Records: every number with all that made it, and the workspace that holds them.

A run is a folder `<kind>/<name>-<key>` in the workspace. Its key is a digest of its identity: all
that determines the number. `record.json` is written last and at once, so a folder with one is a
finished run, and a folder without one is work to be continued.
"""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload
from zipfile import ZipFile

import numpy as np
from pydantic import ValidationError

from ssl_bench.errors import Busy, DataError, UsageError, unknown
from ssl_bench.files import file_digest, key_of, write_atomically, written_at_once
from ssl_bench.progress import say, waiting
from ssl_bench.records.provenance import provenance_of
from ssl_bench.records.record import (
    EvaluationDetails,
    EvaluationIdentity,
    EvaluationRecord,
    Kind,
    PretrainDetails,
    PretrainIdentity,
    PretrainRecord,
    Record,
    parse_record,
)

R = TypeVar("R", bound=Record)
LONGEST = 255 - 13  # bytes of a folder's name, less the hyphen and the beginning of the key


class Run(Generic[R]):
    """A run's folder, finished or not, with a record of type `form`."""

    def __init__(
        self,
        workspace: Path,
        form: type[R],
        name: str,
        identity: PretrainIdentity | EvaluationIdentity,
    ) -> None:
        self.form = form
        self.identity = identity
        self.key = key_of(identity.plain())
        # For people; what tells runs apart is the key. A name may hold anything, `../` too.
        slug = "".join(c if c.isalnum() or c in "-." else "-" for c in name)
        self.folder = workspace / identity.kind / f"{_shortened(slug)}-{self.key[:12]}"

    @property
    def record(self) -> R | None:
        """The record if the run is finished; DataError if it is damaged or another's."""
        path = self.folder / "record.json"
        if not path.exists():
            return None
        record = read_record(path)
        if not isinstance(record, self.form):
            raise DataError(f"{path} is of another kind of run: remove the folder {path.parent}")
        return record

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
            title = f"waiting for another process, which is at {self.folder.name}"
            say(title)
            with waiting(title):
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
        details: PretrainDetails | EvaluationDetails,
        started: float,
        device: str,
    ) -> R:
        """Write the record, last and at once. `started` is of time.monotonic()."""
        # What is compared later: logs and checkpoints are not.
        files = {
            path.relative_to(self.folder).as_posix(): file_digest(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix in (".safetensors", ".npz", ".png")
        }
        # By name, kind and schema_version too: what is not set is not written.
        record = self.form.model_validate(
            {
                "schema_version": 1,
                "kind": self.identity.kind,
                "key": self.key,
                "identity": self.identity,
                "method": method,
                "data": data,
                "metrics": dict(metrics),
                "details": details,
                "files": files,
                "provenance": provenance_of(started, device),
            }
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


def _shortened(slug: str) -> str:
    """Cut where its folder's name would be longer than file systems take; the key is behind it."""
    return slug.encode(errors="replace")[:LONGEST].decode(errors="ignore")


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
        record = parse_record(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} errors): {remedy}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): {remedy}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    # Over all that the identity says, also what only a later version knows.
    if record.key != key_of(record.identity.plain()):
        raise DataError(f"{path}: its key does not fit its identity: {remedy}")
    return record


@overload
def read_records(workspace: Path, kind: Literal["pretrain"]) -> list[PretrainRecord]: ...
@overload
def read_records(workspace: Path, kind: Literal["evaluation"]) -> list[EvaluationRecord]: ...
@overload
def read_records(workspace: Path, kind: None = None) -> list[Record]: ...
def read_records(workspace: Path, kind: Kind | None = None) -> list[Any]:
    """All finished runs, oldest first. DataError at the first damaged one."""
    kinds = [kind] if kind else ["pretrain", "evaluation"]
    paths = [path for k in kinds for path in sorted((workspace / k).glob("*/record.json"))]
    return in_order(read_record(path) for path in paths)


def in_order(records: Iterable[R]) -> list[R]:
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


def find_run(workspace: Path, reference: str) -> PretrainRecord:
    """The run that `method` (the newest finished), `method@key` or `method@key:step` names."""
    method, _, key = reference.partition("@")
    key, colon, step = key.partition(":")
    runs = read_records(workspace, "pretrain")
    own = [r for r in runs if r.method == method]
    if colon:
        return _kept(own, reference, key, step)
    # An encoder that was kept on the way has a key, too, but is nobody's newest.
    fitting = [r for r in own if r.key.startswith(key) and (key or not r.identity.kept)]
    if not fitting and key and own:
        raise UsageError(
            f"no run of {method} in {workspace} has a key that begins with '{key}'; "
            "`bench runs` lists them"
        )
    if key and len(fitting) > 1:
        choices = " or ".join(r.reference for r in fitting)
        raise UsageError(f"{reference} is {len(fitting)} runs in {workspace}: name one, {choices}")
    if not fitting:
        error = unknown("encoder", reference, {r.method for r in runs})
        raise UsageError(f"{error}; `bench pretrain METHOD` makes one in {workspace}")
    return fitting[-1]


def _kept(runs: list[PretrainRecord], reference: str, key: str, step: str) -> PretrainRecord:
    """The encoder that one of a method's trainings had after a step, finished or not."""
    course = [r for r in runs if r.identity.training.startswith(key)]
    fitting = [r for r in course if str(r.identity.kept or r.identity.config.get("steps")) == step]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        choices = " or ".join(r.reference for r in fitting)
        raise UsageError(f"{reference} is of {len(fitting)} runs: name one, {choices}")
    known = ", ".join(r.reference for r in course if r.identity.kept) or "nothing"
    raise UsageError(f"no encoder {reference}: kept on the way is {known}; `bench runs` lists all")


LARGE = 256 << 20  # bytes of unpacked predictions above which the file has to justify them
FACTOR = 256  # between unpacked and packed: zeros have 1,032, committed predictions 90 at most


def predictions_of(record: EvaluationRecord, workspace: Path) -> dict[str, np.ndarray]:
    """The arrays beside a record. Raises DataError for a file that cannot be read."""
    path = folder_of(workspace, record) / "predictions.npz"
    try:
        _check_size(path, record)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as rows:
            found = dict(rows)
        count = record.details.test_images
        arrays = [array for array in found.values() if isinstance(array, np.ndarray)]
        if not arrays or len(arrays) < len(found) or {len(array) for array in arrays} != {count}:
            raise ValueError("not a row for each test image")
        return found
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} does not fit into this machine's memory") from error
    except Exception as error:  # whatever NumPy meets in a damaged or hostile file
        raise DataError(f"{path} is damaged: remove its folder and run again") from error


def _check_size(path: Path, record: EvaluationRecord) -> None:
    """DataError for large predictions that are not the record's, or a small file blown up.

    A run may have as many as it likes: its record names their digest. But the record may be a
    stranger's, too, so that the memory taken stays within a factor of what he had to send.
    """
    with ZipFile(path) as archive:
        # No member unpacks to more than this: reading stops there whatever is packed.
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked <= LARGE:
        return
    if unpacked > FACTOR * path.stat().st_size:
        raise DataError(f"{path} unpacks to more than {FACTOR} times its size: it is refused")
    if file_digest(path) != record.files.get(path.name):
        raise DataError(f"{path} is large, and not the file that its record names: it is refused")
