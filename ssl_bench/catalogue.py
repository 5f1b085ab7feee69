"""Finds pretexts, evaluations and datasets through entry points, loaded only when chosen.

The built-in ones are registered in pyproject.toml like anybody's, so a third party's package
joins on equal footing. Listing names imports nothing.
"""

import ast
import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_bench.errors import UsageError, unknown

if TYPE_CHECKING:
    from ssl_bench.data.dataset import Dataset
    from ssl_bench.evaluation.harness import Harness
    from ssl_bench.training.pretext import Pretext

Kind = Literal["pretext", "eval", "data", "perf", "figure"]
NOUNS = {
    "pretext": "pretext", "eval": "evaluation", "data": "dataset", "perf": "measurement",
    "figure": "figure",
}  # fmt: skip


@cache
def _found(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"ssl_bench.{kind}")}


def names(kind: Kind) -> list[str]:
    """The names registered for `kind`, sorted."""
    return sorted(_found(kind))


def load(kind: Kind, name: str) -> Any:
    """The class registered under `name`; UsageError with the nearest names if there is none."""
    found = _found(kind)
    if name not in found:
        raise unknown(NOUNS[kind], name, found)
    return found[name].load()


def pretext(name: str) -> "type[Pretext]":
    """The pretext called `name`."""
    return load("pretext", name)


def evaluation(name: str) -> "type[Harness]":
    """The evaluation called `name`: `COMMAND`, or `COMMAND.PROTOCOL` for a command's others."""
    return load("eval", name)


def dataset(specification: str) -> "Dataset":
    """The dataset that `NAME` or `NAME:ARGUMENT` asks for."""
    name, _, argument = specification.partition(":")
    return load("data", name)(argument)


def summary(kind: Kind, name: str) -> str:
    """The first line of the method's file, read without importing it."""
    spec = importlib.util.find_spec(_found(kind)[name].module)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
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
