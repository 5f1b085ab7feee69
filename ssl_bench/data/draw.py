"""A test set drawn from folders of classes: `folder:PATH,test=0.25,seed=1`.

Of each class the same share is drawn, by the SHA-256 of seed and name: the same on every machine,
and an image that comes later moves at most one other from one side to the other.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_bench.data.dataset import SplitName
from ssl_bench.errors import UsageError

OPTIONS = ("test", "seed")


@dataclass(frozen=True)
class Draw:
    """The share of each class that is for testing, and the seed that it is drawn by."""

    share: float
    seed: int

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Draw | None":
        """What `test=` and `seed=` ask for, if they do; UsageError for other than numbers."""
        if not options:
            return None
        if "test" not in options:
            raise UsageError("folder:PATH,seed= needs test=, the share that is drawn: test=0.25")
        share, seed = _number(options["test"]), options.get("seed", "0")
        if not 0 < share < 1:
            raise UsageError(
                f"folder:PATH,test= takes a share of each class between 0 and 1, as in test=0.25, "
                f"not '{options['test']}'"
            )
        if not (seed.isascii() and seed.isdecimal() and len(seed) < 10):
            raise UsageError(f"folder:PATH,seed= takes a whole number, not '{seed}'")
        return cls(share, int(seed))

    def part(self, name: SplitName, files: Sequence[Path], root: Path) -> list[Path]:
        """The images of one class that are in `train` or `test`, in the order of `files`.

        The share is rounded, but each side has an image; a class's only one is for training.
        """
        count = math.floor(self.share * len(files) + 0.5)
        count = min(max(count, 1), len(files) - 1)
        drawn = set(sorted(files, key=lambda file: self._rank(file.relative_to(root)))[:count])
        return [file for file in files if (file in drawn) == (name == "test")]

    def _rank(self, name: Path) -> bytes:
        text = f"{self.seed} {name.as_posix()}"
        return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
