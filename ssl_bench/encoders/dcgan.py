"""The encoder of the inpainting network of Pathak et al. 2016 (figure 9a)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssl_bench.encoders.encoder import Encoder


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
            down = (1, 0) if name == "bottleneck" else (2, 1)  # stride, padding: 4×4 cells to one
            convolution = nn.Conv2d(before, after, 4, *down, bias=False)
            # Radford et al.: with normalisation next to the images too, training oscillated.
            norm = [] if name == "conv1" else [nn.BatchNorm2d(after)]
            self.add_module(name, nn.Sequential(convolution, *norm, nn.LeakyReLU(0.2)))

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S), S >= 128 -> {layer: (B, C, h, w)}."""
        return self._chain(images, layers, keep)
