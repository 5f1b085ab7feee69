"""What self-supervised losses stand on: an encoder's representation, or a map, and a head."""

from itertools import pairwise
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_bench.encoders.build import learn_up_to, weights_of
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.config import EncoderConfig


def representation(encoder: Encoder, size: int) -> tuple[str, int]:
    """The last layer's name, and how many numbers it gives for an image of `size` px.

    It is `pooled` where a network has that; else a map, which a head flattens. From now on no
    weight behind it asks for a gradient, for which several devices would wait: a library's network
    keeps its classifier.
    """
    layer = encoder.layers[-1]
    learn_up_to(encoder, layer, size)
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


def last_learnt_map(encoder: Encoder, size: int) -> str:
    """The lowest map that depends on as many weights as the last one: conv5 of AlexNet, not pool5.

    For what is predicted at places: the pooling behind it loses places, and learns nothing. No
    weight behind it asks for a gradient, as in `representation`.
    """
    layers = list(encoder.maps)
    learn_up_to(encoder, layers[-1], size)
    weights = len(weights_of(encoder, layers[-1], size))
    while len(layers) > 1 and len(weights_of(encoder, layers[-2], size)) == weights:
        layers.pop()
    return layers[-1]


class _Fc6(nn.Conv2d):
    """AlexNet's fc6 at every cell: (B, channels, h, w) -> (B, units, h, w)."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__(channels, units, 6, padding=5, dilation=2, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Without the outer weights where those only ever meet the padding, as on maps below 6×6.

        The value is the same; leaving them out halves the time of the gradient at 5×5.
        """
        beyond = min(2, max(0, 7 - max(input.shape[-2:])) // 2)  # of 6 weights, at either end
        met = F.pad(self.weight, [-beyond] * 4)
        return F.conv2d(input, met, padding=5 - 2 * beyond, dilation=2)


class _Pointwise(nn.Conv2d):
    """The same linear layer at every cell, as one product.

    Of 4096 units in bf16 its gradient takes a CPU half the time of that of a 1×1 convolution.
    """

    def __init__(self, channels: int, units: int, bias: bool = False) -> None:
        super().__init__(channels, units, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, units, h, w)."""
        weights = self.weight.flatten(1)
        return F.linear(input.movedim(1, -1), weights, self.bias).movedim(-1, 1)


def dense_classifier(
    encoder: Encoder, channels: int, hidden: int, classes: int, config: EncoderConfig, key: str
) -> nn.Sequential:
    """(B, channels, h, w) -> (B, classes, h, w): two hidden layers with batch normalisation.

    The first has AlexNet's fc6's 6×6 weights, two cells apart, for networks that end in such a
    layer; those with a pooled representation end in none, and a cell of theirs sees enough.
    """
    pooled = POOLED in encoder.layers
    first = _Pointwise(channels, hidden) if pooled else _Fc6(channels, hidden)
    layers: list[nn.Module] = []
    for layer in (first, _Pointwise(hidden, hidden)):
        layers += [layer, nn.BatchNorm2d(hidden), nn.ReLU()]
    head = nn.Sequential(*layers, _Pointwise(hidden, classes, bias=True))
    initialize(head, config.init, config.seed, key)
    return head
