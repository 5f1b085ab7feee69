"""A network as it runs: which layers, in which order, and whether they are a chain.

In a chain each layer's input is the output of the layer before it, and a factor on the image comes
out as a factor on the output: convolutions, linear layers, ReLU, pooling, LRN. Scales of weights
can then move from layer to layer (rescale.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.encoders.encoder import evaluating
from ssl_bench.encoders.lrn import LocalResponseNorm
from ssl_bench.encoders.sobel import Sobel

Affine = nn.Conv2d | nn.Linear
Run = Callable[[Tensor], Tensor]  # normalised images (B, 3, S, S) -> the network's output
# What a chain may consist of. LRN passes a factor on nearly unchanged, for small values.
HOMOGENEOUS = (
    nn.Conv2d, nn.Linear, nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.LocalResponseNorm, LocalResponseNorm, nn.Flatten, nn.Dropout,
    nn.Identity, Sobel,
)  # fmt: skip


@torch.no_grad()
def chain_obstacle(module: nn.Module, run: Run, images: Tensor) -> str | None:
    """Why scales cannot move between the layers that `run` runs; None if they can.

    They can where each layer's input is the output of the layer before it and a factor on the
    image comes out as a factor. All layers of `run` must belong to `module`.
    """
    found: list[str] = []
    affine: set[str] = set()
    outputs, marks = [images], [_mark(images)]  # held, so that no other tensor gets their memory

    def check(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if type(layer) not in HOMOGENEOUS:  # a subclass may do something else to its weights
            found.append(f"{name} is a {type(layer).__name__}, which a scale does not pass through")
        elif _mark(inputs[0]) != marks[-1]:
            found.append(f"{name} does not take what the layer before it gives (a branch or a sum)")
        elif name in affine:
            found.append(f"layer {name} runs more than once")
        affine.update([name] if isinstance(layer, Affine) else [])

    def note(_name: str, _layer: nn.Module, _inputs: object, output: Any) -> None:
        outputs.append(output)
        marks.append(_mark(output))

    with (
        evaluating(module),
        hooked(module, check, nn.Module, before=True),
        hooked(module, note, nn.Module),
    ):
        output = run(images)
    if not found and _mark(output) != marks[-1]:
        found.append("something is computed behind its last layer")
    return found[0] if found else None


def _mark(tensor: Any) -> tuple[int, ...]:
    """Equal for a tensor and its views, as flattening makes, until something is added in place."""
    if not isinstance(tensor, Tensor):
        return ()
    # A view shares its base's memory and version, and flattening keeps the count: equal marks. A
    # slice differs in one of the first two. What `x += y` writes stays where it was, so that only
    # the version, which autograd counts even without gradients, tells a sum from what it was.
    return tensor.data_ptr(), tensor.numel(), tensor._version


@torch.no_grad()
def trace(
    module: nn.Module, run: Run, images: Tensor
) -> tuple[dict[str, Affine], dict[str, float], Tensor]:
    """The affine layers in the order in which they run, their mean absolute inputs, the output."""
    layers: dict[str, Affine] = {}
    sizes: dict[str, float] = {}

    def note(name: str, layer: Affine, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        layers[name], sizes[name] = layer, mean_size(inputs[0])

    with hooked(module, note):
        return layers, sizes, run(images)


@contextmanager
def hooked(
    module: nn.Module, hook: Callable[..., Any], kind: Any = Affine, before: bool = False
) -> Iterator[None]:
    """Call hook(name, layer, inputs, output) after a layer ran, or without output `before` it.

    A layer is a part without parts, or with parameters of its own. What the hook returns, unless
    None, takes the place of the output.
    """
    with ExitStack() as stack:
        for name, layer in module.named_modules():
            whole = (
                not any(layer.children()) or next(layer.parameters(recurse=False), None) is not None
            )
            if isinstance(layer, kind) and whole:
                # `name` as a default: a closure would see the last one of the loop.
                def call(layer: Any, *tensors: Any, name: str = name) -> Any:
                    return hook(name, layer, *tensors)

                register = (
                    layer.register_forward_pre_hook if before else layer.register_forward_hook
                )
                stack.callback(register(call).remove)
        yield


@contextmanager
def differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    """Gradients for these weights, be they frozen."""
    wanted = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for weight, want in zip(weights, wanted, strict=True):
            weight.requires_grad_(want)


def mean_size(values: Tensor) -> float:
    """The mean of the absolute values."""
    return float(values.abs().mean())
