"""Trunks: networks with ordered, named layers, each able to stop at the last layer asked for.

`AlexNet` is the CaffeNet trunk of Pathak et al. 2016 (one GPU tower with groups, Caffe's rounding
of pooling sizes), `DCGAN` the encoder of their inpainting network. `TimmEncoder` and
`TorchvisionEncoder` bring any model of these libraries.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from ssl_bench.errors import unknown


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

    def _chain(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """For a trunk whose layers are its children, one after the other."""
        self.check_layers(layers)
        maps: dict[str, Tensor] = {}
        for name in self.layers:
            if len(maps) == len(set(layers)):
                break
            x = getattr(self, name)(x)
            if name in layers:
                maps[name] = x
        return maps


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
        return self._chain(images, layers)


def _stage(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules, nn.ReLU())


def _pool_norm() -> tuple[nn.Module, nn.Module]:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75)


class DCGAN(Encoder):
    """conv1 … conv5 and bottleneck of the inpainting network: 3×128×128 in, 4000×1×1 out.

    Pathak et al. 2016, figure 9a, after the discriminator of DCGAN (Radford et al., arXiv
    1511.06434): convolutions 4×4 of stride 2, 64, 64, 128, 256 and 512 channels, then a 4×4 one
    without padding; batch normalisation but for conv1, LeakyReLU of 0.2. 35,589,120 weights in the
    convolutions, no biases. A layer's map is taken after its LeakyReLU. `width` scales all channel
    counts, `bottleneck` replaces the last one.
    """

    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "bottleneck")

    def __init__(self, width: float = 1.0, bottleneck: int | None = None) -> None:
        super().__init__()
        scaled = [max(1, round(c * width)) for c in (64, 64, 128, 256, 512, 4000)]
        channels = [3, *scaled[:-1], bottleneck or scaled[-1]]
        for name, (before, after) in zip(self.layers, pairwise(channels), strict=True):
            down = (1, 0) if name == "bottleneck" else (2, 1)
            convolution = nn.Conv2d(before, after, 4, *down, bias=False)
            norm = [] if name == "conv1" else [nn.BatchNorm2d(after)]
            self.add_module(name, nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2)))

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S), S >= 128 -> {layer: (B, C, h, w)}."""
        return self._chain(images, layers)


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
