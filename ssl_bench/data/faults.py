"""Faults in data, gathered: one report counts them all and names three of each kind."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ssl_bench.errors import DataError, plain

EXAMPLES = 3  # that are shown of each kind
KINDS = 20  # that are shown
SKIP = ", or pass --skip-bad-images"


class Faults(DataError):
    """What is wrong with data, a line for each fault; a single one is the whole message.

    `what` says where they were found. `advice` ends the report; of the lines themselves the
    advice to skip is left out, so that it stands there once or not at all.
    """

    def __init__(self, lines: Sequence[str], what: str, advice: str = "") -> None:
        super().__init__(tuple(dict.fromkeys(lines)), what, advice)
        self.lines: tuple[str, ...] = self.args[0]

    def __str__(self) -> str:
        _, what, advice = self.args
        shown = [plain(line.removesuffix(SKIP)) for line in self.lines]
        if len(shown) == 1:
            return shown[0] + advice
        kinds = by_kind(shown)
        report = [f"{len(shown):,} faults in {what}:"]
        for alike in kinds[:KINDS]:
            report += [f"  {line}" for line in alike[:EXAMPLES]]
            if len(alike) > EXAMPLES:
                report.append(f"  … and {len(alike) - EXAMPLES:,} more like these")
        if rest := sum(map(len, kinds[KINDS:])):
            report.append(f"  … and {rest:,} more of other kinds")
        return "\n".join([*report, f"mend them{advice}"])


def by_kind(lines: Sequence[str]) -> list[list[str]]:
    """Lines that differ in names, paths and numbers only, together; in the order of the first."""
    kinds: dict[str, list[str]] = {}
    for line in lines:
        kinds.setdefault(_kind(line), []).append(line)
    return list(kinds.values())


def _kind(line: str) -> str:
    # The path that a line begins with may have spaces; its suffix tells images from annotations.
    line = re.sub(r"^/.*?(\.\w{1,5})(?=[\s:,])", r"\1", line)
    return re.sub(r"'.*?'|\S*/\S*|did you mean .*?\?|\S*\d\S*", "…", line)


def lines_of(error: DataError) -> tuple[str, ...]:
    """The faults that an error reports."""
    return error.lines if isinstance(error, Faults) else (str(error),)


@contextmanager
def collecting_faults(lines: list[str]) -> Iterator[None]:
    """Add what a DataError of the block reports to `lines`, and go on after the block."""
    try:
        yield
    except DataError as error:
        lines += lines_of(error)


def refuse(lines: Sequence[str], what: str, advice: str = "") -> None:
    """Raise Faults if there are any lines."""
    if lines:
        raise Faults(lines, what, advice)
