"""Losses in full precision, whatever the networks before them run in."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Outside of autocast, on float32 in place of bf16.

    bf16 has 8 bits: not enough for likenesses divided by a temperature, and for sums over a batch.
    float64 stays.
    """

    @wraps(loss)
    def run(*tensors: Any) -> Tensor:
        device = next(each.device.type for each in tensors if isinstance(each, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(_widened, tensors))

    return run


def _widened(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
