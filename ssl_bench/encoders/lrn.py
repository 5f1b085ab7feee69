"""Local response normalisation, cheaply: a product with a band across channels, and its gradient.

Krizhevsky et al. 2012, section 3.3, as Caffe computes it: y = x · s^−β with
s = 1 + α/n · Σ x² over the n nearest channels. torch's own pads, pools in three dimensions and
raises to a power: four times as long in AlexNet's first layers.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class LocalResponseNorm(nn.LocalResponseNorm):
    """torch's layer with β = 0.75 and k = 1, the only ones that AlexNet knows: equal to rounding.

    (B, C, h, w) -> the same shape, float32 or float64, float32 under autocast. No second gradient.
    """

    def __init__(self, size: int, alpha: float) -> None:
        super().__init__(size, alpha, beta=0.75, k=1.0)

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.LocalResponseNorm`."""
        maps = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        return _Normalize.apply(maps, self.size // 2, self.alpha / self.size)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, reach: int, rate: float) -> Tensor:
        root = _near(x * x, reach).mul_(rate).add_(1).rsqrt_()  # s^(−1/2)
        factor = root.sqrt().mul_(root)  # s^(−3/4): two roots are cheaper than a power
        ctx.save_for_backward(x, root, factor)
        ctx.reach, ctx.rate = reach, rate
        return x * factor

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """dy_j/dx_i = δ_ij s_i^−β − 2β α/n x_i x_j s_j^(−β−1) for i near j."""
        x, root, factor = ctx.saved_tensors
        direct = gradients[0] * factor
        across = (x * direct).mul_(root).mul_(root)
        near = _near(across, ctx.reach)
        return direct.addcmul_(x, near, value=-1.5 * ctx.rate), None, None


def _near(values: Tensor, reach: int) -> Tensor:
    """Sums over the channels within `reach` of each: (B, C, h, w) -> the same shape."""
    band = _band(values, reach)
    device = values.device.type
    # Under autocast a product would be of halves, and a sum of squares wants its digits.
    with torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext():
        if values.is_contiguous(memory_format=torch.channels_last):
            return (values.permute(0, 2, 3, 1) @ band).permute(0, 3, 1, 2)
        return (band @ values.flatten(2)).view_as(values)


_bands: dict[tuple[int, int, torch.dtype, torch.device], Tensor] = {}  # one for each layer's shape


def _band(like: Tensor, reach: int) -> Tensor:
    """(C, C), 1 where two channels are near; made once, which saves a GPU three launches a pass."""
    key = like.shape[1], reach, like.dtype, like.device
    band = _bands.get(key)
    if band is None:
        with torch.inference_mode(False):  # else no training could use it later
            ones = like.new_ones(like.shape[1], like.shape[1])
            band = ones.tril_(reach).triu_(-reach)
        # Not where only shapes are asked for, nor a tracer's: neither has numbers for the next.
        if not like.is_meta and not torch.compiler.is_exporting():
            _bands[key] = band
    return band
