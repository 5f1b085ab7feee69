"""Faults in data, gathered: one report names the first twenty and counts all of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ssl_bench.errors import DataError, plain

SHOWN = 20
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
        report = [f"{len(shown):,} faults in {what}:", *(f"  {line}" for line in shown[:SHOWN])]
        if len(shown) > SHOWN:
            report.append(f"  … and {len(shown) - SHOWN:,} more")
        return "\n".join([*report, f"mend them{advice}"])


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
