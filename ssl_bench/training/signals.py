"""Ctrl-C and SIGTERM in a training: a wish that is noted, for the loop to act upon."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_request() -> Iterator[list[int]]:
    """A list that fills when the process is asked to stop, instead of stopping anywhere."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        if asked:  # the second Ctrl-C means it
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
