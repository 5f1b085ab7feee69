"""Random numbers that are a function of (seed, stream, step, position), never of history.

A run that is killed and resumed, or spread over other numbers of workers or devices, therefore
draws the same numbers. The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) addressed by counter: torch has no generator that
can be, and the same integer arithmetic gives the same bits on CPU and GPU.
"""

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor


def _signed(constant: int) -> int:
    """A 64-bit constant as the int64 with the same bits (torch multiplies modulo 2**64)."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own copies the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(key: int, counters: Tensor) -> Tensor:
    """Outputs number `counters` (int64, any shape, from 0) of SplitMix64 seeded with `key`."""
    x = _signed(key) + (counters + 1) * _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def derive(*parts: int | str) -> int:
    """A 64-bit key from names and numbers; different parts give unrelated keys."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded from names and numbers, for what is drawn once (initial weights)."""
    return torch.Generator().manual_seed(derive(*parts) >> 1)


@dataclass(frozen=True)
class Randomness:
    """The random numbers of one batch: each image has its own, by its place in the global batch.

    `positions` is int64 (B,), on the device where the numbers are wanted. `path` names the view,
    see `view`. What was `drawn` ahead is taken from there.
    """

    seed: int
    step: int
    positions: Tensor
    path: str = ""
    drawn: "StepNumbers | None" = field(default=None, repr=False)

    def view(self, name: str) -> "Randomness":
        """Other numbers for the same images: what is drawn for another view of them."""
        return replace(self, path=f"{self.path}{name}/")

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """float32 (B, *shape) in [0, 1); a stream's name keeps its numbers from the others'."""
        size = math.prod(shape)
        if self.drawn is not None:
            ready = self.drawn.take(self.path + stream, size, self.positions)
            if ready is not None:
                return ready.reshape(-1, *shape)
        within = torch.arange(size, device=self.positions.device)
        counters = self.positions[:, None] * size + within  # (B, size)
        bits = splitmix64(derive(self.seed, self.path + stream, self.step), counters)
        return (_shift(bits, 40).float() / (1 << 24)).reshape(-1, *shape)

    def dropout(self, x: Tensor, probability: float, stream: str = "dropout") -> Tensor:
        """Zero each value of `x` (B, …) with `probability` and scale the rest to keep the mean."""
        kept = self.uniform(stream, *x.shape[1:]) >= probability
        return x * kept / (1 - probability)


class Ahead:
    """Numbers of coming steps, drawn on the CPU beside a GPU that computes.

    To mix an integer there takes twenty launches of a kernel, and a small step's time is that of
    its launches. What a step asks for is known from those before it; the bits are the same on
    every device, so nothing depends on which numbers were drawn ahead.
    """

    LARGEST = 1 << 16  # numbers of a batch in one stream; a GPU draws more of them faster itself

    def __init__(self, seed: int, positions: Tensor) -> None:
        self.seed, self.positions = seed, positions  # on the CPU
        self.asked: dict[tuple[str, int], None] = {}  # streams, in the order of their first use

    def draw(self, step: int) -> Tensor:
        """float32 (B, N): the streams asked for so far, side by side. A thread's to call."""
        random = Randomness(self.seed, step, self.positions)
        parts = [random.uniform(stream, size) for stream, size in list(self.asked)]
        return torch.cat([torch.empty(len(self.positions), 0), *parts], 1)


class StepNumbers:
    """The numbers of one step that were drawn ahead; it notes what else the step asks for."""

    def __init__(self, ahead: Ahead, numbers: Tensor, positions: Tensor) -> None:
        self.ahead, self.positions = ahead, positions
        self.found = dict[tuple[str, int], Tensor]()
        start = 0
        for stream, size in ahead.asked:  # a stream asked for since then comes behind the others
            if start == numbers.shape[1]:
                break
            self.found[stream, size] = numbers[:, start : start + size]
            start += size

    def take(self, stream: str, size: int, positions: Tensor) -> Tensor | None:
        """float32 (B, size), for all images of the step; None where it must be drawn now."""
        if positions is not self.positions:  # a part of them
            return None
        if (stream, size) not in self.found and size * len(positions) <= Ahead.LARGEST:
            self.ahead.asked.setdefault((stream, size))
        return self.found.get((stream, size))


@lru_cache(maxsize=2)  # a batch needs one epoch's order or two
def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """int64 (size,): the order in which an epoch visits its images."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def batch_indices(seed: int, step: int, positions: Tensor, batch_size: int, size: int) -> Tensor:
    """int64 (B,): which of `size` images stand at `positions` of global batch `step`.

    Epochs follow one another without a gap: a batch may hold the end of one and the start of
    the next, so every image is seen equally often whatever the batch size.
    """
    visits = step * batch_size + positions
    order = torch.empty_like(visits)
    for epoch in torch.unique(visits // size).tolist():
        here = visits // size == epoch
        order[here] = epoch_order(seed, epoch, size)[visits[here] % size]
    return order
