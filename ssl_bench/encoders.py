"""Encoders: trunks (ssl_bench/trunks.py) by name, their starting weights and their files.

`alexnet` and `dcgan` are ours, `timm:NAME` and `torchvision:NAME` bring any model of these
libraries. Weights travel as safetensors whose header says which encoder they fit and how its images
are normalised, so a weights file alone is enough to evaluate it.
"""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.counter import generator
from ssl_bench.errors import DataError, UsageError, plain, unknown
from ssl_bench.progress import say
from ssl_bench.records import written_at_once
from ssl_bench.trunks import DCGAN, AlexNet, Encoder, TimmEncoder, TorchvisionEncoder

Init = Literal["gaussian", "fan-in", "dcgan"]
LIBRARIES = ("timm", "torchvision")  # whose models are asked for as LIBRARY:NAME
FIXED = {"gaussian": 0.01, "dcgan": 0.02}  # deviations that do not depend on the layer
SIZES = {"alexnet": (64, 227), "dcgan": (128, 128)}  # ours: least and usual input, px


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Normalization(BaseModel):
    """What an encoder expects of its images: (pixel / 255 − mean) / std, per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]

    def apply(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32, zero-centred: a hole of zeros has the mean colour."""
        return (images.float() / 255 - self._column(self.mean, images)) / self._column(
            self.std, images
        )

    def invert(self, images: Tensor) -> Tensor:
        """float (B, 3, H, W) -> float32 in [0, 1], clipped."""
        pixels = images.float() * self._column(self.std, images) + self._column(self.mean, images)
        return pixels.clamp(0, 1)

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device).view(3, 1, 1)


HALF = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # pixels in [−1, 1]


class EncoderSpec(BaseModel):
    """All that builds an encoder except its weights; it stands in the weights file's header.

    `bottleneck` is the number of channels of dcgan's last layer; None: 4000 times the width.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    arch: str
    image_size: int = Field(ge=32, le=8192)
    width: float = Field(default=1.0, gt=0, le=4)
    bottleneck: int | None = Field(default=None, ge=1)
    normalization: Normalization

    def plain(self) -> dict[str, Any]:
        """For records: what does not concern this encoder is left out."""
        return self.model_dump(mode="json", exclude_none=True)


def weights_of(encoder: Encoder, layer: str, size: int) -> list[nn.Parameter]:
    """The weights that a layer's map depends on, for images of `size` px."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    maps = encoder.eval()(torch.zeros(1, 3, size, size), [layer])[layer]
    found = torch.autograd.grad(maps.sum(), weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, found, strict=True) if gradient is not None]


def learn_up_to(encoder: Encoder, layer: str, size: int) -> None:
    """From now on no weight behind `layer` asks for a gradient: several devices wait for those."""
    wanted = {id(weight) for weight in weights_of(encoder, layer, size)}
    for weight in encoder.parameters():
        weight.requires_grad_(id(weight) in wanted)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def own_spec(arch: str) -> EncoderSpec:
    """Image size and normalisation that `arch`'s published weights were trained with."""
    library, _, name = arch.partition(":")
    size, norm = SIZES.get(arch, (0, 224))[1], IMAGENET
    check_spec(EncoderSpec(arch=arch, image_size=size, normalization=norm))
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        if config is not None:
            norm = Normalization.model_validate({"mean": config.mean, "std": config.std})
            size = config.input_size[-1]
    elif library == "torchvision":
        from torchvision.models import get_model_weights

        published = get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
        norm = Normalization.model_validate({"mean": published.mean, "std": published.std})
        size = published.crop_size[0]
    return EncoderSpec(arch=arch, image_size=size, normalization=norm)


def check_spec(spec: EncoderSpec) -> None:
    """Raise UsageError for an encoder that cannot be built; nothing is built."""
    library, _, name = spec.arch.partition(":")
    if spec.bottleneck and spec.arch != "dcgan":
        raise UsageError(f"--bottleneck is for dcgan, not for {spec.arch}")
    if spec.arch in SIZES:
        least, _ = SIZES[spec.arch]
        if spec.image_size < least:
            raise UsageError(
                f"{spec.arch} takes images of at least {least} px, not {spec.image_size}"
            )
        return
    if library not in LIBRARIES or not name:
        raise unknown("architecture", spec.arch, [*SIZES, "timm:NAME", "torchvision:NAME"])
    if spec.width != 1:
        raise UsageError(f"--width scales {' and '.join(SIZES)}, not {spec.arch}")
    models = _models(library)
    if name not in models:
        raise unknown(f"{library} model", name, models)


def _models(library: str) -> list[str]:
    if library == "timm":
        import timm

        return timm.list_models()
    from torchvision.models import list_models

    return list_models()


def build_encoder(spec: EncoderSpec, pretrained: bool = False) -> Encoder:
    """The encoder that `spec` names, on the CPU. Raises UsageError for an unknown one."""
    check_spec(spec)
    library, _, name = spec.arch.partition(":")
    if library == "timm":
        return TimmEncoder(name, spec.image_size, pretrained)
    if library == "torchvision":
        return TorchvisionEncoder(name, pretrained)
    return DCGAN(spec.width, spec.bottleneck) if spec.arch == "dcgan" else AlexNet(spec.width)


def initialize(module: nn.Module, init: Init, *key: int | str) -> None:
    """Draw the weights of all convolutions and linear layers in `module` anew; biases are 0.

    `gaussian`: N(0, 0.01²), Caffe's filler for AlexNet, the paper's "random Gaussian".
    `fan-in`: N(0, 2 / fan-in), He et al. 2015, eq. 10, which keeps the activations' scale.
    `dcgan`: N(0, 0.02²), and N(1, 0.02²) for the scales of batch normalisation, as in the released
    code of the inpainting network.
    The numbers depend on `key` and on the layer's name in `module`, on nothing drawn before.
    """
    for name, layer in module.named_modules():
        if init == "dcgan" and isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=generator(*key, name))
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = layer.weight
        inputs = weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):  # an output sees kernel / stride² inputs
            stride = layer.stride[0] * layer.stride[1]
            inputs = weight.shape[0] // layer.groups * weight[0, 0].numel() // stride
        std = (2 / inputs) ** 0.5 if init == "fan-in" else FIXED[init]
        nn.init.normal_(weight, std=std, generator=generator(*key, name))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes: equal exactly when all weights are equal."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
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
        raise DataError(f"{path} has no 'encoder' entry in its header: not saved by ssl-bench")
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


def load_foreign(encoder: Encoder, path: Path) -> None:
    """Copy a local file of another project's weights into `encoder` and say what matched.

    safetensors, or a torch state dict (bare, or under `state_dict` or `model`; a leading `module.`
    is taken off). Nothing in the file is run. Strict but for the classifier that a headless
    encoder leaves out; DataError otherwise. Where another project's names are all different, the
    tensors may match by their order: see `_by_order`.
    """
    own = encoder.state_dict()
    inner = "model." if any(name.startswith("model.") for name in own) else ""
    state = {inner + n.removeprefix("module."): t for n, t in _read_state(path).items()}
    left = [name for name in state if name not in own and name.startswith(encoder.head)]
    fitting = {name: tensor for name, tensor in state.items() if name not in left}
    way = "by name"
    if not fitting.keys() & own.keys() and (ordered := _by_order(own, state)):
        fitting, left, way = ordered, list(state)[len(own) :], "by order, kind and shape"
    load_strictly(encoder, fitting, str(path))
    names = ", ".join(name.removeprefix(inner) for name in left)
    count = f"{len(own)} of {len(own)} tensors matched {way}"
    say(f"{path.name}: {count}; left out: {names or 'nothing'}")


def _by_order(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """`state` under our names, if it holds the same kinds and shapes in the same order.

    A kind is a name's last part (weight, bias, running_mean …). At most a final linear layer may
    be left over: the classifier. None where anything differs.
    """

    def kinds(tensors: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(n.rpartition(".")[2], tuple(t.shape)) for n, t in tensors.items()]

    given, asked = kinds(state), kinds(own)
    over = [(kind, len(shape)) for kind, shape in given[len(asked) :]]
    if given[: len(asked)] != asked or over not in ([], [("weight", 2), ("bias", 1)]):
        return None
    return dict(zip(own, state.values(), strict=False))


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read is refused
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if any(i.compress_type != zipfile.ZIP_STORED for i in archive.infolist()):
                        raise ValueError("torch does not compress")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch meets in a hostile file
        raise DataError(
            f"{path} cannot be read as weights: it is damaged, or holds more than tensors, which "
            "is not unpickled because it could run code"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(t, Tensor) and isinstance(n, str) for n, t in content.items()
    ):
        raise DataError(f"{path} holds no state dict of tensors")
    return dict(content)


def load_strictly(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `encoder`; DataError says which weights are missing, extra or misshapen."""
    check_fit(encoder.state_dict(), state, origin)
    try:
        encoder.load_state_dict(dict(state))
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
