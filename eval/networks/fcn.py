"""FCN-32s: an encoder as a fully convolutional network that scores every pixel.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, as
published for AlexNet (github.com/shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/net.py): the
image is padded by 100 px, fc6 is a 6×6 and fc7 a 1×1 convolution, a 1×1 convolution scores the
classes, and the scores are upsampled bilinearly by the stride and cropped to the image.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.networks.geometry import PROBE, Geometry
from ssl_bench.counter import generator
from ssl_bench.data.dataset import VOID
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError

# The centre of the first score lies 13 of 32 px inside the image: the published crop by 18 px of an
# upsampling whose first centre is at 31.
INSIDE = 13 / 32
DROPOUT = 0.5
# N(0, 0.005²) and bias 1 for fc6 and fc7 of AlexNet's size (CaffeNet's fillers, and those of the
# segmentation test of Zhang et al.); other sizes get the deviation that keeps the outputs' scale.
STD, FC6_INPUTS, FC7_INPUTS = 0.005, 256 * 6 * 6, 4096


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
        learn_up_to(encoder, layer, PROBE)  # DDP refuses parameters that get no gradient
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
        # Caffe fills a layer without a filler with zeros, and net.py gives the score none.
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
            # A valid convolution: kernel − 1 fewer scores than cells.
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
    # A pixel's class is an argmax of sums of four: bf16 would tie classes that are not equal.
    with torch.autocast(scores.device.type, enabled=False):
        return rows @ scores.float() @ columns.T


def pixel_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Softmax cross-entropy: the mean over the images of each one's mean over labelled pixels.

    Scores (B, K, H, W), masks uint8 (B, H, W). An image without a labelled pixel counts as 0.
    """
    each = F.cross_entropy(scores, masks.long(), ignore_index=VOID, reduction="none")
    # Not the mean over the batch's pixels: Caffe ran images one by one and averaged gradients.
    labelled = (masks != VOID).sum((1, 2)).clamp(min=1)
    return (each.sum((1, 2)) / labelled).mean()
