"""NumPy's random draws, frozen: the same numbers from the raw words of a bit generator.

A committed interval hangs on which images its resamples draw. NumPy promises the words of PCG64 and
Philox for ever, but not what `Generator` makes of them, which may change with any version (NEP 19).
What it made of them in 2.0 is kept here: bounded integers by Lemire's method (ACM TOMACS 29, 2019)
from 32-bit halves, low half first; Fisher and Yates' shuffle; Floyd's sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import PCG64
from numpy.random.bit_generator import BitGenerator
from numpy.typing import ArrayLike

Size = int | tuple[int, ...]
HALF = 1 << 32
TAIL = 10_000  # of more than these a large sample is the tail of a shuffle


class Stream:
    """Draws in turn from one bit generator, as numpy.random.Generator names them.

    Without a size a draw is Python's int or float, whose kind yields to an array's, as NumPy's do.
    Bounds are below 2**32. Draws take whole words or halves of them; the half that is left of a
    word waits for the next draw of halves.
    """

    def __init__(self, seed: int | Sequence[int] | BitGenerator) -> None:
        self._bits = seed if isinstance(seed, BitGenerator) else PCG64(seed)
        self._left = np.empty(0, np.uint32)

    def _words(self, count: int) -> np.ndarray:
        """uint64 (count,)."""
        return np.asarray(self._bits.random_raw(count), np.uint64)

    def _halves(self, count: int) -> np.ndarray:
        """uint32 (count,)."""
        words = self._words((count - len(self._left) + 1) // 2) if count else self._words(0)
        halves = np.stack([words & np.uint64(HALF - 1), words >> np.uint64(32)], 1).ravel()
        halves = np.concatenate([self._left, halves.astype(np.uint32)])
        self._left = halves[count:]
        return halves[:count]

    def _below(self, bounds: np.ndarray) -> np.ndarray:
        """int64 (n,) from 0 to below each of the bounds (n,); a bound of 1 takes no draw."""
        found, drawn = np.zeros(len(bounds), np.int64), np.flatnonzero(bounds > 1)
        bounds = bounds[drawn].astype(np.uint64)
        same = len(bounds) > 0 and bool((bounds == bounds[0]).all())
        halves = self._halves(len(bounds))
        while True:
            products = halves * bounds
            rest = products & np.uint64(HALF - 1)
            # The bounds of later draws do not move along, unless they are all the same.
            bad = np.flatnonzero(rest < (HALF - bounds) % bounds)[: None if same else 1]
            if not len(bad):
                found[drawn] = products >> np.uint64(32)
                return found
            halves = np.concatenate([np.delete(halves, bad), self._halves(len(bad))])

    def integers(self, low: int, high: int | None = None, size: Size | None = None) -> Any:
        """int64 of any shape, from `low` to below `high`, or from 0 to below `low`."""
        low, high = (0, low) if high is None else (low, high)
        found = low + self._below(np.full(int(np.prod(() if size is None else size)), high - low))
        return found.reshape(size) if size is not None else int(found[0])

    def random(self, size: Size | None = None, kind: type = np.float64) -> Any:
        """float64, or float32, of any shape, in [0, 1)."""
        count = int(np.prod(() if size is None else size))
        if kind is np.float32:
            found = (self._halves(count) >> 8) * np.float32(2**-24)
        else:
            found = (self._words(count) >> np.uint64(11)) * 2.0**-53
        return found.astype(kind).reshape(size) if size is not None else float(found[0])

    def uniform(self, low: ArrayLike, high: ArrayLike, size: Size | None = None) -> Any:
        """float64 in [low, high), of one shape or the bounds' own."""
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        shape = np.broadcast_shapes(low.shape, high.shape) if size is None else size
        found = low + (high - low) * self.random(shape)
        return found if size is not None or shape else float(found)

    def weighted(self, shares: Sequence[float]) -> int:
        """A place in `shares`, as often as they say: Generator.choice's `p`."""
        ends = np.cumsum(shares)
        return int(np.searchsorted(ends / ends[-1], self.random(), side="right"))

    def permutation(self, values: int | np.ndarray) -> np.ndarray:
        """The values of an array (N,), or 0 … n − 1, in random order."""
        if isinstance(values, np.ndarray):
            return values[self.permutation(len(values))]
        return np.array(_exchanged(list(range(values)), self._masked(values)), np.int64)

    def _masked(self, count: int) -> list[int]:
        """One of 0 … i for each i from count − 1 down to 1: a whole array is shuffled by these.

        The lowest bits of a half, drawn again while they are above i.
        """
        found: list[int] = []
        while (missing := count - 1 - len(found)) > 0:
            for half in self._halves(missing).tolist():  # each of the missing takes one or more
                i = count - 1 - len(found)
                value = half & ((1 << i.bit_length()) - 1)
                if value <= i:
                    found.append(value)
        return found

    def _shuffled(self, places: list[int], first: int = 1) -> list[int]:
        """Places from the last down to `first` exchanged with an earlier one or themselves."""
        bounds = np.arange(len(places), first, -1)
        return _exchanged(places, self._below(bounds).tolist())

    def choice(self, values: np.ndarray, count: int) -> np.ndarray:
        """`count` different ones of values (N,), in random order."""
        total = len(values)
        if count > total:
            raise ValueError(f"cannot draw {count} of {total}")
        if total > TAIL and count > total // 50:
            return values[self._shuffled(list(range(total)), max(total - count, 1))[-count:]]
        ends = range(total - count, total)
        chosen: dict[int, None] = {}  # in the order of the draws
        for end, draw in zip(ends, self._below(np.array(ends, np.int64) + 1).tolist(), strict=True):
            chosen[end if draw in chosen else draw] = None
        return values[self._shuffled(list(chosen))]


def _exchanged(places: list[int], others: Sequence[int]) -> list[int]:
    """The last place exchanged with the first of the others, the one before with the second, …"""
    for i, j in zip(range(len(places) - 1, -1, -1), others, strict=False):
        places[i], places[j] = places[j], places[i]
    return places
