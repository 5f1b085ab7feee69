"""Encoders of torchvision: any of its classification networks, whose parts are the layers.

Maps that have their channels last are turned, tokens go back to their grid and the class token is
left out. What a model cannot do, at an image size above all, is refused in one line when it is
built: two images without numbers are sent through it, and `shapes` keeps what came out:
{layer: (C, h, w)}.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ssl_bench.encoders.encoder import POOLED, Encoder, check_maps, probe
from ssl_bench.encoders.libraries import refusal, run_up_to
from ssl_bench.encoders.spec import Stem
from ssl_bench.encoders.stem import set_stem
from ssl_bench.errors import UsageError, unknown


def check_torchvision_name(name: str) -> None:
    """Raise UsageError unless torchvision has a network of that name that classifies images."""
    from torchvision import models

    known = models.list_models(module=models)
    if name in models.list_models() and name not in known:
        kind = models.get_model_builder(name).__module__.split(".")[2]
        raise UsageError(
            f"torchvision:{name} is of torchvision.models.{kind}: encoders are the networks that "
            "classify images, of torchvision.models itself"
        )
    if name not in known:
        raise unknown("torchvision model", name, known)


class TorchvisionEncoder(Encoder):
    """Any torchvision classification network: the parts of its trunk that give maps are the layers.

    Its own forward pass runs, in the modes that `train` and `eval` have set, up to the last layer
    that is asked for. `pooled` is what the classifier's first linear layer sees: the global average
    or the class token, behind the final norm and before dropout. AlexNet and VGG, whose classifier
    sees a flattened map, and SqueezeNet, whose scores are a map, have none.
    """

    version = 2  # 1 pooled Swin's maps across channels, and let later ReLUs overwrite others'

    def __init__(self, name: str, image_size: int, pretrained: bool, stem: Stem = "own") -> None:
        from torchvision import models

        super().__init__()
        arch, published = f"torchvision:{name}", models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
        own, family = published.transforms().crop_size[0], family_of(name)
        sized = {key: image_size if key == "image_size" else (image_size, image_size)
                 for key in SIZED.get(family, ())}  # fmt: skip
        self.fixed, self._layout = bool(sized), LAYOUTS.get(family, _as_it_is)
        self._family = family
        weights = published if pretrained else None
        with refusal(arch, image_size, own, pretrained):
            self.model = _anywhere(lambda: models.get_model(name, weights=weights, **sized))
        set_stem(self.model, stem, arch)
        for module in self.model.modules():
            if getattr(module, "inplace", False):  # it would overwrite the layer before it
                setattr(module, "inplace", False)  # noqa: B010
        self._linear = self._first_linear()
        self.head = tuple(f"model.{name}." for name in self._classifier())
        self.layers = (*self._parts(), *([POOLED] if self._linear else []))
        with refusal(arch, image_size, own):
            maps = probe(self, image_size)
            maps = {k: given for k, given in maps.items() if given.ndim == 4}  # else: of a head
            check_maps(maps, (2, 3, image_size, image_size), arch)
        if POOLED in maps:  # a flattened map has more numbers than the last map has channels
            *_, top, vector = maps.values()
            if top.shape[1] != vector.shape[1]:
                del maps[POOLED]
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

    def _first_linear(self) -> str | None:
        """The name of the classifier's first linear layer; dropout before it is switched off."""
        names = []
        for part in (name for name, _ in self.model.named_children() if name in HEADS):
            for name, module in self.model.get_submodule(part).named_modules(prefix=part):
                if isinstance(module, nn.Dropout):
                    module.p = 0.0  # the classifier's: what it sees is not to be thinned out
                names += [name] if isinstance(module, nn.Linear) else []
        return names[0] if names else None

    def _classifier(self) -> list[str]:
        """Names of the modules that no map depends on: the classifiers, auxiliary ones too."""
        names = [name for name, _ in self.model.named_children() if name in (*HEADS, *AUXILIARY)]
        for name in [n for n in names if self._linear and self._linear.startswith(f"{n}.")]:
            modules = dict(self.model.get_submodule(name).named_children())
            inside = [f"{name}.{n}" for n in modules]
            first = next(i for i, n in enumerate(inside) if f"{self._linear}.".startswith(f"{n}."))
            # ConvNeXt's and MaxViT's begins with a norm, behind which `pooled` is.
            if any(list(m.parameters()) for m in list(modules.values())[:first]):
                names += inside[first:]
                names.remove(name)
        return names

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A vision transformer's position embeddings for this size of images, by torchvision."""
        if self._family != "vision_transformer":
            return state
        from torchvision.models.vision_transformer import interpolate_embeddings

        model: Any = self.model
        return dict(interpolate_embeddings(model.image_size, model.patch_size, OrderedDict(state)))

    def _hook(self, layer: str, note: Callable[[str, Tensor], None]) -> RemovableHandle:
        """Call `note` with what a layer gives, as soon as it is known."""
        if layer == POOLED:
            linear = self.model.get_submodule(str(self._linear))
            return linear.register_forward_pre_hook(
                lambda _, inputs: note(layer, inputs[0][..., None, None])
            )
        module = self.model.get_submodule(layer)
        if isinstance(module, nn.ModuleList):  # that is no module which is called
            module = module[-1]

        def hook(_module: nn.Module, _inputs: Any, given: Tensor) -> Tensor | None:
            note(layer, self._layout(given))
            # What runs on gets a copy: DenseNet's next step is a ReLU in place.
            return given.clone() if layer == self.maps[-1] else None

        return module.register_forward_hook(hook)

    def train(self, mode: bool = True) -> "TorchvisionEncoder":
        """As usual, but for the auxiliary classifiers of Inception: a trunk has none."""
        super().train(mode)
        if hasattr(self.model, "aux_logits"):
            self.model.training = False  # of the outermost module, which asks nothing else by it
        return self

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}; see `Encoder.forward`."""
        self.check_layers(layers)
        self.check_keep(keep, images)
        return run_up_to(self.model, images, layers, self._hook)


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


AUXILIARY = ("aux1", "aux2", "AuxLogits")  # classifiers of GoogLeNet and Inception
HEADS = ("dropout", "fc", "classifier", "head", "heads")
SIZED = {"vision_transformer": ("image_size",), "maxvit": ("input_size",)}  # they are built for one
LAYOUTS = {"swin_transformer": _channels_second, "vision_transformer": _grid}


def family_of(name: str) -> str:
    """The module of torchvision that defines a model."""
    from torchvision import models

    return models.get_model_builder(name).__module__.rpartition(".")[2]


def _anywhere(build: Callable[[], nn.Module]) -> nn.Module:
    """Built where the context says; a RegNet reads numbers as it is built, and `meta` has none."""
    with warnings.catch_warnings():  # an Inception's: of how its next version draws weights
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return build()
        except NotImplementedError:
            device = torch.get_default_device()
            with torch.device("cpu"):
                return build().to(device)
