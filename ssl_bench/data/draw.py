"""A test set drawn from a set that has none: `folder:PATH,test=0.25,seed=1`.

Of each class the same share is drawn, by the SHA-256 of seed and name: the same on every machine,
and an image that comes later moves at most one other from one side to the other.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ssl_bench.data.dataset import SplitName
from ssl_bench.errors import DataError, UsageError, counted

T = TypeVar("T")
OPTIONS = ("test", "seed")


@dataclass(frozen=True)
class Draw:
    """The share of each class that is for testing, and the seed that it is drawn by."""

    share: float
    seed: int

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Draw | None":
        """What `test=` and `seed=` ask for, if they do; UsageError for other than numbers."""
        if not options.keys() & set(OPTIONS):
            return None
        if "test" not in options:
            raise UsageError("seed= needs test=, the share that is drawn: test=0.25")
        share, seed = _number(options["test"]), options.get("seed", "0")
        if not 0 < share < 1:
            raise UsageError(
                f"test= takes a share of each class between 0 and 1, as in test=0.25, or what is "
                f"there, not '{options['test']}'"
            )
        if not (seed.isascii() and seed.isdecimal() and len(seed) < 10):
            raise UsageError(f"seed= takes a whole number, not '{seed}'")
        return cls(share, int(seed))

    def part(self, name: SplitName, names: Sequence[str]) -> list[str]:
        """The images of one class that are in `train` or `test`, in the order of `names`."""
        return self._one(name, names, lambda name: name)

    def divided(
        self, items: Sequence[T], name: Callable[[T], str], group: Callable[[T], str]
    ) -> dict[SplitName, list[T]]:
        """`train` and `test` of items, drawn from each group by their names.

        Raises DataError where that leaves one of them empty.
        """
        groups: dict[str, list[T]] = {}
        for item in items:
            groups.setdefault(group(item), []).append(item)
        parts: dict[SplitName, list[T]] = {}
        for split in ("train", "test"):
            chosen = {
                name(item) for each in groups.values() for item in self._one(split, each, name)
            }
            parts[split] = [item for item in items if name(item) in chosen]
        if not parts["test"]:
            raise DataError("there is no class of two images or more: no test set can be drawn")
        return parts

    def note(self, name: SplitName, count: int, total: int, of: str = "each class") -> str:
        """How a part came to be, for records."""
        return (
            f"{self.share:.0%} of {of} are the test set, drawn by seed {self.seed}: {name} has "
            f"{count:,} of {counted(total, 'image')}"
        )

    def _one(self, split: SplitName, items: Sequence[T], name: Callable[[T], str]) -> list[T]:
        """The share is rounded, but each side has one; a group's only one is for training."""
        count = math.floor(self.share * len(items) + 0.5)
        count = min(max(count, 1), len(items) - 1)
        drawn = set(sorted(map(name, items), key=self._rank)[:count])
        return [item for item in items if (name(item) in drawn) == (split == "test")]

    def _rank(self, name: str) -> bytes:
        text = f"{self.seed} {name}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def is_share(text: str) -> bool:
    """Whether what `test=` says is a number, and no name of a list or file."""
    return not math.isnan(_number(text))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
