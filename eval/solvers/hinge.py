"""What the SVMs of squared_hinge.py minimise, of many problems at once: its values and slopes."""

import torch
from torch import Tensor

from eval.solvers.lbfgs import Problem
from ssl_bench.evaluation.rows import Rows


class SquaredHinge(Problem):
    """J of K problems over the same rows.

    `pull` float32 (N, K) is y·a: whose sign says on which side of the margin the row belongs, and
    whose size how much it counts. 0 leaves the row out.
    """

    intercept = False  # it is the weight of the rows' constant

    def __init__(self, rows: Rows, pull: Tensor, costs: Tensor) -> None:
        total = pull.new_zeros(rows.shape[1], pull.shape[1])
        for span, block in rows.blocks():
            total.addmm_(block.square().T, pull[span].abs())
        self.rows = rows
        self._take(pull, total.T, costs)

    def _take(self, pull: Tensor, curvature: Tensor, costs: Tensor) -> "SquaredHinge":
        self.pull, self.curvature, self.costs = pull, curvature, costs  # (N, K), (K, R), (K,)
        # The Hessian's diagonal while all rows are inside the margin, inverted.
        self.scale = (1 / (1 + 2 * costs[:, None] * curvature))[..., None]
        return self

    def at(self, costs: Tensor) -> "SquaredHinge":
        """The same problems at other costs (K,)."""
        other = object.__new__(SquaredHinge)
        other.rows = self.rows
        return other._take(self.pull, self.curvature, costs)

    def keep(self, which: Tensor) -> "SquaredHinge":
        """See Problem.keep."""
        kept = object.__new__(SquaredHinge)
        kept.rows = self.rows
        return kept._take(self.pull[:, which], self.curvature[which], self.costs[which])

    def value(self, z: Tensor, w: Tensor) -> Tensor:
        """J of each problem (K,)."""
        loss = w.new_zeros(len(w))
        for span in self.rows.spans():
            pull = self.pull[span]
            loss += (pull.abs() * _short(pull, z[span, :, 0]).square()).sum(0)
        return self.costs * loss + w.square().sum((1, 2)) / 2

    def gradient(self, z: Tensor, w: Tensor) -> Tensor:
        """Of w (K, R, 1)."""

        def error(span: slice) -> Tensor:
            pull = self.pull[span]
            return (-2 * self.costs * pull * _short(pull, z[span, :, 0]))[..., None]

        return self.back(error, w) + w

    def bend(self, z: Tensor) -> Tensor:
        """Second derivatives of the loss by each score, float32 (N, K); 0 beyond the margin."""
        missed = _short(self.pull, z[..., 0]) > 0
        return 2 * self.costs * self.pull.abs() * missed

    def along(
        self, t: Tensor, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slope and bend of J at z + t·dz; the bend jumps where a row crosses its margin."""
        slope, bend = torch.zeros_like(t), torch.zeros_like(t)
        for span in self.rows.spans():
            pull, d = self.pull[span], dz[span, :, 0]
            short = _short(pull, torch.addcmul(z[span, :, 0], d, t))
            push = pull * d
            slope -= (push * short).sum(0)
            bend += (push.abs() * d.abs() * (short > 0)).sum(0)
        inner, own = (w * dw).sum((1, 2)), dw.square().sum((1, 2))
        return 2 * self.costs * slope + inner + t * own, 2 * self.costs * bend + own


def _short(pull: Tensor, z: Tensor) -> Tensor:
    """By how much each row misses its margin: max(0, 1 − y z)."""
    return (1 - pull.sign() * z).clamp(min=0)
