"""FCN-32s: an encoder as a fully convolutional network that scores every pixel.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, as
published for AlexNet (github.com/shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/net.py): the
image is padded by 100 px, fc6 is a 6×6 and fc7 a 1×1 convolution, a 1×1 convolution scores the
classes, and the scores are upsampled bilinearly by the stride and cropped to the image.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.encoders import Encoder, learn_up_to
from ssl_bench.errors import UsageError

PROBE = 227  # px; here Caffe's AlexNet has no remainder, and padded networks at most 2 px
SPAN = 256  # px that are added to learn the stride
# The centre of the first score lies 13 of 32 px inside the image: the published crop by 18 px of an
# upsampling whose first centre is at 31.
INSIDE = 13 / 32
DROPOUT = 0.5
# N(0, 0.005²) and bias 1 for fc6 and fc7 of AlexNet's size (CaffeNet's fillers, and those of the
# segmentation test of Zhang et al.); other sizes get the deviation that keeps the outputs' scale.
STD, FC6_INPUTS, FC7_INPUTS = 0.005, 256 * 6 * 6, 4096


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
        gained = self.side(PROBE + SPAN) - cells
        if gained <= 0 or SPAN % gained:
            raise UsageError(
                f"layer {layer} has {cells} and {cells + gained} cells across images of {PROBE} "
                f"and {PROBE + SPAN} px: segmentation needs a map that grows with the image, so "
                "choose another --layer"
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
                f"({_first_line(error)}): segmentation needs a convolutional encoder"
            ) from error
        return channels, cells


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100]


class FCN(nn.Module):
    """An encoder up to one layer, fc6 and fc7 as convolutions, scores, and upsampling.

    The encoder stays in eval mode in training, too: AlexNet has nothing that differs, and batch
    statistics of padded images would be those of the padding. `classes` counts the background.
    """

    def __init__(
        self,
        encoder: Encoder,
        layer: str,
        classes: int,
        *,
        kernel: int = 6,
        head: int = 4096,
        freeze: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.geometry = Geometry(encoder, layer)
        self.encoder, self.layer, self.kernel = encoder, layer, kernel
        learn_up_to(encoder, layer, PROBE)
        if freeze:
            encoder.requires_grad_(False)
        fc6, fc7 = nn.Conv2d(self.geometry.channels, head, kernel), nn.Conv2d(head, head, 1)
        _fill(fc6, FC6_INPUTS, generator(seed, "fc6"))
        _fill(fc7, FC7_INPUTS, generator(seed, "fc7"))
        self.fc67 = nn.Sequential(
            OrderedDict(
                fc6=fc6, relu6=nn.ReLU(), drop6=nn.Dropout(DROPOUT),
                fc7=fc7, relu7=nn.ReLU(), drop7=nn.Dropout(DROPOUT),
            )
        )  # fmt: skip
        self.score = nn.Conv2d(head, classes, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> "FCN":
        """As nn.Module's, but for the encoder."""
        super().train(mode)
        self.encoder.eval()
        return self

    @property
    def padding(self) -> int:
        """Pixels of padding above and left of the image: 100 for pool5 of AlexNet and a 6×6 fc6."""
        g = self.geometry
        return max(0, round(g.offset + g.stride * ((self.kernel - 1) / 2 - INSIDE)))

    @property
    def first(self) -> float:
        """Where the first score's centre lies, in px from that of the image's first pixel."""
        return self.geometry.offset + self.geometry.stride * (self.kernel - 1) / 2 - self.padding

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) -> scores float32 (B, classes, H, W)."""
        scores = self.score(self.features(self.padded(images)))
        return upsample(scores, self.geometry.stride, self.first, images.shape[-2:])

    def padded(self, images: Tensor) -> Tensor:
        """With zeros around, the mean colour, as far as the scores need."""
        below, right = (self._after(length) for length in images.shape[-2:])
        return F.pad(images, (self.padding, right, self.padding, below))

    def features(self, padded: Tensor) -> Tensor:
        """Padded images -> fc7, (B, head, h, w)."""
        return self.fc67(self.encoder(padded, [self.layer])[self.layer])

    def _after(self, length: int) -> int:
        """Padding behind `length` px: as much as before, and more where a last score lacked.

        AlexNet, whose pooling rounds up, never needs more.
        """
        for after in (self.padding, self.padding + self.geometry.stride):
            scores = self.geometry.side(self.padding + length + after) - self.kernel + 1
            if self.first + self.geometry.stride * scores > length - 1:
                return after
        raise UsageError(
            f"layer {self.layer} gives no score at the edge of {length} px: choose another --layer"
        )


def _fill(layer: nn.Conv2d, usual: int, random: torch.Generator) -> None:
    """CaffeNet's start of a fully connected layer; see STD."""
    inputs = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=STD * (usual / inputs) ** 0.5, generator=random)
    nn.init.ones_(layer.bias)  # type: ignore[arg-type]


def bilinear(
    cells: int, stride: int, first: float, length: int, device: torch.device | None = None
) -> Tensor:
    """What each cell gives to each pixel of a line, float32 (length, cells).

    Cell q has its centre at pixel `first` + `stride`·q and fades to nothing over `stride` px: the
    fixed kernel of the published upsampling layer, read at the pixels that its crop leaves. Beyond
    the outermost centres scores fade, which changes no class's rank.
    """
    pixels = torch.arange(length, device=device)
    centres = first + stride * torch.arange(cells, device=device)
    return (1 - (pixels[:, None] - centres).abs() / stride).clamp(min=0).float()


def upsample(scores: Tensor, stride: int, first: float, size: Sequence[int]) -> Tensor:
    """Bilinear upsampling and cropping in one: (B, K, h, w) -> float32 (B, K, *size)."""
    rows, columns = (
        bilinear(cells, stride, first, length, scores.device)
        for cells, length in zip(scores.shape[-2:], size, strict=True)
    )
    with torch.autocast(scores.device.type, enabled=False):
        return rows @ scores.float() @ columns.T
