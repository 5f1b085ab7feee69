"""Checkpoints for tests: small networks of the libraries under any names, and their features."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor

from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.foreign import load_foreign

State = dict[str, Tensor]


@cache
def built(arch: str) -> Encoder:
    return build_encoder(EncoderSpec(arch=arch, image_size=64, normalization=HALF)).eval()


@torch.no_grad()
def encoder_of(arch: str) -> Encoder:
    """Built once, and spoilt each time."""
    for tensor in built(arch).state_dict().values():
        tensor.fill_(3)
    return built(arch)


@cache
def plain_of(arch: str, **options: Any) -> State:
    """A library's state dict, with statistics and biases that are not what they began as."""
    library, _, name = arch.partition(":")
    torch.manual_seed(7)
    model = (
        timm.create_model(name, **options)
        if library == "timm"
        else torchvision.models.get_model(name, **options)
    )
    return {
        n: t + 0.1 * torch.rand_like(t) if t.is_floating_point() else t
        for n, t in model.state_dict().items()
    }


@torch.no_grad()
def features(encoder: Encoder, size: int = 64) -> Tensor:
    """What all layers give for two images, in a row."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return torch.cat([m.flatten() for m in encoder.eval()(images, encoder.layers).values()])


def loaded(arch: str, content: Any, path: Path, under: str = "") -> tuple[Tensor, str]:
    torch.save(content, path)
    encoder = encoder_of(arch)
    taken = load_foreign(encoder, path, under)
    return features(encoder), taken


def named(prefix: str, state: Mapping[str, Tensor], factor: float = 1.0) -> State:
    return {f"{prefix}{name}": tensor * factor for name, tensor in state.items()}


def body_of(state: State) -> State:
    return {n: t for n, t in state.items() if not n.startswith(("fc.", "head.", "heads."))}


def other(prefix: str, body: State) -> State:
    """Another network of the same shapes."""
    return named(prefix, body, 0.5)
