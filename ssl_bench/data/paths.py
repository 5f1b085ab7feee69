"""Folders that a dataset is asked for by, and whether a file in them is still the same."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ssl_bench.errors import DataError, UsageError, plain, unknown


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
    if items and argument and resolved(argument).exists():
        return argument, {}
    return path, dict(item.split("=", 1) for item in items)


def asked(
    layout: str, argument: str, known: Sequence[str], use: str
) -> tuple[Path, dict[str, str], str]:
    """The path, the options and the printed name of a set that `LAYOUT:PATH,key=value,…` asks for.

    Raises UsageError for an option that is not `known` and for no path; DataError where nothing is.
    """
    path, options = path_and_options(argument)
    for key in options.keys() - set(known):
        raise unknown(f"option of {layout}", key, known)
    if not path:
        raise UsageError(f"this set is asked for as {use}")
    root = resolved(path)
    if not root.exists():
        raise DataError(f"{plain(root)} is not there: give {layout}:PATH what exists")
    given = [f",{key}={plain(options[key])}" for key in known if key in options]
    return root, options, f"{layout}:{plain(root.name)}{''.join(given)}"


def asked_folder(
    layout: str, argument: str, known: Sequence[str], use: str
) -> tuple[Path, dict[str, str], str]:
    """As `asked`, of a folder; DataError for anything else."""
    root, options, name = asked(layout, argument, known, use)
    if not root.is_dir():
        raise DataError(f"{plain(root)} is no folder: give the one above the images, as {use}")
    return root, options, name


def inside(base: Path, text: str, root: Path) -> Path:
    """The file that a list or table calls `text`, from `base` on; DataError for one outside `root`.

    A list of others must not lead out of its folder: what it names is decoded, drawn and shared.
    Windows' separators are read where no file has them in its name.
    """
    path = Path(os.path.normpath(base / text))
    if "\\" in text and not os.path.exists(path):
        path = Path(os.path.normpath(base / text.replace("\\", "/")))
    if not path.is_relative_to(root) or path == root:
        raise DataError(f"{plain(text)[:100]} leads out of {root}: images lie below it")
    return path


def own_folder(variable: str, name: str) -> Path:
    """Where we keep things: `$variable`, else `~/.cache/name`; an empty one counts as not set.

    DataError where that needs a home folder and there is none.
    """
    given = os.environ.get(variable)
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / name
    except RuntimeError as error:  # a user of a container or a cluster that has no entry
        raise DataError(f"there is no home folder: let {variable} name a folder") from error


def stamp(path: Path | str) -> tuple[int, int, int, int] | None:
    """Size, times and inode of a file, or of what a link leads to: they change with its content.

    The inode's own time too, so that an edit that puts size and mtime back is seen; its number, as
    two files of one size that a program wrote at once have the same times. None for a file that is
    missing, which is reported when it is read.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a name that no file can have, with a zero byte
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def data_folder() -> Path:
    """Where public sets are looked for and downloaded to."""
    return own_folder("SSL_BENCH_DATA", "ssl-bench-data")
