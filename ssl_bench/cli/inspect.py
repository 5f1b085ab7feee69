"""What a network is made of: layers, output shapes, parameters by part."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.data.store.squares import stored_size
from ssl_bench.encoders.build import TRUNKS, EncoderSpec, build_encoder, own_spec
from ssl_bench.encoders.elsewhere import FORMS, open_elsewhere, scheme_of
from ssl_bench.encoders.libraries import intended
from ssl_bench.encoders.spec import Norm, Stem
from ssl_bench.errors import UsageError, plain, unknown
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import Step, Trainable


def inspect_network(
    name: str,
    *,
    image_size: int | None = None,
    width: float | None = None,
    norm: Norm = "own",
    stem: Stem = "own",
) -> dict[str, Any]:
    """`{"name", "input", "parts": {part: counts}, "learners": [...], "taps", "layers": [...]}`.

    `name` is a pretext or an architecture. A layer is a module without children that has run,
    with its part, kind, output shape (without the batch) and number of parameters; `taps` are
    the encoder's named layers. Counts are `parameters` and, of them, `weights`, `biases` and
    `norms` (scales and shifts of normalisation). A learner is an optimiser with its kind, learning
    rate, parts and their weights.
    """
    sizes = {"image_size": image_size, "width": width, "norm": norm, "stem": stem}
    given = {k: v for k, v in sizes.items() if v is not None}
    if name in catalogue.names("pretext"):
        config = catalogue.pretext(name).Config(**given)
        network, spec = build_pretext(name, config, HALF)
        encoder = network.encoder
    elif scheme_of(name):
        network = nn.Module()
        network.encoder, spec = open_elsewhere(name, image_size)
        encoder = network.encoder
    elif name in TRUNKS or ":" in name:
        size = image_size or own_spec(name).image_size
        spec = EncoderSpec(
            arch=name, image_size=size, width=1.0 if width is None else width, norm=norm,
            stem=stem, normalization=HALF,
        )  # fmt: skip
        network = nn.Module()
        network.encoder = encoder = build_encoder(spec)
    else:
        if hint := intended(name):
            raise UsageError(f"unknown network '{plain(name)}'; did you mean {hint}?")
        elsewhere = ["timm:NAME", "torchvision:NAME", *FORMS]
        raise unknown("network", name, [*catalogue.names("pretext"), *TRUNKS, *elsewhere])
    layers = _trace(network, spec)
    with torch.no_grad():
        blank = torch.zeros(1, 3, spec.image_size, spec.image_size)
        taps = {k: list(v.shape[1:]) for k, v in encoder.eval()(blank, encoder.layers).items()}
    parts = {part: _count(module) for part, module in network.named_children()}
    return {
        "name": name,
        "input": [3, spec.image_size, spec.image_size],
        "parts": {part: numbers for part, numbers in parts.items() if numbers["parameters"]},
        "learners": _learners(network, parts),
        "taps": taps,
        "layers": layers,
    }


def _count(module: nn.Module) -> dict[str, int]:
    counts = {"parameters": 0, "weights": 0, "biases": 0, "norms": 0}
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    scales = {id(p) for norm in norms for p in norm.parameters()}
    for name, parameter in module.named_parameters():
        kind = "biases" if name.endswith("bias") else "weights"
        counts["norms" if id(parameter) in scales else kind] += parameter.numel()
        counts["parameters"] += parameter.numel()
    return counts


def _learners(network: nn.Module, parts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """What each optimiser of a pretext advances."""
    if not isinstance(network, Trainable):
        return []
    found = []
    for optimizer in network.optimizers():
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [
            part
            for part, module in network.named_children()
            if any(id(parameter) in held for parameter in module.parameters())
        ]
        found.append(
            {
                "kind": type(optimizer).__name__,
                "lr": optimizer.param_groups[0]["lr"],
                "parts": own,
                "weights": sum(parts[part]["weights"] for part in own),
            }
        )
    return found


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
    names = ("weights", "biases", "norms", "parameters")
    lines += ["", f"{'part':32}" + "".join(f"{name:>14}" for name in names)]
    for part, n in found["parts"].items():
        lines.append(f"{part:32}" + "".join(f"{n[name]:14,}" for name in names))
    for learner in found["learners"]:
        parts = ", ".join(learner["parts"])
        rate = f"{learner['kind']}, rate {learner['lr']:g}"
        lines.append(f"{rate} learns {parts}: {learner['weights']:,} weights")
    taps = ", ".join(f"{k} {'×'.join(map(str, v))}" for k, v in found["taps"].items())
    return "\n".join([*lines, "", f"layers for evaluations: {taps}"])
