"""What a step sees: this process's part of each global batch, a function of the step's number."""

from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ssl_bench.counter import Ahead, batch_indices
from ssl_bench.prefetch import prefetched


class Images(Protocol):
    """What the loop takes of a store, which may hold more than that, of any size."""

    def __len__(self) -> int: ...

    def batch(self, which: np.ndarray, /) -> Mapping[str, Tensor]:
        """`images` uint8 (B, 3, H, W) at these places, and by other names what goes with them.

        A thread of the loop's calls it, which reads the next batches while a step is computed.
        """
        ...


class Batches:
    """What a store has at some places, and these places int64 (B,), by the number of a step."""

    def __init__(
        self, store: Images, subset: Tensor, seed: int, batch_size: int, positions: Tensor
    ) -> None:
        self.store, self.subset, self.positions = store, subset, positions
        self.seed, self.batch_size = seed, batch_size

    def __getitem__(self, step: int) -> tuple[Mapping[str, Tensor], Tensor]:
        visits = batch_indices(self.seed, step, self.positions, self.batch_size, len(self.subset))
        indices = self.subset[visits]
        return self.store.batch(indices.numpy()), indices

    def epoch(self, step: int) -> int | None:
        """The number of the epoch in which a step is the first; None for any other step."""
        epoch, before = self.passed(step), self.passed(step - 1)
        return epoch if epoch != before else None

    def passed(self, steps: int) -> int:
        """Epochs that so many steps make, rounded down."""
        return steps * self.batch_size // len(self.subset)

    def epochs(self, steps: range) -> list[range]:
        """These steps in parts, of which all but the first begin where an epoch does."""
        begins = [step for step in steps[1:] if self.epoch(step) is not None]
        return [range(*ends) for ends in pairwise([steps.start, *begins, steps.stop])]

    def read_ahead(
        self, steps: Sequence[int], device: torch.device, ahead: Ahead | None = None
    ) -> Generator[tuple[Mapping[str, Tensor], Tensor, Tensor | None]]:
        """The batches of these steps, in order, read ahead and pinned for `device`: close it.

        With each the numbers that `ahead` has drawn for it.
        """

        def read(step: int) -> tuple[Mapping[str, Tensor], Tensor, Tensor | None]:
            return *self[step], ahead.draw(step) if ahead else None

        return prefetched(read, steps, device)
