"""An encoder as a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.data.store.squares import stored_size
from ssl_bench.encoders.encoder import POOLED, Encoder, evaluating
from ssl_bench.encoders.spec import LIBRARIES, EncoderSpec
from ssl_bench.errors import UsageError
from ssl_bench.files import write_atomically, written_at_once

EQUAL = 1e-5  # of the largest value: the same network, summed in the same order or nearly
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # as timm and the hub call them


@dataclass(frozen=True)
class TimmModel:
    """A network of timm with its weights in `state`; `arguments` are those of `create_model`."""

    architecture: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]
    features: int
    config: dict[str, Any]  # timm's own of this network: input_size, first_conv, classifier …

    def folder_config(self, spec: EncoderSpec, license: str) -> dict[str, Any]:
        """The content of config.json: what builds the network, and how images are prepared."""
        size, norm = spec.image_size, spec.normalization
        kept = {k: self.config.get(k) for k in ("fixed_input_size", "first_conv", "classifier")}
        prepared = {
            "input_size": [3, size, size], "mean": norm.mean, "std": norm.std,
            "interpolation": "bilinear", "crop_mode": "center",
            # timm resizes to floor(size / crop_pct): in the middle between two whole numbers.
            "crop_pct": size / (stored_size(size) + 0.5),
            "num_classes": 0, "license": license, **kept,
        }  # fmt: skip
        arguments = {"model_args": self.arguments} if self.arguments else {}
        return {
            "architecture": self.architecture, "num_classes": 0, "num_features": self.features,
            **arguments, "pretrained_cfg": prepared,
        }  # fmt: skip


def timm_equal(encoder: Encoder, spec: EncoderSpec) -> TimmModel:
    """The network of timm that gives the encoder's `pooled`; its own, or torchvision's namesake.

    Checked on two images. Raises UsageError, which says why, where timm has none.
    """
    import timm

    library, _, name = spec.arch.partition(":")
    architecture = name.partition(".")[0]
    if library not in LIBRARIES or architecture not in timm.list_models():
        raise UsageError(f"timm has no network {spec.arch}")
    if spec.stem != "own":
        raise UsageError(f"timm has no {architecture} with a small stem")
    if POOLED not in encoder.layers:
        raise UsageError(f"{spec.arch} has no {POOLED}, which timm's features would be")
    is_sized = getattr(encoder, "fixed", False)
    arguments: dict[str, Any] = {"img_size": spec.image_size} if is_sized else {}
    state = {
        name.removeprefix("model."): tensor.detach().cpu().contiguous()
        for name, tensor in encoder.state_dict().items() if not name.startswith(encoder.head)
    }  # fmt: skip
    try:
        model: Any = timm.create_model(architecture, num_classes=0, **arguments)
        model.load_state_dict(state)
        worst = deviation(encoder, spec, model)
    except (RuntimeError, TypeError) as error:  # other names or shapes, or another size of images
        raise UsageError(f"timm's {architecture} is another network than {spec.arch}") from error
    if not worst <= EQUAL:
        raise UsageError(f"timm's {architecture} gives other features: by {worst:.1e}")
    return TimmModel(architecture, arguments, state, model.num_features, model.default_cfg)


@torch.no_grad()
def deviation(encoder: Encoder, spec: EncoderSpec, model: nn.Module) -> float:
    """How far a model's output (B, C) is from the encoder's `pooled`, by the largest of these."""
    size, generator = spec.image_size, torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator)
    with evaluating(encoder), evaluating(model):
        expected = encoder(images, [POOLED])[POOLED].flatten(1)
        given = model(images)
    if given.shape != expected.shape:
        return float("inf")
    return float((given - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def save_timm(
    found: TimmModel, encoder: Encoder, spec: EncoderSpec, out: Path, license: str
) -> None:
    """Write config.json and model.safetensors, and read them back through timm.

    Raises AssertionError if timm reads other features from them, which would be a defect.
    """
    import timm

    with written_at_once(out / WEIGHTS) as scratch:
        save_file(found.state, scratch, {"format": "pt"})
    write_atomically(out / CONFIG, json.dumps(found.folder_config(spec, license), indent=2) + "\n")
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert deviation(encoder, spec, model) <= EQUAL
