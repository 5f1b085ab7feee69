"""A ResNet's beginning for small images: 3×3 and stride 1 in place of 7×7 and 2, no max-pooling.

The CIFAR ResNets of the field (Chen et al. 2020, "SimCLR", appendix B.9). A map of a 32 px image is
then 4×4 at the end, where the library's own stem leaves one cell.
"""

from typing import Any

from torch import nn

from ssl_bench.encoders.spec import Stem
from ssl_bench.errors import UsageError

PARTS = ("conv1", "bn1", "maxpool", "layer4")  # as timm and torchvision name those of a ResNet


def set_stem(model: Any, stem: Stem, arch: str) -> None:
    """Change a library's model in place. UsageError for one that is no ResNet."""
    if stem == "own":
        return
    if not all(hasattr(model, part) for part in PARTS):
        raise UsageError(f"--stem small is for ResNets of timm and torchvision, not for {arch}")
    channels = model.bn1.num_features
    model.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
    # As both libraries draw all others, from the same generator.
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
