"""What a training step is given, of noise: images, random numbers, the step itself."""

import torch
from torch import Tensor

from ssl_bench.counter import Randomness
from ssl_bench.training.pretext import Step


def images(count: int = 4, side: int = 72) -> Tensor:
    """uint8 (count, 3, side, side), the same each time."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, side, side), generator=draw).byte()


def drawn(step: int, count: int = 4) -> Randomness:
    """The numbers of the first images of a global batch."""
    return Randomness(0, step, torch.arange(count))


def step_of(index: int, count: int = 4, steps: int = 4) -> Step:
    """One of so many steps, on so many images; it backs up a loss and updates nothing."""
    random = drawn(index, count)
    return Step(index, random.positions, random, lambda loss: loss.backward(), done=index / steps)
