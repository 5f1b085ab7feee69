"""Progress, and waits that are named: no ten seconds pass in silence.

A bar with the time left on a terminal, a plain line now and then elsewhere. What has no bar is a
`waiting`: a line after ten seconds, then ever less often, that says all that is being done (waits
lie within one another), how far it is, if it says so by `reached`, and how long that may take.
"""

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from ssl_bench.errors import plain
from ssl_bench.runtime import is_main_process

T = TypeVar("T")
QUIET = 10.0  # seconds before the first line of a wait, and between two
RARER = 0.1  # of the time that has passed lies between two lines, if that is longer
SURE = 20.0  # seconds after which a speed is believed
DAY = 86_400


def say(text: str) -> None:
    """A line for the person who waits; results go to standard output, this does not."""
    print(plain(text), file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """The same, but never twice in a process."""
    say(text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `2 h 10 min`, `3 days 4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} day{'s' if days > 1 else ''} {hours} h"


# ---- waits
@dataclass(eq=False)
class Wait:
    """What is being done, and how far it is: `done` of `total`, or of at most as many."""

    title: str
    done: float = 0
    total: float = 0
    unit: str = ""
    limit: bool = False  # the total is the most that there may be
    first: float = 0  # of `done`, made before
    since: float = field(default_factory=time.monotonic)  # the first of `done` was begun

    def left(self, now: float) -> float | None:
        """Seconds, if the rest goes as what is done; None before that can be known."""
        made = self.done - self.first
        return (now - self.since) / made * (self.total - self.done) if made > 0 else None

    def text(self, now: float) -> str:
        """The title, how far it is, and how long the rest may take."""
        if not self.total:
            return self.title
        most = "at most " if self.limit else ""
        text = (
            f"{self.title}: {self.done:,.0f}/{most}{self.total:,.0f}{self.unit and ' '}{self.unit}"
        )
        left = self.left(now)
        return text if left is None else f"{text}, {most}{duration(left)} left"


_waits: list[Wait] = []  # the outermost first


@contextmanager
def waiting(title: str, total: float = 0, done: float = 0) -> Iterator[Wait]:
    """Name what the block does, should it take long. Lines come from a thread, whatever it does."""
    wait = Wait(title, done, total, first=done)
    if not is_main_process():
        yield wait
        return
    _waits.append(wait)
    over = threading.Event()
    if len(_waits) == 1:
        threading.Thread(target=_say_now_and_then, args=(over,), daemon=True).start()
    try:
        yield wait
    finally:
        over.set()
        _waits.remove(wait)


def reached(done: float, total: float, unit: str = "", *, limit: bool = False) -> None:
    """Say of the innermost wait, if there is one, how far it is."""
    for wait in _waits[-1:]:
        if (total, unit) != (wait.total, wait.unit):  # something else is counted from here on
            wait.first, wait.since = done, time.monotonic()
        wait.done, wait.total, wait.unit, wait.limit = done, total, unit, limit


def _say_now_and_then(over: threading.Event) -> None:
    started = time.monotonic()
    while not over.wait(pause(time.monotonic() - started)):
        now = time.monotonic()
        parts = [wait.text(now) for wait in list(_waits)]
        with suppress(OSError):  # a full disk under a log: the work goes on without a word
            say(f"{': '.join(parts)}, {duration(now - started)} so far")


def pause(passed: float) -> float:
    """Seconds until the next line."""
    return max(QUIET, RARER * passed)


# ---- bars
def progress(
    items: Iterable[T], title: str, total: int, done: int = 0, shorter: str = ""
) -> Iterator[T]:
    """Pass `items` on and show how far they are: `done` of `total` at the start.

    What will take more than a day is said as soon as that is known, with the option `shorter`,
    which sets the total.
    """
    if not is_main_process():
        return iter(items)
    shown = _bar if sys.stderr.isatty() else _lines
    return shown(_warning(items, title, total, done, shorter), title, total, done)


def _warning(items: Iterable[T], title: str, total: int, done: int, shorter: str) -> Iterator[T]:
    started, sure = 0.0, False
    for count, item in enumerate(items):  # the first one comes late, and tells no speed
        now = time.monotonic()
        started = started or now
        if count and not sure and now - started >= SURE:
            sure, each = True, (now - started) / count
            if (left := each * (total - done - count)) > DAY:
                fitting = float(f"{DAY / each:.1e}")
                advice = (
                    f"; {shorter} {fitting:.0f} would take a day" if shorter and not done else ""
                )
                say(f"{title}: at this speed it takes {duration(left)}{advice}")
        yield item


def _bar(items: Iterable[T], title: str, total: int, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Seconds(ProgressColumn):
        def render(self, task: Any) -> Text:
            left = "" if task.time_remaining is None else f", {duration(task.time_remaining)} left"
            return Text(f"{duration(task.elapsed or 0)}{left}")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Seconds())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            bars.advance(bar)


def _lines(items: Iterable[T], title: str, total: int, done: int) -> Iterator[T]:
    started = time.monotonic()
    with waiting(title, total, done) as wait:
        for item in items:
            yield item
            wait.done += 1
    passed = time.monotonic() - started
    said = f"{passed:.1f} s" if passed < 60 else duration(passed)
    say(f"{title}: {wait.done:.0f}/{total} in {said}")
