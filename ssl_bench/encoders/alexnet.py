"""The AlexNet of Pathak et al. 2016: CaffeNet's trunk, one tower with groups."""

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.lrn import LocalResponseNorm
from ssl_bench.encoders.sobel import Sobel


class AlexNet(Encoder):
    """conv1 … conv5 and pool5 of CaffeNet: 227×227 in, 256×6×6 out, 2,334,080 parameters.

    Pooling comes before normalisation, conv2, conv4 and conv5 have two groups, pooling sizes are
    rounded up as in Caffe (pool5 is 3×3 at 128 px, 2×2 at 96 px). A layer's map is
    taken after its ReLU. `width` scales all channel counts.

    With `batch_norm`, as from 2018 on: batch normalisation between each convolution and its ReLU,
    no LRN; the convolutions keep their biases, which it makes idle (DeepCluster's models/alexnet.py
    and RotNet's architectures/AlexNet.py, both as released). Their other differences are not taken
    over: one tower without groups, conv1 padded by 2, sizes of pooling rounded down.

    With `sobel`, conv1 sees edges in two channels in place of three colours (sobel.py).
    """

    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5")
    head = ("fc6.", "fc7.", "fc8.")

    def __init__(self, width: float = 1.0, batch_norm: bool = False, sobel: bool = False) -> None:
        super().__init__()
        # Even counts: conv2, conv4 and conv5 halve what they take and what they give.
        c1, c2, c3, c4, c5 = (max(2, 2 * round(c * width / 2)) for c in (96, 256, 384, 384, 256))
        self.batch_norm = batch_norm
        before = [Sobel()] if sobel else []
        # No padding: 227 px, not 224, fit.
        self.conv1 = self._stage(*before, nn.Conv2d(2 if sobel else 3, c1, 11, stride=4))
        # Two groups: in 2012 they lay on two GPUs, which met in conv3 only.
        self.conv2 = self._stage(*self._before(), nn.Conv2d(c1, c2, 5, padding=2, groups=2))
        self.conv3 = self._stage(*self._before(), nn.Conv2d(c2, c3, 3, padding=1))
        self.conv4 = self._stage(nn.Conv2d(c3, c4, 3, padding=1, groups=2))
        self.conv5 = self._stage(nn.Conv2d(c4, c5, 3, padding=1, groups=2))
        self.pool5 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def _before(self) -> Sequence[nn.Module]:
        return _pool_norm()[:1] if self.batch_norm else _pool_norm()

    def _stage(self, *modules: nn.Module) -> nn.Sequential:
        """Modules that end in a convolution, and its ReLU."""
        channels = int(modules[-1].get_parameter("bias").numel())
        norm = [nn.BatchNorm2d(channels)] if self.batch_norm else []
        return nn.Sequential(*modules, *norm, nn.ReLU())

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S), S >= 64 -> {layer: (B, C, h, w)}."""
        return self._chain(images, layers, keep)


def _pool_norm() -> tuple[nn.Module, nn.Module]:
    # Caffe rounds sizes of pooling up, and of convolutions down. Its LRN divides alpha by the five
    # channels, as torch's does, so its 1e-4 is taken as it stands; the paper of 2012 does not.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True), LocalResponseNorm(5, 1e-4)
