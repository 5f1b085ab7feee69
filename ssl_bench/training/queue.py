"""A queue of keys of earlier steps, to tell an image apart from (He et al., MoCo, CVPR 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator


class Queue(nn.Module):
    """`keys`, float32 (K, D) of unit length; at first random ones, which `seed` decides."""

    keys: Tensor

    def __init__(self, length: int, width: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(length, width, generator=generator(seed, "queue"))
        self.register_buffer("keys", F.normalize(drawn))

    @torch.no_grad()
    def remember(self, keys: Tensor, index: int) -> None:
        """Put the (N, D) keys of all devices in step `index` in the oldest ones' places, N ≤ K.

        The place follows from the step, so that nothing has to count.
        """
        places = index * len(keys) + torch.arange(len(keys), device=keys.device)
        self.keys[places % len(self.keys)] = keys.to(self.keys.dtype)
