"""What everybody needs to write a file: whole or not at all, and digests."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ssl_bench.errors import DataError

LFS = b"version https://git-lfs.github.com/spec/"  # how a pointer of Git LFS begins
POINTER = "is a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
UMASK = os.umask(0)  # it can be read by setting it only
os.umask(UMASK)


def key_of(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of what determines a result."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_pointer(path: Path) -> None:
    """DataError where a clone without Git LFS has left a pointer in a file's place."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(LFS))
    except OSError:  # whoever reads it says why it cannot be read
        return
    if head == LFS:
        raise DataError(f"{path} {POINTER}")


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
