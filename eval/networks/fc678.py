"""A network for classification: an encoder, then fc6, fc7 and fc8 with fresh weights.

The layers behind AlexNet's pool5, as Krähenbühl et al. (ICLR 2016) fine-tune them: 4,096 outputs,
ReLU and dropout 0.5 behind fc6 and fc7. Their code draws the layers that it starts anew from
N(0, 0.01²), with biases of 0.1 (philkr/voc-classification, src/train_cls.py).
"""

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.evaluation.features import pooled_side

DIMENSIONS = 9216  # of AlexNet's pool5 at 227 px; larger maps are pooled to as many
FROZEN: dict[str, tuple[str, ...]] = {
    "all": (),
    "fc6-8": ("encoder",),
    "fc8": ("encoder", "fc67"),
}


class Classifier(nn.Module):
    """An encoder up to one layer, then fc6, fc7 and fc8 with ReLU and dropout between them."""

    def __init__(
        self, encoder: Encoder, layer: str, size: int, width: int, classes: int, seed: int
    ) -> None:
        super().__init__()
        self.encoder, self.layer, self.frozen = encoder.eval(), layer, False
        learn_up_to(encoder, layer, size)
        channels, side, _ = encoder.shape(layer, size)
        # 6 for pool5 at 227 px: fc6 then sees what Caffe's does. Larger maps would make fc6 huge.
        grid = pooled_side(channels, side, DIMENSIONS)
        self.fc67 = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(grid),  # as it is, unless the map is a large one
                flat=nn.Flatten(),
                fc6=nn.Linear(channels * grid**2, width),
                relu6=nn.ReLU(),
                drop6=nn.Dropout(0.5),
                fc7=nn.Linear(width, width),
                relu7=nn.ReLU(),
                drop7=nn.Dropout(0.5),
            )
        )
        self.fc8 = nn.Linear(width, classes)
        for name, part in (("fc67", self.fc67), ("fc8", self.fc8)):
            initialize(part, "gaussian", seed, name)
            # train_cls.py's filler for biases; CaffeNet's own fc6 and fc7 would have 1.
            for weight in (p for n, p in part.named_parameters() if n.endswith("bias")):
                nn.init.constant_(weight, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> scores (B, classes)."""
        return self.fc8(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> fc7, (B, width)."""
        return self.fc67(self.encoder(images, [self.layer])[self.layer])

    def freeze(self, train: str) -> None:
        """From now on only the layers that `train` names learn."""
        for name in FROZEN[train]:
            self.get_submodule(name).requires_grad_(False)
        self.frozen = train != "all"

    def train(self, mode: bool = True) -> "Classifier":
        """A frozen encoder stays in eval mode, so that statistics of its batches do not move."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the images of scores (B, C): softmax for labels int64 (B,), else sigmoid.

    For targets int8 (B, C) it is the sum over the classes; one of −1 counts nothing.
    """
    if targets.ndim == 1:
        return F.cross_entropy(scores, targets)
    judged = (targets != -1).float()  # as weights: 0 where all of a class's objects are difficult
    total = F.binary_cross_entropy_with_logits(scores, targets.float(), judged, reduction="sum")
    return total / len(scores)  # Caffe's SigmoidCrossEntropyLoss: over images, not classes
