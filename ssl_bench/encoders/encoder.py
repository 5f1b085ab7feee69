"""The contract of an encoder: ordered, named layers, nothing computed after the last asked for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

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
