"""The contract of an encoder: ordered, named layers that give maps, and the check that they do."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_bench.errors import UsageError, unknown

POOLED = "pooled"


class Encoder(nn.Module, ABC):
    """A trunk with ordered, named layers.

    `layers` names them from the image upwards; calling the encoder with some of these names
    returns their maps and computes nothing after the last of them. The last one is `pooled` where
    the network has one vector that the field calls its representation. Calling it leaves the modes
    of its modules as `train` and `eval` have set them.
    """

    layers: tuple[str, ...]
    # How names of the classifier's weights begin: the encoder lacks them, or no map needs them.
    head: tuple[str, ...] = ()
    takes_keep: bool = False
    patch_size: int = 0  # px, of those with `takes_keep`
    trainable: ClassVar[bool] = True  # False: it has no gradients, and is evaluated frozen only
    version: ClassVar[int] = 1  # raised when a change makes other maps of the same weights

    @abstractmethod
    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}, `pooled` (B, C, 1, 1).

        `keep`, int64 (B, K), says which patches of each image are seen, counted row by row from 0,
        in any order; class and register tokens always are. Maps are then the tokens that were kept,
        (B, C, K, 1), in the order of `keep`. Encoders with `takes_keep` take it, others raise
        UsageError.
        """

    @contextmanager
    def hiding(self, hidden: Tensor, token: Tensor) -> Iterator[None]:
        """Within, `token` (C,) stands for hidden patches, bool (B, N), of the images that are seen.

        Patches are counted as `keep` counts them. Of a hidden one the pixels are not looked at, its
        place is. Encoders of timm with `takes_keep` do it, others raise UsageError.
        """
        raise self._shows_all()
        yield  # what makes it a generator

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of other projects under the names and in the shapes of the network's library.

        As they are, unless the library has a conversion of its own. It may raise anything.
        """
        return state

    def take_any_size(self) -> None:
        """From now on take images of other sizes, too, if that is a matter of interpolating places.

        Weights stay as they are. Most networks take any size by themselves, or none but their own.
        """

    @property
    def maps(self) -> tuple[str, ...]:
        """The layers but for `pooled`: those with an extent."""
        return tuple(layer for layer in self.layers if layer != POOLED)

    def shape(self, layer: str, size: int) -> tuple[int, int, int]:
        """Channels, height and width of what a layer gives for images of `size` px.

        It costs a pass without numbers: for whoever builds a head. UsageError for a layer that this
        encoder lacks.
        """
        self.check_layers([layer])
        _, channels, height, width = probe(self, size)[layer].shape
        return channels, height, width

    def check_layers(self, wanted: Iterable[str]) -> None:
        """Raise UsageError for a layer that this encoder lacks."""
        for layer in wanted:
            if layer not in self.layers:
                raise unknown("layer", layer, self.layers)

    def check_keep(self, keep: Tensor | None, images: Tensor) -> None:
        """Raise UsageError for tokens to keep that this encoder lacks, or in another form."""
        if keep is None:
            return
        if not self.takes_keep:
            raise self._shows_all()
        if keep.dtype != torch.int64 or keep.ndim != 2 or len(keep) != len(images):
            raise UsageError(
                f"`keep` is int64 (B, K) for {len(images)} images, not {keep.dtype} "
                f"{tuple(keep.shape)}"
            )

    def _shows_all(self) -> UsageError:
        return UsageError(
            f"{type(self).__name__} cannot leave out or hide tokens: `keep` and `hiding` are for "
            "vision transformers of timm whose patches do not overlap"
        )

    def _chain(
        self, x: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """For a trunk whose layers are its children, one after the other."""
        self.check_layers(layers)
        self.check_keep(keep, x)
        maps: dict[str, Tensor] = {}
        for name in self.layers:
            if len(maps) == len(set(layers)):
                break
            x = getattr(self, name)(x)
            if name in layers:
                maps[name] = x
        return maps


def check_maps(maps: Mapping[str, Any], images: Sequence[int], arch: str = "the encoder") -> None:
    """UsageError for a layer that gives anything but a map (B, C, h, w) of images (B, 3, S, S).

    `images` is the shape of what the encoder was given, `arch` its name in the message. Only shapes
    are looked at. The map of a square image is square, which tells channels that come last.
    """
    batch, _, height, width = images
    for layer, given in maps.items():
        shape: list[int] = list(given.shape) if isinstance(given, Tensor) else []
        is_map = len(shape) == 4 and shape[0] == batch
        if not is_map or (height == width and shape[2] != shape[3]):
            raise UsageError(
                f"{arch}: layer {layer} gives {tuple(shape) or type(given).__name__} for images "
                f"{tuple(images)}, not a map (B, C, h, w)"
            )


def probe(encoder: Encoder, size: int) -> dict[str, Tensor]:
    """What all layers give for two images of `size` px in eval mode, as shapes without numbers.

    An encoder that looks at numbers on its way is given zeros; one that has no numbers itself (it
    was built on `meta`) then gives nothing.
    """
    with evaluating(encoder), torch.no_grad():
        try:
            with torch.device("meta"):
                return _without_numbers(encoder)(torch.empty(2, 3, size, size), encoder.layers)
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):  # torch has no type of its own for what needs numbers
                raise
        if any(weight.is_meta for weight in encoder.state_dict().values()):
            return {}
        maps = encoder(torch.zeros(2, 3, size, size), encoder.layers)
        return {layer: given.to("meta") for layer, given in maps.items()}


def _without_numbers(encoder: Encoder) -> Encoder:
    """A copy whose weights are shapes: whatever a model caches on its way stays in the copy."""
    shapes: dict[int, Any] = {}  # deepcopy takes what stands here under an object's id as its copy
    for weight in encoder.parameters():
        shapes[id(weight)] = nn.Parameter(weight.detach().to("meta"), requires_grad=False)
    for buffer in encoder.buffers():
        shapes[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(encoder, shapes)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards every part's own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
