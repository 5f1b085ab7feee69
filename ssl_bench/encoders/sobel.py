"""Edges in place of colours: AlexNet's beginning in DeepCluster, `--stem sobel`.

Caron et al., ECCV 2018, section 4.1: a fixed linear transformation based on Sobel filters removes
colour and raises local contrast (models/alexnet.py of facebookresearch/deepcluster).
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACROSS = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


class Sobel(nn.Module):
    """Normalised float (B, 3, H, W) -> (B, 2, H, W): the mean channel's slopes across and down.

    Beyond the edges are zeros. Nothing of it learns, and no file of weights holds it.
    """

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(1, keepdim=True)
        return F.conv2d(grey, _kernels(grey.device, grey.dtype), padding=1)


@lru_cache(maxsize=8)  # copied anew at every step, a GPU would be waited for each time
def _kernels(device: torch.device, dtype: torch.dtype) -> Tensor:
    across = torch.tensor(ACROSS, dtype=dtype)
    return torch.stack([across, across.T])[:, None].to(device)  # (2, 1, 3, 3)
