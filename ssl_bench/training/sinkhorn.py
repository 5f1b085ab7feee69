"""Codes that use all prototypes alike, by Sinkhorn and Knopp's iteration (SwAV, section 3.1)."""

import torch
from torch import Tensor

from ssl_bench.training.precision import full_precision

ITERATIONS = 3


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float) -> Tensor:
    """Scores (N, K) of the images of all devices -> codes (N, K) without gradients.

    exp(scores / ε) with its columns and rows brought to equal sums in turn. Rows end with a sum of
    1, columns with nearly N / K.
    """
    codes = ((scores - scores.max()) / epsilon).exp()  # a common factor changes nothing
    for _ in range(ITERATIONS):
        codes = codes / codes.sum(0)
        codes = codes / codes.sum(1, keepdim=True)
    return codes
