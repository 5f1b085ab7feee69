"""Weights files of ours, written and read strictly; those of others: foreign.py."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import DataError, UsageError, plain
from ssl_bench.files import refuse_pointer, written_at_once


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes: equal exactly when all weights are equal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, not numbers: −0 is not 0, and NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_encoder(encoder: nn.Module, spec: EncoderSpec, path: Path) -> str:
    """Write the weights with their spec in the header, byte by byte the same for equal ones.

    Returns the digest of the weights.
    """
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()
    }
    digest = weights_digest(state)
    with written_at_once(path) as scratch:
        # One entry: the library writes several in any order, and equal weights are equal files.
        save_file(state, scratch, {"encoder": spec.model_dump_json()})
    return digest


def load_encoder(path: Path) -> tuple[Encoder, EncoderSpec]:
    """Build an encoder from a weights file of ours, strictly: every weight fits or DataError."""
    refuse_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is not a readable safetensors file ({error}): copy it anew, or remove its "
            "folder and pretrain again"
        ) from error
    if "encoder" not in header:
        raise DataError(
            f"{path} has no 'encoder' entry in its header: not saved by ssl-bench; the weights of "
            f"others go into their network by --encoder timm:NAME --weights {path}"
        )
    try:
        spec = EncoderSpec.model_validate(json.loads(header["encoder"]))
        fitting = build_shapes(spec)
    except (ValueError, RecursionError, RuntimeError, TypeError, UsageError) as error:
        reason = plain(error)[:200]
        raise DataError(f"{path}: its header does not describe an encoder ({reason})") from error
    check_fit(fitting, state, str(path))
    encoder = build_encoder(spec)
    load_strictly(encoder, state, str(path))
    return encoder, spec


def build_shapes(spec: EncoderSpec) -> dict[str, Tensor]:
    """The shapes of an encoder's weights; nothing is allocated."""
    with torch.device("meta"):
        encoder = build_encoder(spec)
    return encoder.state_dict()


@torch.no_grad()
def load_strictly(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `encoder`; DataError says which weights are missing, extra or misshapen."""
    own = encoder.state_dict()
    check_fit(own, state, origin)
    try:
        # Not load_state_dict: a MNASNet's wants a version beside the weights, which files lack.
        for name, tensor in own.items():
            tensor.copy_(state[name])
    except RuntimeError as error:
        raise DataError(f"{origin} does not fit the encoder: {plain(error)[:200]}") from error


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """DataError for weights that are missing, extra, misshapen, or no finite numbers."""
    given, shapes = ({n: tuple(t.shape) for n, t in each.items()} for each in (state, own))
    problems = [f"lacks {name}" for name in own if name not in given]
    problems += [f"has {name}, which the encoder lacks" for name in given if name not in own]
    problems += [
        f"{name} is {given[name]}, not {shape}"
        for name, shape in shapes.items()
        if name in given and given[name] != shape
    ]
    problems += [
        f"{name} is no dense array of finite numbers"
        for name, tensor in state.items()
        if given[name] == shapes.get(name) and not _is_weight(tensor, own[name])
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        listed = "; ".join(map(plain, problems[:3]))
        raise DataError(f"{origin} does not fit the encoder: {listed}{more}")


def _is_weight(tensor: Tensor, own: Tensor) -> bool:
    """Whether it is a dense array, of finite numbers where `own` is of floating point."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    if not own.is_floating_point():
        return True
    return tensor.is_floating_point() and bool(tensor.float().isfinite().all())
