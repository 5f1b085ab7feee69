"""Data-dependent initialisation: scale a network's weights by what images do in it.

Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural
Networks", ICLR 2016 (arXiv 1511.06856): `within_layers` is its algorithm 1, `between_layers` its
algorithm 2, with details of the authors' own code (philkr/magic_init). Neither needs labels.

Within a layer, every output channel gets mean BETA and deviation 1 over the images. Between
layers, scales are moved until all layers learn at the same rate, while the network computes what
it did. Trained weights take the second part only: the first would change what they compute.
Nothing is random but the noise that stands for a loss, and its seed is given.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ssl_bench.counter import generator
from ssl_bench.encoders.chain import (
    Affine,
    Run,
    chain_obstacle,
    differentiable,
    hooked,
    mean_size,
    trace,
)
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.errors import Degenerate, UsageError, counted
from ssl_bench.progress import say, waiting

Fill = Callable[[str, Affine, Tensor], None]  # name, layer, its input: sets the layer's weights
BETA = 0.1  # magic_init's default: a unit begins a little on the live side of its ReLU
CONSTANT = 1e-6  # a channel whose deviation is below this share of its peak is rounding noise
LOOKED_AT = 16  # images behind the gradients: magic_init's one batch
ROUNDS, TOLERANCE = 10, 0.01  # rounds at most, as in both sources, and the deviation that ends them
DISTORTION = 0.05  # share of the output that may change before `rescale` warns


@dataclass(frozen=True)
class Rescaled:
    """What was done.

    `before` and `after` are the layers' rates of change (see `change_rates`) on the same images
    and noise; empty where scales were not moved between layers. `distortion` is the share of the
    output, 0 to 1, that is not the old output times a number. `constant` counts the channels
    without a deviation, in layers that have such.
    """

    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    distortion: float = 0.0
    constant: Mapping[str, int] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """All of it under names, for a record."""
        parts = {"rate_before": self.before, "rate_after": self.after, "constant": self.constant}
        found = {f"{layer}.{name}": v for name, part in parts.items() for layer, v in part.items()}
        return {**found, "distortion": self.distortion}


def rescale(
    encoder: Encoder,
    images: Tensor,
    arch: str,
    *,
    trained: bool,
    beta: float = BETA,
    seed: int = 0,
    fill: Fill | None = None,
) -> Rescaled:
    """Scale the encoder's weights, in place, by normalised images, float (B, 3, S, S).

    `trained` weights are scaled between layers only, as magic_init does with a network that it
    loads; others first within layers, each layer after `fill`, if given, has set its weights. All
    images are run at once; magic_init takes 160. `arch` names the encoder in messages.

    Scales can move between layers only in a chain of convolutions, linear layers, ReLU, pooling
    and LRN. With branches, residual sums, or batch or layer normalisation, an untrained encoder is
    normalised within layers and a line says that the rest is left out; a trained one is refused by
    UsageError. Raises DataError for a layer that gets no gradient or values that are not finite.
    """
    run = top_of(encoder)
    with evaluating(encoder), waiting(f"rescaling {arch} by {counted(len(images), 'image')}"):
        obstacle = chain_obstacle(encoder, run, images[:1])
        if trained and obstacle:
            raise UsageError(f"trained weights of {arch} cannot be rescaled: {obstacle}")
        try:
            constant = {} if trained else within_layers(encoder, run, images, beta, fill)
        except UsageError as error:
            raise UsageError(f"{arch} cannot be rescaled: {error}") from error
        if obstacle:
            say(f"{arch} is normalised within layers, not between them: {obstacle}")
            return Rescaled(constant=constant)
        moved = between_layers(encoder, run, images[:LOOKED_AT], seed)
    if moved.distortion > DISTORTION:
        say(f"warning: rescaling changed {moved.distortion:.1%} of what {arch} computes")
    return Rescaled(moved.before, moved.after, moved.distortion, constant)


def rescale_with_head(
    network: nn.Module, head: nn.Module, run: Run, images: Tensor, arch: str
) -> dict[str, float]:
    """Scale an encoder and the fresh layers behind it, in place, before both are fine-tuned.

    `run` gives what the last layer of `head` gives for `images`; encoder and head are all that it
    runs, and parts of `network`. The layers of `head` are normalised within, then scales move
    between all layers; what the encoder computes stays, up to a factor. Returns what was done, by
    name. Raises UsageError for a network that is no chain, in which `arch` names the encoder.
    """
    with evaluating(network):
        obstacle = chain_obstacle(network, run, images[:1])
        if obstacle:
            raise UsageError(f"weights of {arch} cannot be rescaled: {obstacle}")
        constant = within_layers(head, run, images)
        moved = between_layers(network, run, images[:LOOKED_AT])
    return {**{f"{name}.constant": n for name, n in constant.items()}, **moved.numbers()}


def top_of(encoder: Encoder) -> Run:
    """The encoder as a function from images to its last map."""
    last = encoder.maps[-1]
    return lambda images: encoder(images, [last])[last]


# ---- within layers
@torch.no_grad()
def within_layers(
    module: nn.Module, run: Run, images: Tensor, beta: float = BETA, fill: Fill | None = None
) -> dict[str, int]:
    """Give each output channel of each Conv2d and Linear in `module` mean `beta`, deviation 1.

    The paper's algorithm 1: W ← W / σ, b ← β + (b − μ) / σ, with μ and σ over images and places,
    in the order in which layers run, each on what the layers before it, already done, make of
    `images`. `module` may be a part of what `run` runs, all of which must be in eval mode. A layer
    without bias gets the deviation only, a channel that is constant the mean only; the parameters
    of other layers, such as batch normalisation, stay.

    Returns the number of constant channels of each layer that has some. Raises UsageError for a
    layer that runs twice or whose output does not follow its weights.
    """
    constant: dict[str, int] = {}

    def set_scale(name: str, layer: Affine, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if name in constant:
            raise UsageError(f"layer {name} runs more than once, so no one scale fits it")
        if fill is not None:
            fill(name, layer, inputs[0])
            output = layer.forward(*inputs)
        alive = _standardize(name, layer, output, beta)
        constant[name] = int((~alive).sum())
        output = layer.forward(*inputs)  # a call would run this hook again
        deviations = _channels(layer, output).std(1, correction=0)[alive]
        if not bool(((deviations - 1).abs() < 0.01).all()):  # weight standardisation, say
            raise UsageError(f"the output of layer {name} does not follow the scale of its weights")
        return output

    with hooked(module, set_scale):
        run(images)
    return {name: count for name, count in constant.items() if count}


def _standardize(name: str, layer: Affine, output: Tensor, beta: float) -> Tensor:
    """One layer's step of algorithm 1; returns bool (C,): which channels are not constant."""
    z = _channels(layer, output)
    variance, mean = torch.var_mean(z, dim=1, correction=0)
    if not bool(variance.isfinite().all()):
        raise Degenerate(f"layer {name} gives values that are not finite on these images")
    deviation = variance.sqrt()
    alive = deviation > CONSTANT * z.abs().amax(1)
    divisor = torch.where(alive, deviation, torch.ones_like(deviation))
    # y = (z − μ) / σ + β is the same layer with W / σ and (b − μ) / σ + β.
    layer.weight.div_(divisor.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.sub_(mean).div_(divisor).add_(beta)
    return alive


def _channels(layer: Affine, output: Tensor) -> Tensor:
    """(B, C, h, w) of a convolution, (…, C) of a linear layer -> (C, n)."""
    return output.movedim(1 if isinstance(layer, nn.Conv2d) else -1, 0).flatten(1)


# ---- between layers
def between_layers(
    module: nn.Module, run: Run, images: Tensor, seed: int = 0, damping: float = 1.0
) -> Rescaled:
    """Make all affine layers of a chain learn at one rate; what it computes stays.

    The paper's algorithm 2: weights are multiplied by s = (C / C̄)^(damping / 2), where C is their
    layer's rate of change and C̄ the geometric mean of all. The product of all s is 1, so a chain
    that passes factors on computes what it did; a gradient is then divided by s and the rate by
    s². `damping` is the paper's α. Without it, as in magic_init, a homogeneous chain needs one
    round. Biases also take the growth of their layer's input; the output keeps its mean size.

    LRN is not homogeneous where its inputs are large: rounds are repeated until rates are equal,
    and what that cost is the `distortion`. All that `run` runs must be in eval mode. Raises
    UsageError unless it is a chain, DataError for a layer that gets no gradient.
    """
    obstacle = chain_obstacle(module, run, images[:1])
    if obstacle:
        raise UsageError(f"scales cannot move between layers: {obstacle}")
    _, sizes, first = trace(module, run, images)
    before = rates = change_rates(module, run, images, seed)
    output = first
    for _ in range(ROUNDS):
        centre = math.exp(sum(map(math.log, rates.values())) / len(rates))
        drift = mean_size(output) / mean_size(first)
        # LRN lets the size of the output drift: it must come back too, in equal shares by layer.
        uneven = [drift, *(rate / centre for rate in rates.values())]
        if max(abs(math.log(ratio)) for ratio in uneven) < TOLERANCE:
            break
        share = drift ** (1 / len(rates))
        factors = {n: (rate / centre) ** (damping / 2) / share for n, rate in rates.items()}
        output = _multiply(module, run, images, factors, sizes)
        rates = change_rates(module, run, images, seed)
    return Rescaled(before, rates, _distortion(first, output))


def change_rates(module: nn.Module, run: Run, images: Tensor, seed: int = 0) -> dict[str, float]:
    """Each affine layer's rate of change: √(mean squared gradient / mean squared weight).

    The loss needs no labels: it is the output times unit Gaussian noise, drawn by `seed`. Layers
    stand in the order in which they run. Raises DataError for a rate of zero or not finite.
    """
    layers, _, _ = trace(module, run, images[:1])
    weights = [layer.weight for layer in layers.values()]
    totals = [torch.zeros_like(weight) for weight in weights]
    with differentiable(weights):
        for start in range(0, len(images), LOOKED_AT):  # the noise is independent: gradients add
            output = run(images[start : start + LOOKED_AT])
            noise = torch.randn(output.shape, generator=generator(seed, "rates", start))
            loss = (output * noise.to(output.device)).sum()
            for total, gradient in zip(totals, torch.autograd.grad(loss, weights), strict=True):
                total += gradient
    rates = {}
    for name, weight, total in zip(layers, weights, totals, strict=True):
        rates[name] = float(total.square().mean().sqrt() / weight.detach().square().mean().sqrt())
        if not 0 < rates[name] < math.inf:
            raise Degenerate(f"layer {name} cannot learn: all its units are dead on these images")
    return rates


@torch.no_grad()
def _multiply(
    module: nn.Module,
    run: Run,
    images: Tensor,
    factors: Mapping[str, float],
    sizes: dict[str, float],
) -> Tensor:
    """Multiply each layer's weights by its factor, its bias by its input's growth too.

    `sizes` are the mean absolute inputs that the biases fit, and are brought up to date. Returns
    the new output.
    """

    def scale(name: str, layer: Affine, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        size = mean_size(inputs[0])
        layer.weight.mul_(factors[name])
        if layer.bias is not None:
            layer.bias.mul_(factors[name] * size / sizes[name])
        sizes[name] = size
        return layer.forward(*inputs)

    with hooked(module, scale):
        return run(images)


def _distortion(first: Tensor, last: Tensor) -> float:
    """‖first − a·last‖ / ‖first‖ with the best number a."""
    # The least squares solution of first ≈ a · last.
    a = (first * last).sum() / last.square().sum()
    return float((first - a * last).norm() / first.norm())
