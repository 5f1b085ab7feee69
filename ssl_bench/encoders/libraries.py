"""Any network of timm and of torchvision as an encoder."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ssl_bench.encoders.encoder import Encoder


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
