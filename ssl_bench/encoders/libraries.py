"""Encoders of timm and torchvision: any of their models whose layers are maps (B, C, h, w).

Whatever a library's layout, channels come second: maps with channels last are turned, tokens go
back to their grid and the class token is left out. What a model cannot do, at an image size above
all, is refused in one line when it is built: two images without numbers are sent through it, and
`shapes` keeps what came out: {layer: (C, h, w)}.
"""

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.encoders.encoder import Encoder, check_maps, probe
from ssl_bench.errors import BenchError, UsageError, plain


class TimmEncoder(Encoder):
    """Any timm model that reports intermediate maps; layers carry timm's own names."""

    def __init__(self, name: str, image_size: int, pretrained: bool) -> None:
        import timm

        super().__init__()
        config = timm.get_pretrained_cfg(name)
        own = config.input_size[-1] if config else 224
        # Only models that are built for one size take it as an argument: a TypeError for the rest.
        self.fixed = bool(config and config.fixed_input_size)
        sized: dict[str, Any] = {"img_size": image_size} if self.fixed else {}
        with refusal(f"timm:{name}", image_size, own, pretrained):
            self.model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
            # CrossViT's two branches share their names: the second, of larger patches, has them.
            self._place = {info["module"]: i for i, info in enumerate(self.model.feature_info)}
        self.layers = tuple(self._place)
        with refusal(f"timm:{name}", image_size, own):
            maps = probe(self, image_size)
            check_maps(maps, (2, 3, image_size, image_size), f"timm:{name}")
        self.shapes = {layer: tuple(given.shape[1:]) for layer, given in maps.items()}
        heads = self.model.default_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        self.head = tuple(f"model.{name}." for name in heads)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}."""
        self.check_layers(layers)
        wanted = [name for name in self.layers if name in layers]
        maps = self.model.forward_intermediates(
            images, indices=[self._place[name] for name in wanted], stop_early=True,
            intermediates_only=True, output_fmt="NCHW",
        )  # fmt: skip
        return dict(zip(wanted, maps, strict=True))


class TorchvisionEncoder(Encoder):
    """Any torchvision classification network: the parts of its trunk that give maps are the layers.

    Its own forward pass runs, in the modes that `train` and `eval` have set, up to the last layer
    that is asked for.
    """

    def __init__(self, name: str, image_size: int, pretrained: bool) -> None:
        from torchvision import models

        super().__init__()
        arch, published = f"torchvision:{name}", models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        own, family = published.transforms().crop_size[0], family_of(name)
        sized = {key: image_size if key == "image_size" else (image_size, image_size)
                 for key in SIZED.get(family, ())}  # fmt: skip
        self.fixed, self._layout = bool(sized), LAYOUTS.get(family, _as_it_is)
        weights = published if pretrained else None
        with refusal(arch, image_size, own, pretrained):
            self.model = _anywhere(lambda: models.get_model(name, weights=weights, **sized))
        for module in self.model.modules():
            if getattr(module, "inplace", False):  # it would overwrite the layer before it
                setattr(module, "inplace", False)  # noqa: B010
        self.layers = self._parts()
        with refusal(arch, image_size, own):
            maps = probe(self, image_size)
            maps = {k: given for k, given in maps.items() if given.ndim == 4}  # else: of a head
            check_maps(maps, (2, 3, image_size, image_size), arch)
        self.layers = tuple(maps)
        self.shapes = {layer: tuple(given.shape[1:]) for layer, given in maps.items()}
        self.train()  # Inception's outermost module too

    def _parts(self) -> tuple[str, ...]:
        """Names of the modules that are layers if they give maps."""

        def inside(part: str) -> list[str]:
            return [f"{part}.{n}" for n, _ in self.model.get_submodule(part).named_children()]

        parts = [name for name, _ in self.model.named_children() if name not in HEADS]
        if "features" in parts:  # AlexNet, VGG, EfficientNet …: one Sequential holds the trunk
            parts = inside("features")
        elif "encoder" in parts:  # of a vision transformer
            parts = ["conv_proj", *inside("encoder.layers")]
        return tuple(part for part in parts if "pool" not in part)

    def _end(self, layer: str) -> nn.Module:
        """What gives a layer's map: a list of modules is no module that is called."""
        module = self.model.get_submodule(layer)
        return module[-1] if isinstance(module, nn.ModuleList) else module

    def train(self, mode: bool = True) -> "TorchvisionEncoder":
        """As usual, but for the auxiliary classifiers of Inception: a trunk has none."""
        super().train(mode)
        if hasattr(self.model, "aux_logits"):
            self.model.training = False  # of the outermost module, which asks nothing else by it
        return self

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}."""
        self.check_layers(layers)
        wanted, maps = set(layers), {}

        def keep(layer: str) -> Callable[[nn.Module, Any, Tensor], None]:
            def hook(module: nn.Module, inputs: Any, given: Tensor) -> None:
                maps[layer] = self._layout(given)
                if len(maps) == len(wanted):
                    raise _Done

            return hook

        hooks = [self._end(k).register_forward_hook(keep(k)) for k in wanted]
        try:
            self.model(images)
        except _Done:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return maps


class _Done(Exception):
    """All layers that are asked for have been computed."""


def _as_it_is(given: Tensor) -> Tensor:
    return given


def _channels_second(given: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w)."""
    return given.permute(0, 3, 1, 2)


def _grid(given: Tensor) -> Tensor:
    """(B, 1 + h·w, C), the class token first -> (B, C, h, w); what is a map already stays."""
    if given.ndim == 4:
        return given
    side = round((given.shape[1] - 1) ** 0.5)  # the library takes square images only
    return given[:, 1:].transpose(1, 2).unflatten(2, (side, side))


HEADS = ("fc", "classifier", "head", "heads")
SIZED = {"vision_transformer": ("image_size",), "maxvit": ("input_size",)}  # they are built for one
LAYOUTS = {"swin_transformer": _channels_second, "vision_transformer": _grid}


def family_of(name: str) -> str:
    """The module of torchvision that defines a model."""
    from torchvision import models

    return models.get_model_builder(name).__module__.rpartition(".")[2]


def _anywhere(build: Callable[[], nn.Module]) -> nn.Module:
    """Built where the context says; a RegNet reads numbers as it is built, and `meta` has none."""
    with warnings.catch_warnings():  # of how an Inception draws its weights: they are drawn anew
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return build()
        except NotImplementedError:
            device = torch.get_default_device()
            with torch.device("cpu"):
                return build().to(device)


@contextmanager
def refusal(arch: str, size: int, own: int, loading: bool = False) -> Iterator[None]:
    """Whatever a library raises becomes one line; what disk and network raise stays as it is.

    `loading`: weights may come from a network, and RuntimeError is the libraries' for those that
    cannot be had.
    """
    library = arch.partition(":")[0]
    try:
        yield
    except (BenchError, OSError, MemoryError):
        raise
    except Exception as error:
        if loading and isinstance(error, RuntimeError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.line for frame in frames if f"/{library}/" in frame.filename]
        why = str(error).strip() or (lines or [None])[-1] or type(error).__name__  # bare assertions
        why = why.splitlines()[0]
        at = f"at {size} px" if size == own else f"at {size} px (its own size is {own} px)"
        raise UsageError(f"{arch} cannot be used {at}: {plain(why)[:200]}") from error
