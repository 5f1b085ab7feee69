"""Finds pretexts, evaluations and datasets through entry points, loaded only when chosen.

The built-in ones are registered in pyproject.toml like anybody's, so a third party's package
joins on equal footing. Listing names imports nothing. One that cannot be imported is an error for
who asks for it by name; whoever goes through all of a kind is told once, and has the others.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_bench.errors import UsageError, plain, unknown
from ssl_bench.progress import say_once

if TYPE_CHECKING:
    from ssl_bench.data.dataset import Dataset
    from ssl_bench.evaluation.harness import Harness
    from ssl_bench.training.pretext import Pretext

Kind = Literal["pretext", "eval", "data", "perf", "figure"]
NOUNS = {
    "pretext": "pretext", "eval": "evaluation", "data": "dataset", "perf": "measurement",
    "figure": "figure",
}  # fmt: skip


OURS = "ssl-bench"  # the distribution whose names nobody takes


@cache
def _found(kind: Kind) -> dict[str, EntryPoint]:
    """Entry points by name, ours first; of a name that several register, the first one's."""
    found: dict[str, EntryPoint] = {}
    points = entry_points(group=f"ssl_bench.{kind}")
    # Not in the order of sys.path: what a name means must not depend on how a process was started.
    for point in sorted(points, key=lambda p: (_package(p) != OURS, _package(p), p.name)):
        first = found.setdefault(point.name, point)
        if first != point:
            say_once(
                f"warning: the {NOUNS[kind]} '{point.name}' of package {_package(point)} is left "
                f"out: package {_package(first)} has that name"
            )
    return found


def _package(point: EntryPoint) -> str:
    """The distribution that registers an entry point."""
    return point.dist.name if point.dist else "unknown"


def names(kind: Kind) -> list[str]:
    """The names registered for `kind`, sorted."""
    return sorted(_found(kind))


def load(kind: Kind, name: str) -> Any:
    """What is registered under `name`.

    Raises UsageError with the nearest names if there is none, with the cause if it cannot be
    imported.
    """
    found = _found(kind)
    if name not in found:
        raise unknown(NOUNS[kind], name, found)
    try:
        return found[name].load()
    except Exception as error:  # whatever a stranger's module does as it is imported
        raise UsageError(
            f"{_named(kind, found[name])} cannot be imported: {cause(error)}"
        ) from error


def find(kind: Kind, name: str) -> Any | None:
    """What is registered under `name`; None where nothing is, or, said once, where it is broken."""
    if name not in _found(kind):
        return None
    try:
        return load(kind, name)
    except UsageError as error:
        say_once(f"warning: {error}")
        return None


def find_all(kind: Kind, wanted: Iterable[str] | None = None) -> dict[str, Any]:
    """All of a kind, or those `wanted`, by name, ours first; a broken one is said and left out."""
    found = {name: find(kind, name) for name in (_found(kind) if wanted is None else wanted)}
    return {name: each for name, each in found.items() if each is not None}


def left_out(kind: Kind, name: str, error: Exception) -> None:
    """Say once that something of `kind` could be imported, but is not what its contract says."""
    say_once(f"warning: {_named(kind, _found(kind)[name])} is left out: {cause(error)}")


def _named(kind: Kind, point: EntryPoint) -> str:
    return f"the {NOUNS[kind]} '{point.name}' of package {_package(point)} ({point.value})"


def cause(error: Exception) -> str:
    """An error of a stranger's code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def pretext(name: str) -> "type[Pretext]":
    """The pretext called `name`."""
    return load("pretext", name)


def evaluation(name: str) -> "type[Harness]":
    """The evaluation called `name`: `COMMAND`, or `COMMAND.PROTOCOL` for a command's others."""
    return load("eval", name)


_read_once: "ContextVar[dict[str, Dataset] | None]" = ContextVar("read once", default=None)


@contextmanager
def each_dataset_once() -> Iterator[None]:
    """Within it a specification asks for one object, whose splits are listed once."""
    token = _read_once.set({})
    try:
        yield
    finally:
        _read_once.reset(token)


def dataset(specification: str) -> "Dataset":
    """The dataset that `NAME` or `NAME:ARGUMENT` asks for."""
    kept = _read_once.get()
    if kept is None:
        return _dataset(specification)
    if specification not in kept:
        kept[specification] = _dataset(specification)
    return kept[specification]


def _dataset(specification: str) -> "Dataset":
    name, _, argument = specification.partition(":")
    if name not in _found("data") and (way := _way_to(Path(specification))):
        raise UsageError(f"'{plain(specification)}' is no dataset's name, but there is {way}")
    return load("data", name)(argument)


def datasets(specifications: str | Sequence[str]) -> "tuple[Dataset, ...]":
    """Those of one specification, or of several in their order. UsageError for one given twice."""
    asked = [specifications] if isinstance(specifications, str) else list(specifications)
    for each in asked:
        if asked.count(each) > 1:
            raise UsageError(
                f"{plain(each)} is given {asked.count(each)} times: give each set once"
            )
    return tuple(map(dataset, asked))


def _way_to(path: Path) -> str | None:
    """How to name what lies at a path as a dataset, if anything does."""
    try:
        way = f", or see `bench data guess {plain(path)}`"
        if path.is_file():
            return f"a file: unpack it, and give the folder as folder:PATH{way}"
        if not path.is_dir():
            return None
    except (OSError, ValueError):  # too long for a name, a null byte
        return None
    voc = (path / "JPEGImages").is_dir() and (path / "Annotations").is_dir()
    return f"a folder: give {'voc' if voc else 'folder'}:{plain(path)}{way}"


def said_of(kind: Kind, name: str, attribute: str) -> Any:
    """A class's attribute without importing it, where its file says it; True of a method.

    A pretext is a torch module, and torch takes longer to import than a table to print. What is no
    literal, or comes from a parent of another name than `Pretext`, is asked of the class. None
    where it has no such attribute, is not registered, or, said once, is broken.
    """
    point = _found(kind).get(name)
    body = None if point is None or point.module in sys.modules else _class_body(point)
    if body is None or body.get(attribute) is Ellipsis:
        found = getattr(find(kind, name), attribute, None)
        return True if callable(found) else found
    return body.get(attribute)


@cache
def _class_body(point: EntryPoint) -> Mapping[str, Any] | None:
    """Literals and methods of a class whose parent is `Pretext`; Ellipsis for what is neither.

    The parent may be an heir itself, imported by its name from another file.
    """
    try:
        nodes = _parsed(point).body
    except Exception:  # whatever is wrong with it, importing it tells better
        return None
    homes = {
        bound.asname or bound.name: f"{node.module}:{bound.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for bound in node.names
    }
    for node in nodes:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            parents = [ast.unparse(base) for base in node.bases]
            if [parent.rpartition(".")[2] for parent in parents] == ["Pretext"]:
                return dict(_bound(node.body))
            if len(parents) != 1 or parents[0] not in homes:
                return None
            inherited = _class_body(EntryPoint(point.name, homes[parents[0]], point.group))
            return None if inherited is None else {**inherited, **dict(_bound(node.body))}
    return None


def _bound(body: Iterable[ast.stmt]) -> Iterator[tuple[str, Any]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, True
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            literal = isinstance(node.value, ast.Constant)
            value = ast.literal_eval(node.value) if literal and node.value else ...
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))


def _parsed(point: EntryPoint) -> ast.Module:
    """The file of an entry point. Of a module in a package, this imports the package."""
    spec = importlib.util.find_spec(point.module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("there is no such module")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def summary(kind: Kind, name: str) -> str:
    """The first line of the method's file, read without importing it; or why it cannot be."""
    try:
        text = ast.get_docstring(_parsed(_found(kind)[name])) or ""
    except Exception as error:  # `bench --help` lists the others all the same
        return f"cannot be imported: {cause(error)}"
    return text.partition("\n")[0]


def check_layout() -> None:
    """Raise UsageError if `pretext` or `eval` is another package than the one beside this."""
    home = Path(__file__).parent.parent
    for name in ("pretext", "eval"):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).parent if spec and spec.origin else None
        if origin != home / name:
            raise UsageError(
                f"the package '{name}' is {origin or 'missing'}, not the one beside ssl_bench: "
                "install ssl-bench in a virtual environment of its own"
            )
