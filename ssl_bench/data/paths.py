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


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Size and times of a file, or of what a link leads to: what changes when its content does.

    The inode's own time too, so that an edit that puts size and mtime back is seen. None for a
    file that is missing, which is reported when it is read.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
