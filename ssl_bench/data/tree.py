"""Which images lie below a folder, and what else does: nothing goes missing without a count.

Links to folders are followed, and each folder is read once, so that links may lead round. Hidden
names, and those that systems leave behind, are no images and no classes.
"""

import os
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

from ssl_bench.data.faults import collecting_faults, refuse
from ssl_bench.errors import DataError, plain

# Read by images.py. Others (.heic, .avif, .jp2, raw files) are counted as left out.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip
# Left by macOS, Windows and network disks; names that begin with a dot are hidden anyhow.
LITTER = {
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini",
}  # fmt: skip


class LeftOut:
    """What was left out: how many of each kind, and an example of it; files `read` are not."""

    def __init__(self, read: Collection[str] = ()) -> None:
        self.read, self.kinds = read, dict[str, tuple[int, str]]()

    def add(self, kind: str, name: str) -> None:
        """Count one more."""
        if name in self.read:
            return
        count, example = self.kinds.get(kind, (0, shown(name)))
        self.kinds[kind] = count + 1, example

    def __str__(self) -> str:
        """`3 × .heic file (such as a.heic), 1 × hidden folder (.git)`; empty if there are none."""
        said = []
        for kind, (count, example) in self.kinds.items():
            such = "" if count == 1 else "such as "
            said.append(f"{count:,} × {kind} ({such}{example})")
        return ", ".join(said)

    def notes(self) -> list[str]:
        """The same as a line, if there is anything to say."""
        read = " ".join(SUFFIXES)
        return [f"left out: {self}; images are read from {read}"] if self.kinds else []


def shown(name: str) -> str:
    """A file's name for a message or a record, whatever its encoding."""
    return plain(name).encode(errors="backslashreplace").decode()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of a set by its name."""
    return name.startswith(".") or name.lower() in LITTER


def entries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, in any order, as file systems list it. DataError if unreadable."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}): make it readable, or move it away"
        ) from error


def head_of(path: Path, most: int = 2**20) -> bytes:
    """How a file begins; nothing of what is no file, or cannot be read."""
    try:
        if not path.is_file():  # to read a pipe would wait for ever
            return b""
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def folders_in(root: Path) -> list[str]:
    """The names of the sub-folders that are not hidden, links to folders among them, sorted."""
    found = (entry for entry in entries(root) if is_folder(entry))
    return sorted(entry.name for entry in found if not is_hidden(entry.name))


def folders_at(root: Path, depth: int) -> list[str]:
    """The folders `depth` levels below one, as `animal/cat` for 2, sorted."""
    if depth == 1:
        return folders_in(root)
    above = folders_in(root)
    return [f"{one}/{below}" for one in above for below in folders_at(root / one, depth - 1)]


def has_images(root: Path) -> bool:
    """Whether images lie directly in a folder."""
    return any(_kind(entry) == "image" for entry in entries(root))


def is_image(name: str) -> bool:
    """Whether a file is read as an image, by its name."""
    return not is_hidden(name) and _suffix(name) in SUFFIXES


def count_beside(root: Path, left: LeftOut) -> None:
    """Count in `left` what lies beside the folders of classes."""
    kinds = ((entry.name, _kind(entry)) for entry in entries(root))
    for name, kind in sorted((name, kind) for name, kind in kinds if kind != "folder"):
        left.add("image outside the class folders" if kind == "image" else kind, name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link that leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def images_below(root: Path, left: LeftOut) -> list[Path]:
    """Image files below a folder, at any depth, by path; `left` counts what is left out.

    Raises Faults with all folders that cannot be read.
    """
    return [root / name for name in names_below(root, left)]


def names_below(root: Path, left: LeftOut) -> list[str]:
    """The same as paths relative to the folder, with `/`, and no object of a path for each."""
    names: list[str] = []
    faults: list[str] = []
    # A link to one of these leads round, or out into other sets.
    seen = {str(parent) for parent in root.resolve().parents}
    waiting, links = deque([""]), deque[str]()  # relative to the root, with a `/` behind
    while waiting or links:
        # Links last: what lies here itself keeps its own path, whatever links to it there are.
        folder = waiting.popleft() if waiting else links.popleft()
        if (real := os.path.realpath(root / folder)) in seen:
            left.add("link to a folder that is read already", Path(folder).name)
            continue
        seen.add(real)
        others: list[tuple[str, str, bool]] = []
        with collecting_faults(faults):
            for entry in entries(root / folder):
                if (kind := _kind(entry)) == "image":
                    names.append(folder + entry.name)
                else:
                    others.append((entry.name, kind, entry.is_symlink()))
        for name, kind, is_link in sorted(others):
            if kind == "folder":
                (links if is_link else waiting).append(f"{folder}{name}/")
            else:
                left.add(kind, name)
    refuse(faults, str(root))
    return sorted(names, key=lambda name: name.split("/"))  # as paths: `a/b` before `a.b`


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `image`, or what is left out, in the words of the report."""
    folder, suffix = is_folder(entry), _suffix(entry.name)
    if is_hidden(entry.name):
        return "hidden folder" if folder else "hidden file"
    if folder:
        return "folder"
    if suffix in SUFFIXES:  # a broken link of such a name is an image that cannot be read
        return "image"
    if entry.is_symlink() and not os.path.exists(entry.path):
        return "broken link"
    return f"{suffix} file" if suffix else "file without a suffix"


def _suffix(name: str) -> str:
    """`.png` of `a.PNG`; none of `a.`, as pathlib has it."""
    suffix = os.path.splitext(name)[1].lower()
    return "" if suffix == "." else suffix
