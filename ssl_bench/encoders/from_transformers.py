"""Vision models of Hugging Face's transformers: `hf:ORG/NAME`, `hf:ORG/NAME@REVISION`, `hf:FOLDER`.

Layers are the blocks of a transformer (`layer1` …), whose tokens go back to their grid without
class and register tokens, or the stages of a convolutional network (`stage1` …). `pooled` is the
class token behind the final norm, or the model's own pooled output. Image size and normalisation
are those of its preprocessor_config.json.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl_bench.data.normalization import IMAGENET, Normalization
from ssl_bench.encoders.encoder import POOLED, Encoder, check_maps, probe
from ssl_bench.encoders.libraries import (
    check_patches,
    local_path,
    refusal,
    run_up_to,
    say_assumed,
)
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.errors import DataError, UsageError, extra, plain
from ssl_bench.files import refuse_pointer

KINDS = ("convnext", "convnextv2", "dinov2", "dinov2_with_registers", "resnet", "vit")
BLOCKS = ("layer", "layers", "stages")  # what its versions call the list of them
POOLER = "pooler."  # ViT's, behind the class token: trained by few, and `pooled` is before it


class TransformersEncoder(Encoder):
    """A model of one of the `KINDS`; its own forward pass runs, up to the last layer."""

    def __init__(self, model: Any, arch: str, image_size: int) -> None:
        super().__init__()
        self.model = model
        self._blocks = next(
            name for name, part in model.named_modules()
            if isinstance(part, nn.ModuleList) and name.rpartition(".")[2] in BLOCKS
        )  # fmt: skip
        kind = "stage" if self._blocks.endswith("stages") else "layer"
        if kind == "layer":
            check_patches(arch, image_size, model.config.patch_size)
        count = len(model.get_submodule(self._blocks))
        self.layers = (*(f"{kind}{i + 1}" for i in range(count)), POOLED)
        self._prefix = 1 + getattr(model.config, "num_register_tokens", 0)
        # ViT refuses other sizes than its own unless it is told; the others look at the image.
        is_vit = model.config.model_type == "vit"
        self._options = {"interpolate_pos_encoding": True} if is_vit else {}
        check_maps(probe(self, image_size), (2, 3, image_size, image_size), arch)

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}; see `Encoder.forward`."""
        self.check_layers(layers)
        self.check_keep(keep, images)
        return run_up_to(lambda x: self.model(x, **self._options), images, layers, self._hook)

    def _hook(self, layer: str, note: Callable[[str, Any], None]) -> RemovableHandle:
        if layer == POOLED:
            return self.model.register_forward_hook(lambda _m, _i, out: note(layer, _vector(out)))
        block = self.model.get_submodule(f"{self._blocks}.{self.layers.index(layer)}")
        return block.register_forward_hook(lambda _m, _i, out: note(layer, self._map(out)))

    def _map(self, given: Any) -> Tensor:
        given = given[0] if isinstance(given, tuple) else given
        if given.ndim == 4:
            return given
        patches = given[:, self._prefix :]
        side = math.isqrt(patches.shape[1])
        return patches.transpose(1, 2).unflatten(2, (side, side))


def _vector(given: Any) -> Tensor:
    """The class token behind the final norm, or a convolutional network's pooled output."""
    top = given.last_hidden_state
    vector = top[:, 0] if top.ndim == 3 else given.pooler_output.flatten(1)
    return vector[..., None, None]


def open_transformers(text: str, image_size: int | None = None) -> tuple[Encoder, EncoderSpec]:
    """A model of the hub, or of a folder that `save_pretrained` wrote; no code of it is run.

    Raises UsageError for a kind that is none of the `KINDS`, DataError for weights that are missing
    or cannot be had.
    """
    with extra("hf"):
        import transformers  # pyright: ignore[reportMissingImports]

    place, _, revision = text.removeprefix("hf:").partition("@")
    folder = local_path(place)
    if not place:
        raise UsageError(f"{text} names no model: hf:ORG/NAME or hf:FOLDER")
    local = folder.is_dir()
    name = f"hf:{folder.name}" if local else text
    where: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    where |= {"revision": revision} if revision else {}
    place = str(folder) if local else place
    for file in folder.glob("*") if local else ():
        refuse_pointer(file)
    try:
        config = transformers.AutoConfig.from_pretrained(place, **where)
        if config.model_type not in KINDS:
            raise UsageError(
                f"{name} is of the kind {plain(config.model_type)}, and read are "
                f"{', '.join(KINDS)}: bring it by file:encoder.py:build, or look for its weights "
                "in timm (docs/encoders.md)"
            )
        model = _loaded(place, name, config, where)
        said = _preprocessing(folder if local else None, place, revision)
    # Of a damaged file safetensors raises its own, torch a RuntimeError or an UnpicklingError.
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = plain([*str(error).strip().splitlines(), type(error).__name__][0])[:200]
        raise DataError(f"{name} cannot be had from {place}: {reason}") from error
    spec = _spec(name, config, said, image_size)
    with refusal(name, spec.image_size, getattr(config, "image_size", 224)):
        return TransformersEncoder(model, name, spec.image_size), spec


def _loaded(place: str, name: str, config: Any, where: dict[str, Any]) -> nn.Module:
    """The model with all its weights in float32; DataError where some are missing."""
    with extra("hf"):
        import transformers  # pyright: ignore[reportMissingImports]

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # heads that are left out fill a screen
    transformers.logging.disable_progress_bar()
    try:
        model, told = transformers.AutoModel.from_pretrained(
            place, config=config, output_loading_info=True, dtype=torch.float32, **where
        )
    finally:
        transformers.logging.enable_progress_bar()
        transformers.logging.set_verbosity(level)
    lacking = [n for n in told["missing_keys"] if not n.startswith(POOLER)]
    if lacking or told["mismatched_keys"]:
        wrong = sorted(lacking or map(str, told["mismatched_keys"]))
        raise DataError(f"{name} lacks weights: {plain(', '.join(wrong[:3]))}")
    if getattr(model, "pooler", None) is not None and config.model_type == "vit":
        model.pooler = None  # what chance drew, where it was missing, is no part of the encoder
    return model


def _preprocessing(folder: Path | None, place: str, revision: str) -> dict[str, Any]:
    """What preprocessor_config.json says; nothing where there is none."""
    file = "preprocessor_config.json"
    if folder:
        path = folder / file
    else:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            path = Path(hf_hub_download(place, file, revision=revision or None))
        except EntryNotFoundError:
            return {}
    return json.loads(path.read_bytes()) if path.exists() else {}


def _spec(name: str, config: Any, said: dict[str, Any], image_size: int | None) -> EncoderSpec:
    """Size and normalisation as the preprocessor has them; what it does not say is assumed."""
    sides = said.get("crop_size") or said.get("size") or {}
    sides = {"height": sides} if isinstance(sides, int) else sides
    own = sides.get("height") or sides.get("shortest_edge") or getattr(config, "image_size", None)
    known = "image_mean" in said and "image_std" in said
    norm = IMAGENET
    if not said.get("do_normalize", True):
        norm = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    elif known:
        norm = Normalization(mean=tuple(said["image_mean"]), std=tuple(said["image_std"]))
    assumed = not known and said.get("do_normalize", True)
    say_assumed(name, normalization=assumed, image_size=own is None and image_size is None)
    try:
        return EncoderSpec(arch=name, image_size=image_size or own or 224, normalization=norm)
    except ValueError as error:
        raise UsageError(f"{name}: {plain(error)[:200]}") from error
