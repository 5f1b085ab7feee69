"""What a network is made of: layers, output shapes, parameters by part."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.store import stored_size
from ssl_bench.encoders import EncoderSpec, Normalization, build_encoder
from ssl_bench.errors import unknown
from ssl_bench.pretrain import build_pretext
from ssl_bench.task import Step, Trainable

HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def inspect_network(
    name: str, *, image_size: int | None = None, width: float | None = None
) -> dict[str, Any]:
    """`{"name", "input", "parts": {part: {parameters, weights, biases}}, "layers": [...]}`.

    `name` is a pretext or an architecture. A layer is a module without children that has run,
    with its part, kind, output shape (without the batch) and number of parameters; `taps` are
    the encoder's named layers.
    """
    given = {k: v for k, v in {"image_size": image_size, "width": width}.items() if v is not None}
    if name in catalogue.names("pretext"):
        config = catalogue.pretext(name).Config(**given)
        network, spec = build_pretext(name, config, HALF)
        encoder = network.encoder
    elif name == "alexnet" or ":" in name:
        size = image_size or (227 if name == "alexnet" else 224)
        spec = EncoderSpec(
            arch=name, image_size=size, width=1.0 if width is None else width, normalization=HALF
        )
        network = nn.Module()
        network.encoder = encoder = build_encoder(spec)
    else:
        choices = [*catalogue.names("pretext"), "alexnet", "timm:NAME", "torchvision:NAME"]
        raise unknown("network", name, choices)
    layers = _trace(network, spec)
    with torch.no_grad():
        blank = torch.zeros(1, 3, spec.image_size, spec.image_size)
        taps = {k: list(v.shape[1:]) for k, v in encoder.eval()(blank, encoder.layers).items()}
    parts = {part: _count(module) for part, module in network.named_children()}
    return {
        "name": name,
        "input": [3, spec.image_size, spec.image_size],
        "parts": {part: numbers for part, numbers in parts.items() if numbers["parameters"]},
        "taps": taps,
        "layers": layers,
    }


def _count(module: nn.Module) -> dict[str, int]:
    counts = {"parameters": 0, "weights": 0, "biases": 0}
    for name, parameter in module.named_parameters():
        counts["parameters"] += parameter.numel()
        counts["biases" if name.endswith("bias") else "weights"] += parameter.numel()
    return counts


def _trace(network: nn.Module, spec: EncoderSpec) -> list[dict[str, Any]]:
    """Run one step on two grey images and note every leaf module that runs, once."""
    seen: dict[str, dict[str, Any]] = {}

    def note(name: str, part: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and name not in seen:
                seen[name] = {
                    "name": name,
                    "part": part,
                    "kind": type(module).__name__,
                    "shape": list(output.shape[1:]),
                    "parameters": sum(p.numel() for p in module.parameters()),
                }

        return hook

    handles = [
        module.register_forward_hook(note(name, name.partition(".")[0]))
        for name, module in network.named_modules()
        if name and not list(module.children())
    ]
    _run(network, spec)
    for handle in handles:
        handle.remove()
    return list(seen.values())


def _run(network: nn.Module, spec: EncoderSpec) -> None:
    if isinstance(network, Trainable):
        side = stored_size(spec.image_size)
        positions = torch.arange(2)
        network.optimizers()
        step = Step(0, positions, Randomness(0, 0, positions), lambda loss: loss.backward())
        network.train_step(torch.full((2, 3, side, side), 128, dtype=torch.uint8), step)
    else:
        encoder: Any = network.encoder
        with torch.no_grad():
            encoder(torch.zeros(2, 3, spec.image_size, spec.image_size), encoder.layers)


def describe(found: Mapping[str, Any]) -> str:
    """The same as text."""
    lines = [f"{found['name']}, input {'×'.join(map(str, found['input']))}", ""]
    lines.append(f"{'layer':32} {'kind':28} {'output':>14} {'parameters':>12}")
    for layer in found["layers"]:
        shape = "×".join(map(str, layer["shape"]))
        count = f"{layer['parameters']:,}" if layer["parameters"] else ""
        lines.append(f"{layer['name']:32} {layer['kind']:28} {shape:>14} {count:>12}")
    lines += ["", f"{'part':32} {'weights':>14} {'biases':>12} {'parameters':>14}"]
    for part, n in found["parts"].items():
        lines.append(f"{part:32} {n['weights']:14,} {n['biases']:12,} {n['parameters']:14,}")
    taps = ", ".join(f"{k} {'×'.join(map(str, v))}" for k, v in found["taps"].items())
    return "\n".join([*lines, "", f"layers for evaluations: {taps}"])
