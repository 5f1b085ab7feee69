"""Blocks of a vision transformer on this CPU: torch's fused attention against plain products.

    python tests/perf/attention.py        # a few minutes of one thread
    python tests/perf/attention.py 8 1    # a quick look: 8 images, 1 repetition

Forward and backward pass of three of timm's blocks, with as many tokens as MAE's encoder and
decoder of `--recipe small` see, and as 224 px give patches of 16. All ways take turns.
"""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from eval.perf_probes import timed
from ssl_bench.counter import generator
from ssl_bench.training.devices import attend_in_products

SHAPES = ((17, 384, 6), (65, 256, 8), (197, 384, 6))  # tokens, channels, heads
DEPTH = 3


def lines(images: int = 64, repetitions: int = 5) -> Iterator[str]:
    """The report, line by line as it is known."""
    torch.set_num_threads(1)
    for tokens, channels, heads in SHAPES:
        ready = torch.randn(images, tokens, channels, generator=generator(0))
        fused, plain = (blocks_of(channels, heads) for _ in range(2))
        attend_in_products(plain)
        for halved in (True, False):
            ways = [partial(passes, blocks, ready, halved) for blocks in (fused, plain)]
            for way in ways:
                way()
            pairs = [[timed(way) for way in ways] for _ in range(repetitions)]
            speeds = [images / median(times) for times in zip(*pairs, strict=True)]
            ratio = median(whole / products for whole, products in pairs)
            yield (
                f"{tokens:3} tokens of {channels}, {heads} heads, {'bf16' if halved else '32  '}: "
                f"fused {speeds[0]:7.1f} images/s, products {speeds[1]:7.1f}: {ratio:.2f} × as fast"
            )


def blocks_of(channels: int, heads: int) -> nn.Module:
    """Some blocks as timm makes them."""
    from timm.models.vision_transformer import Block

    return nn.Sequential(*(Block(channels, heads, qkv_bias=True) for _ in range(DEPTH)))


def passes(blocks: nn.Module, ready: Tensor, halved: bool) -> None:
    """Forward and backward."""
    blocks.zero_grad()
    with torch.autocast("cpu", torch.bfloat16) if halved else nullcontext():
        loss = blocks(ready).float().square().mean()
    loss.backward()


if __name__ == "__main__":
    for line in lines(*map(int, sys.argv[1:])):
        print(line, flush=True)
