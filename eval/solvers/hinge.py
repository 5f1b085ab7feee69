"""What the SVMs of squared_hinge.py minimise, of many problems at once: its values and slopes."""

import torch
from torch import Tensor

from ssl_bench.evaluation.rows import Rows


class SquaredHinge:
    """J of K problems over the same rows (N, R); weights are (K, R), scores (N, K).

    `pull` float32 (N, K) is y·a: whose sign says on which side of the margin the row belongs, and
    whose size how much it counts. 0 leaves the row out. `gram` float32 (N, N) is X Xᵀ, if known.
    """

    def __init__(self, rows: Rows, pull: Tensor, costs: Tensor, gram: Tensor | None = None) -> None:
        self.rows, self.pull, self.costs, self.gram = rows, pull, costs, gram

    def at(self, costs: Tensor) -> "SquaredHinge":
        """The same problems at other costs (K,)."""
        return SquaredHinge(self.rows, self.pull, costs, self.gram)

    def keep(self, which: Tensor) -> "SquaredHinge":
        """Those of the K problems where `which` (K,) is true."""
        return SquaredHinge(self.rows, self.pull[:, which], self.costs[which], self.gram)

    def scores(self, w: Tensor) -> Tensor:
        """(K, R) -> (N, K), in one product for all problems."""
        z = w.new_empty(len(self.rows), len(w))
        for span, block in self.rows.blocks():
            torch.mm(block.to(w.dtype), w.T, out=z[span])
        return z

    def value(self, z: Tensor, w: Tensor) -> Tensor:
        """J of each problem (K,)."""
        loss = w.new_zeros(len(w))
        for span in self.rows.spans():
            pull = self.pull[span]
            loss += (pull.abs() * _short(pull, z[span]).square()).sum(0)
        return self.costs * loss + w.square().sum(1) / 2

    def gradient(self, z: Tensor, w: Tensor) -> Tensor:
        """Of w (K, R)."""
        total = w.T.clone()  # (R, K)
        for span, block in self.rows.blocks():
            pull = self.pull[span]
            total.addmm_(block.to(w.dtype).T, -2 * self.costs * pull * _short(pull, z[span]))
        return total.T

    def bend(self, z: Tensor) -> Tensor:
        """Second derivatives of the loss by each score, float32 (N, K); 0 beyond the margin."""
        missed = _short(self.pull, z) > 0
        return 2 * self.costs * self.pull.abs() * missed

    def along(
        self, t: Tensor, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slope and bend of J at z + t·dz; the bend jumps where a row crosses its margin."""
        slope, bend = torch.zeros_like(t), torch.zeros_like(t)
        for span in self.rows.spans():
            pull, d = self.pull[span], dz[span]
            short = _short(pull, torch.addcmul(z[span], d, t))
            push = pull * d
            slope -= (push * short).sum(0)
            bend += (push.abs() * d.abs() * (short > 0)).sum(0)
        inner, own = (w * dw).sum(1), dw.square().sum(1)
        return 2 * self.costs * slope + inner + t * own, 2 * self.costs * bend + own


def _short(pull: Tensor, z: Tensor) -> Tensor:
    """By how much each row misses its margin: max(0, 1 − y z)."""
    return (1 - pull.sign() * z).clamp(min=0)
