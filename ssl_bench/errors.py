"""The ways in which a command fails with one line: a wrong request, wrong data, a run in use.

Everything else is a defect of ours and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def plain(text: object) -> str:
    """Text of others in one line: what steers a terminal is escaped."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda c: repr(c[0])[1:-1], str(text))


def counted(number: int, noun: str) -> str:
    """A number and what it is of: "1 image", "2,000 images", "3 classes"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


class BenchError(Exception):
    """A failure that its one-line message explains and offers a remedy for."""

    exit_code = 1


class UsageError(BenchError):
    """The request cannot be met as it was put: a typo, an unknown name, options that exclude."""

    exit_code = 2


class DataError(BenchError):
    """Files, weights or numbers are not what they should be."""


class Degenerate(DataError):
    """A loss, weights or features that are not finite or all the same: there is nothing to measure.

    Of one row of a suite it says nothing of the others.
    """


class Busy(BenchError):
    """Another process is at the run."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not known, with the nearest known ones."""
    names = sorted(map(plain, known))
    name = plain(name[:200])
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    known = names if len(names) <= 50 else [*names[:20], f"… ({len(names)} in all)"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    return UsageError(f"unknown {kind} '{name}'; {hint}")


def complaint(mistake: Mapping[str, Any], setting: str) -> str:
    """One of pydantic's `errors()` of a setting, by its name; of settings together as it stands."""
    said = mistake["msg"].removeprefix("Value error, ")
    return f"{setting}: {said}" if mistake["loc"] else said


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of what the extra `name` of pyproject.toml installs: UsageError without it."""
    try:
        yield
    except ModuleNotFoundError as error:  # a broken package, say without libGL, keeps its traceback
        raise UsageError(
            f"{error.name} is missing: this needs the extra {name}: pip install 'ssl-bench[{name}]'"
        ) from error
