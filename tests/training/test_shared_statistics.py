"""Batch normalisation over all devices against torch's own of the whole batch, in 64 bit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_bench.training import devices
from ssl_bench.training.devices import shared_statistics

MOMENTUM, EPS = 0.3, 1e-3


class Two:
    """Two devices that are threads: a sum over them waits for both."""

    world_size = 2

    def __init__(self) -> None:
        self.barrier, self.sums = threading.Barrier(2, timeout=60), list[Tensor]()

    def total(self, tensor: Tensor) -> Tensor:
        self.sums.append(tensor)
        self.barrier.wait()
        total = self.sums[0] + self.sums[1]
        if self.barrier.wait() == 0:
            self.sums.clear()
        self.barrier.wait()
        return total


def normalised(x: Tensor, gradient: Tensor, *learnt: Tensor | None, dtype: Any = None) -> Any:
    """Output, gradients of the input and of what is learnt, and the running statistics."""
    running = torch.full((5,), 0.5, dtype=dtype), torch.full((5,), 2.0, dtype=dtype)
    x = x.clone().requires_grad_()
    own = [t.clone().requires_grad_() if t is not None else None for t in learnt]
    y = F.batch_norm(x, *running, *own, training=True, momentum=MOMENTUM, eps=EPS)  # type: ignore[arg-type]
    wanted = [x, *(t for t in own if t is not None)]
    return [y.detach(), *torch.autograd.grad(y, wanted, gradient), *running]


@pytest.mark.parametrize("shape", [(8, 5, 4, 3), (8, 5)])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_two_devices_normalise_as_one(shape, learns, last, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    x = 3 * x + 100
    if last and len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    weight, bias = (torch.randn(5, generator=draw, dtype=torch.float64) for _ in range(2))
    learnt = (weight, bias) if learns else (None, None)
    whole = normalised(x, gradient, *learnt, dtype=torch.float64)
    two = Two()
    monkeypatch.setattr(devices, "_total", two.total)

    def on(rank: int) -> Any:
        with shared_statistics(two):  # type: ignore[arg-type]
            halves = (t.chunk(2)[rank] for t in (x, gradient))
            return normalised(*halves, *learnt, dtype=torch.float64)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(on, range(2))
    y, by_x, *by_learnt, mean, variance = whole
    exact: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([first[0], second[0]]), y, **exact)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), by_x, **exact)
    for place, expected in enumerate(by_learnt, start=2):  # of its own rows, as DDP takes the mean
        torch.testing.assert_close(first[place] + second[place], expected, **exact)
    for found in (first, second):
        torch.testing.assert_close(found[-2], mean, **exact)
        torch.testing.assert_close(found[-1], variance, **exact)


def test_halves_of_bf16_are_normalised_in_32_bit(monkeypatch):
    """The mean of 4,096 numbers near 300 is no number of bf16: 2 apart there."""
    monkeypatch.setattr(devices, "_total", lambda tensor: tensor)

    class One:
        world_size = 2

    draw = torch.Generator().manual_seed(0)
    x = (300 + 5 * torch.randn(4, 5, 32, 32, generator=draw)).bfloat16()
    running = torch.zeros(5), torch.ones(5)
    with shared_statistics(One()):  # type: ignore[arg-type]
        F.batch_norm(torch.cat([x, x]), *running, training=True, momentum=1.0)
    # One device of two that sums with nobody: half of the mean.
    torch.testing.assert_close(running[0], x.float().mean([0, 2, 3]) / 2, rtol=1e-5, atol=0)
