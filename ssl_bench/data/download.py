"""`bench data get`: public sets, fetched, checked and unpacked by torchvision.

An archive that lies in its place already, put there by hand, is not fetched again.
"""

import shutil
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from torchvision import datasets

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset
from ssl_bench.data.torchvision_sets import SETS, root_of, unfinished
from ssl_bench.data.voc import official
from ssl_bench.data.voc.dataset import OFFICIAL
from ssl_bench.data.voc.download import Archive, archives
from ssl_bench.errors import DataError, unknown
from ssl_bench.progress import say, waiting

SECONDS = 60  # without an answer, after which the network counts as absent


def get(name: str) -> Dataset:
    """Fetch what is missing of a public set, and open it.

    Raises UsageError for a set that is none of them; DataError where an archive cannot be had,
    with its name and the place to put it, and where another set lies in the place.
    """
    known = [*OFFICIAL, official.WITH_SBD, *SETS]
    if name not in known:
        raise unknown("set to download", name, known)
    for archive in _of_torchvision(name) if name in SETS else archives(name):
        if not archive.there():
            _fetch(archive, name)
    return catalogue.dataset(name)


def _of_torchvision(name: str) -> list[Archive]:
    """One for all splits, but for SVHN; of what is there, torchvision fetches nothing."""
    found, root = SETS[name], root_of(name)
    source = getattr(datasets, found.source)
    url = getattr(source, "url", None) or getattr(source, "_URL", "the set's own page")

    def fetch() -> None:
        parts = [part for parts in found.parts.values() for part in parts]
        with _to_its_end(name):
            for part in parts if name == "svhn" else parts[:1]:
                source(str(root), download=True, **part)

    return [Archive(str(url), f"the archive of {name}", root, fetch, lambda: False)]


def _fetch(archive: Archive, name: str) -> None:
    say(f"fetching {archive.file} to {archive.folder}")
    try:
        archive.folder.mkdir(parents=True, exist_ok=True)
        with _impatient(), waiting(f"fetching {archive.file}"):
            archive.fetch()
    except (OSError, EOFError, RuntimeError, HTTPException, tarfile.TarError) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise DataError(
            f"{archive.file} cannot be had from {archive.url} ({error}): put it into "
            f"{archive.folder} by hand, then `bench data get {name}` unpacks it"
        ) from error


@contextmanager
def _to_its_end(name: str) -> Iterator[None]:
    """Leave nothing half unpacked: torchvision takes a set's folder that is there for all of it.

    A kill leaves the mark that a set is unfinished, by which the next fetch clears up. What was
    there before, unmarked, is somebody's, and stays.
    """
    mark = unfinished(name)
    if mark.exists():
        _clear(name)
    if _unpacked(name):
        yield
        return
    archive = root_of(name) / (SETS[name].unchecked or mark.name)
    by_hand = archive.exists()
    mark.touch()
    try:
        yield
    except BaseException:  # Ctrl-C, too
        _clear(name, keep=archive if by_hand else None)
        raise
    finally:
        mark.unlink()


def _unpacked(name: str) -> list[Path]:
    """The folders that a set was unpacked to; its archives may lie beside them."""
    folder = root_of(name) / SETS[name].folder
    there = SETS[name].folder and folder.is_dir()
    return [path for path in folder.iterdir() if path.is_dir()] if there else []


def _clear(name: str, keep: Path | None = None) -> None:
    """Remove what was unpacked, and an archive that may be cut; others are checked, and kept."""
    found, root = SETS[name], root_of(name)
    for path in _unpacked(name):
        shutil.rmtree(path)
    if found.unchecked:
        shutil.rmtree(root / found.folder, ignore_errors=True)
        if root / found.unchecked != keep:
            (root / found.unchecked).unlink(missing_ok=True)


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()  # torchvision lets us give none, and waits for ever
    socket.setdefaulttimeout(SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
