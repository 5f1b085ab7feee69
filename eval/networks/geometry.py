"""Where the cells of a layer's map lie on the image: stride, span and offset, found by probing."""

from functools import cache

import torch

from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError

PROBE = 227  # px; here Caffe's AlexNet has no remainder, and padded networks at most 2 px
SPAN = 256  # px that are added to learn the stride


class Geometry:
    """Where the cells of a layer's map lie in the image, from the map's size alone.

    Cells are `stride` px apart; the centre of the first is `offset` px from that of the first
    pixel: 32 and 33 for pool5 of AlexNet, which is exact. The map of PROBE px is taken to lie in
    the middle of the image. Raises UsageError for an encoder that takes one size only, or whose map
    does not grow with the image.
    """

    def __init__(self, encoder: Encoder, layer: str) -> None:
        self._encoder, self._layer = encoder, layer
        self.side = cache(self._side)
        self.channels, cells = self._probe(PROBE)
        # A difference of two sizes: padding and kernels, the same in both, drop out.
        gained = self.side(PROBE + SPAN) - cells
        if gained <= 0 or SPAN % gained:
            raise UsageError(
                f"layer {layer} has {cells} and {cells + gained} cells across images of {PROBE} "
                f"and {PROBE + SPAN} px: this protocol needs a map that grows with the image, "
                "so choose another --layer"
            )
        self.stride = SPAN // gained
        self.offset = (PROBE - 1 - self.stride * (cells - 1)) / 2

    def _side(self, length: int) -> int:
        """Cells across `length` px."""
        return self._probe(length)[1]

    @torch.no_grad()
    def _probe(self, length: int) -> tuple[int, int]:
        """Channels, and cells across, of a strip of `length` px."""
        weights = next(self._encoder.parameters(), torch.empty(0))
        blank = torch.zeros(1, 3, PROBE, length, device=weights.device)
        try:
            found = self._encoder.eval()(blank, [self._layer])[self._layer]
            _, channels, _, cells = found.shape
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"layer {self._layer} takes images of one size only, it seems "
                f"({_first_line(error)}): this protocol needs a convolutional encoder"
            ) from error
        return channels, cells


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]
