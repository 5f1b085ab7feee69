"""Many strings as one array of bytes: a million names take what their letters take."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np


class StringArray(Sequence[str]):
    """Strings one after another in `text`, uint8; `ends`, int64 (N,), says where each of them ends.

    Beside its letters a string takes 8 bytes, where Python's own take 57. Both arrays may be maps
    of files.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> "StringArray":
        """The same strings, of which no two need be there at once."""
        if isinstance(strings, cls):
            return strings
        text, ends = bytearray(), array("q")
        for one in strings:
            # A file's name in an old encoding holds surrogates, which UTF-8 knows nothing of.
            text += one.encode(errors="surrogatepass")
            ends.append(len(text))
        return cls(np.frombuffer(text, np.uint8), np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "StringArray": ...
    def __getitem__(self, index: int | slice) -> "str | StringArray":
        if isinstance(index, slice):
            return StringArray.of(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]  # IndexError beyond the ends; from the end where below 0
        start = self.ends[place - 1] if place else 0
        return self.text[start : self.ends[place]].tobytes().decode(errors="surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(
            0, len(self), 1000
        ):  # a slice of NumPy's for each costs three times that
            ends = self.ends[first : first + 1000].tolist()
            block, offset = self.text[start : ends[-1]].tobytes(), start
            for end in ends:
                yield block[start - offset : end - offset].decode(errors="surrogatepass")
                start = end

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def at(self, places: Sequence[int]) -> "StringArray":
        """Those at some places, in order; itself where that is as many as there are."""
        if len(places) == len(self):
            return self
        return StringArray.of(self[place] for place in places)
