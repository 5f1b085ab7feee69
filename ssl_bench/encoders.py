"""Encoders: trunks with ordered, named layers, each able to stop at the last layer asked for.

`AlexNet` is the CaffeNet trunk of Pathak et al. 2016 (one GPU tower with groups, Caffe's rounding
of pooling sizes). `timm:NAME` and `torchvision:NAME` bring any model of these libraries.
Weights travel as safetensors whose header says which encoder they fit and how its images are
normalised, so a weights file alone is enough to evaluate it.
"""

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_bench.counter import generator
from ssl_bench.errors import DataError, UsageError, unknown
from ssl_bench.progress import say
from ssl_bench.records import written_at_once

Init = Literal["gaussian", "fan-in"]
LIBRARIES = ("timm", "torchvision")  # whose models are asked for as LIBRARY:NAME


class Normalization(BaseModel):
    """What an encoder expects of its images: (pixel / 255 − mean) / std, per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

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


class EncoderSpec(BaseModel):
    """All that builds an encoder except its weights; it stands in the weights file's header."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arch: str
    image_size: int = Field(ge=32)
    width: float = Field(default=1.0, gt=0, le=4)
    normalization: Normalization


class Encoder(nn.Module, ABC):
    """A trunk with ordered, named layers.

    `layers` names them from the image upwards; calling the encoder with some of these names
    returns their maps and computes nothing after the last of them.
    """

    layers: tuple[str, ...]
    head: tuple[str, ...] = ()  # names of weights of a classifier that the encoder leaves out

    @abstractmethod
    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}."""

    def check_layers(self, wanted: Iterable[str]) -> None:
        """Raise UsageError for a layer that this encoder lacks."""
        for layer in wanted:
            if layer not in self.layers:
                raise unknown("layer", layer, self.layers)


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


class AlexNet(Encoder):
    """conv1 … conv5 and pool5 of CaffeNet: 227×227 in, 256×6×6 out, 2,334,080 parameters.

    Pooling comes before normalisation, conv2, conv4 and conv5 have two groups, pooling sizes are
    rounded up as in Caffe (pool5 is 3×3 at 128 px, 2×2 at 96 px, 1×1 at 64 px). A layer's map is
    taken after its ReLU. `width` scales all channel counts.
    """

    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5")
    head = ("fc6.", "fc7.", "fc8.")

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (max(2, 2 * round(c * width / 2)) for c in (96, 256, 384, 384, 256))
        self.conv1 = _stage(nn.Conv2d(3, c1, 11, stride=4))
        self.conv2 = _stage(*_pool_norm(), nn.Conv2d(c1, c2, 5, padding=2, groups=2))
        self.conv3 = _stage(*_pool_norm(), nn.Conv2d(c2, c3, 3, padding=1))
        self.conv4 = _stage(nn.Conv2d(c3, c4, 3, padding=1, groups=2))
        self.conv5 = _stage(nn.Conv2d(c4, c5, 3, padding=1, groups=2))
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S), S >= 64 -> {layer: (B, C, h, w)}."""
        self.check_layers(layers)
        maps: dict[str, Tensor] = {}
        x = images
        for name in self.layers:
            if len(maps) == len(set(layers)):
                break
            x = getattr(self, name)(x)
            if name in layers:
                maps[name] = x
        return maps


def _stage(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules, nn.ReLU())


def _pool_norm() -> tuple[nn.Module, nn.Module]:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75)


class TimmEncoder(Encoder):
    """Any timm model that reports intermediate maps; layers carry timm's own names."""

    def __init__(self, name: str, image_size: int, pretrained: bool) -> None:
        import timm

        super().__init__()
        sized: dict[str, Any] = {"img_size": image_size} if "vit" in name or "swin" in name else {}
        self.model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
        self.layers = tuple(info["module"] for info in self.model.feature_info)
        heads = self.model.default_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        self.head = tuple(f"model.{name}." for name in heads)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}."""
        self.check_layers(layers)
        wanted = [i for i, name in enumerate(self.layers) if name in layers]
        maps = self.model.forward_intermediates(
            images, indices=wanted, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return {self.layers[i]: tensor for i, tensor in zip(wanted, maps, strict=True)}


class TorchvisionEncoder(Encoder):
    """Any torchvision classification network: the parts of its trunk are the layers."""

    def __init__(self, name: str, pretrained: bool) -> None:
        from torchvision.models import get_model
        from torchvision.models.feature_extraction import (
            create_feature_extractor,
            get_graph_node_names,
        )

        super().__init__()
        self.model = get_model(name, weights="DEFAULT" if pretrained else None).eval()
        nodes = get_graph_node_names(self.model)[1]
        parts = [n for n, _ in self.model.named_children() if n not in ("fc", "classifier")]
        if "features" in parts:  # AlexNet, VGG, EfficientNet …: one Sequential holds the trunk
            parts = [
                f"features.{n}" for n, _ in self.model.get_submodule("features").named_children()
            ]
        last = {p: [n for n in nodes if n == p or n.startswith(p + ".")] for p in parts}
        self.layers = tuple(p for p in parts if last[p] and "pool" not in p)
        self._node = {p: last[p][-1] for p in self.layers}
        self._extract = create_feature_extractor
        self._built: dict[tuple[str, ...], nn.Module] = {}

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}."""
        self.check_layers(layers)
        wanted = tuple(name for name in self.layers if name in layers)
        if wanted not in self._built:  # shares the weights; the graph ends at the last layer
            nodes = {self._node[name]: name for name in wanted}
            self._built[wanted] = self._extract(self.model, nodes)
        return self._built[wanted].train(self.training)(images)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def own_spec(arch: str) -> EncoderSpec:
    """Image size and normalisation that `arch`'s published weights were trained with."""
    library, _, name = arch.partition(":")
    size, norm = (227 if arch == "alexnet" else 224), IMAGENET
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
    if spec.arch == "alexnet":
        if spec.image_size < 64:
            raise UsageError(f"alexnet takes images of at least 64 px, not {spec.image_size}")
        return
    if library not in LIBRARIES or not name:
        raise unknown("architecture", spec.arch, ["alexnet", "timm:NAME", "torchvision:NAME"])
    if spec.width != 1:
        raise UsageError(f"--width scales alexnet only, not {spec.arch}")
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
    return AlexNet(spec.width)


def initialize(module: nn.Module, init: Init, *key: int | str) -> None:
    """Draw the weights of all convolutions and linear layers in `module` anew; biases are 0.

    `gaussian`: N(0, 0.01²), Caffe's filler for AlexNet, the paper's "random Gaussian".
    `fan-in`: N(0, 2 / fan-in), He et al. 2015, eq. 10, which keeps the activations' scale.
    The numbers depend on `key` and on the layer's name in `module`, on nothing drawn before.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = layer.weight
        inputs = weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):  # an output sees kernel / stride² inputs
            stride = layer.stride[0] * layer.stride[1]
            inputs = weight.shape[0] // layer.groups * weight[0, 0].numel() // stride
        std = 0.01 if init == "gaussian" else (2 / inputs) ** 0.5
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
    """Write the weights with their spec in the header; returns their digest."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()
    }
    digest = weights_digest(state)
    with written_at_once(path) as scratch:
        save_file(state, scratch, {"encoder": spec.model_dump_json(), "digest": digest})
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
    except ValueError as error:
        raise DataError(f"{path}: its header does not describe an encoder") from error
    encoder = build_encoder(spec)
    load_strictly(encoder, state, str(path))
    return encoder, spec


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
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise DataError(
            f"{path} cannot be read as weights: it is damaged, or holds more than tensors, which "
            "is not unpickled because it could run code"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise DataError(f"{path} holds no state dict of tensors")
    return dict(content)


def load_strictly(encoder: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `encoder`; DataError says which weights are missing, extra or misshapen."""
    own = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"lacks {name}" for name in own if name not in given]
    problems += [f"has {name}, which the encoder lacks" for name in given if name not in own]
    problems += [
        f"{name} is {given[name]}, not {shape}"
        for name, shape in own.items()
        if name in given and given[name] != shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{origin} does not fit the encoder: {'; '.join(problems[:3])}{more}")
    encoder.load_state_dict(dict(state))
