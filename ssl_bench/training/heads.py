"""What self-supervised losses stand on: an encoder's representation, and an MLP behind it."""

from itertools import pairwise
from math import prod

from torch import nn

from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.config import EncoderConfig


def representation(encoder: Encoder, size: int) -> tuple[str, int]:
    """The last layer's name, and how many numbers it gives for an image of `size` px.

    It is `pooled` where a network has that; else a map, which a head flattens.
    """
    layer = encoder.layers[-1]
    return layer, prod(encoder.shape(layer, size))


def mlp(
    *widths: int,
    config: EncoderConfig,
    key: str,
    norm: bool = True,
    norm_out: bool = False,
    bias_out: bool = True,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """(B, …) -> (B, widths[-1]): linear layers, activations between them, drawn by seed and `key`.

    `norm` puts batch normalisation before each activation, `norm_out` one without scale and shift
    at the end. A linear layer before one has no bias, which it would take away.
    """
    *hidden, last = pairwise(widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in hidden:
        layers += [nn.Linear(inputs, outputs, bias=not norm)]
        layers += [nn.BatchNorm1d(outputs)] if norm else []
        layers += [activation()]
    layers += [nn.Linear(*last, bias=bias_out and not norm_out)]
    layers += [nn.BatchNorm1d(widths[-1], affine=False)] if norm_out else []
    head = nn.Sequential(*layers)
    initialize(head, config.init, config.seed, key)
    return head
