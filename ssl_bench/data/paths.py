"""Folders that a dataset is asked for by, and whether a file in them is still the same."""

import os
import re
from pathlib import Path

from ssl_bench.errors import DataError, plain


def resolved(text: str) -> Path:
    """A folder that is asked for; DataError for no path, or a variable that is not set."""
    try:
        path = Path(os.path.expandvars(text)).expanduser().resolve()
        # expandvars leaves an unset variable as it is; a folder may have a dollar in its name.
        unset = [] if path.exists() else re.findall(r"\$\{?(\w+)", str(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(f"{plain(text)} is not a folder: {error}") from error
    if unset:
        raise DataError(f"{plain(text)}: set {unset[0]}, which the environment lacks")
    return path


def path_and_options(argument: str) -> tuple[str, dict[str, str]]:
    """`PATH,key=value,…` taken apart. A path may have commas; one that exists is taken whole."""
    path, *items = re.split(r",(?=\w+=)", argument)
    if items and argument and resolved(argument).is_dir():
        return argument, {}
    return path, dict(item.split("=", 1) for item in items)


def own_folder(variable: str, name: str) -> Path:
    """Where we keep things: `$variable`, else `~/.cache/name`; an empty one counts as not set.

    DataError where that needs a home folder and there is none.
    """
    given = os.environ.get(variable)
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / name
    except RuntimeError as error:  # a user of a container or a cluster that has no entry
        raise DataError(f"there is no home folder: let {variable} name a folder") from error


def stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Size, times and inode of a file, or of what a link leads to: they change with its content.

    The inode's own time too, so that an edit that puts size and mtime back is seen; its number, as
    two files of one size that a program wrote at once have the same times. None for a file that is
    missing, which is reported when it is read.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
