"""Progress: a bar with the time left on a terminal, a plain line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from ssl_bench.errors import plain

T = TypeVar("T")
PLAIN_SECONDS = 15  # between two lines where there is no terminal


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes, whatever launched it."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK")
    return int(rank or 0) == 0


def say(text: str) -> None:
    """A line for the person who waits; results go to standard output, this does not."""
    print(plain(text), file=sys.stderr, flush=True)


@cache
def say_once(text: str) -> None:
    """The same, but never twice in a process."""
    say(text)


def progress(items: Iterable[T], title: str, total: int, done: int = 0) -> Iterator[T]:
    """Pass `items` on and show how far they are: `done` of `total` at the start."""
    if not is_main_process():
        return iter(items)
    if sys.stderr.isatty():
        return _bar(items, title, total, done)
    return _lines(items, title, total, done)


def _bar(items: Iterable[T], title: str, total: int, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            bars.advance(bar)


def _lines(items: Iterable[T], title: str, total: int, done: int) -> Iterator[T]:
    started = shown = time.monotonic()
    first = done
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - shown >= PLAIN_SECONDS and done < total:
            left = (now - started) / (done - first) * (total - done)
            say(f"{title}: {done}/{total}, {left:.0f} s left")
            shown = now
    say(f"{title}: {done}/{total} in {time.monotonic() - started:.1f} s")
