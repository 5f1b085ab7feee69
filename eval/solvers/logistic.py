"""Multinomial logistic regression, many regularisation strengths fitted together.

Minimises, for each strength λ, with rows x of X and classes y (scikit-learn's LogisticRegression
with C = 1 / (N·λ), the intercept free):

    J(W, b) = mean_i [ logsumexp(W x_i + b) − (W x_i + b)[y_i] ] + λ/2 ‖W‖²

All strengths share the two matrix products of an iteration (eval/solvers/lbfgs.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.solvers.lbfgs import Problem, minimize, turn
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import waiting

LIMIT = 2000  # iterations; one strength on rows that are not turned may need some hundreds


@dataclass(frozen=True)
class Standardizer:
    """Zero mean and equal variance per feature, mean squared row length 1; from training rows.

    Constant features become 0. The common scale makes strengths comparable between layers of
    different sizes.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, rows: Rows) -> "Standardizer":
        """Raises ValueError if every feature is constant."""
        total = sum(block.double().sum(0) for _, block in rows.blocks())
        mean = (torch.as_tensor(total) / len(rows)).float()
        squares = sum((block - mean).double().square().sum(0) for _, block in rows.blocks())
        std = (torch.as_tensor(squares) / len(rows)).sqrt().float()
        alive = std > 1e-6 * std.max().clamp(min=1e-30)
        if not bool(alive.any()) or not bool(std.max() > 0):
            raise ValueError("all features are constant")
        scale = torch.where(alive, 1 / std, 0) / alive.sum() ** 0.5
        return cls(mean, scale)

    def __call__(self, rows: Rows) -> Rows:
        """(N, D) -> (N, D)."""
        return rows.map(lambda block: (block - self.mean) * self.scale)


@dataclass(frozen=True)
class Fit:
    """K models: `weights` (K, D, C), `bias` (K, C), the objective reached (K,), iterations run."""

    weights: Tensor
    bias: Tensor
    objective: Tensor
    iterations: int

    def predict(self, rows: Rows) -> Tensor:
        """The class with the highest logit: (N, D) -> int64 (K, N)."""
        return torch.cat([self.logits(block).argmax(-1) for _, block in rows.blocks()], 1)

    def logits(self, block: Tensor) -> Tensor:
        """(B, D) -> (K, B, C)."""
        return block @ self.weights + self.bias[:, None]


def fit(
    rows: Rows,
    labels: Tensor,
    classes: int,
    strengths: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = LIMIT,
) -> Fit:
    """Fit all strengths λ (K,) to rows (N, D) and labels int64 (N,), on the rows' device.

    `start` is weights (K, D, C) and bias (K, C) to begin from, such as a fit to most of these rows;
    the data are then not turned. A strength is done when its Newton decrement promises no more
    than `tolerance` of its objective.
    """
    mean = torch.stack([block.sum(0) for _, block in rows.blocks()]).sum(0) / len(rows)
    centred = rows.map(lambda block: block - mean)
    with waiting(f"principal axes of {len(rows):,} rows"):
        turned = turn(centred) if start is None else None
    x, back = turned or (centred, lambda w: w)
    w = mean.new_zeros(len(strengths), x.shape[1] + 1, classes)
    if start is not None:
        w[:, :-1], w[:, -1] = start[0], start[1] + mean @ start[0]
    problem = Multinomial(x, labels, classes, strengths)
    with waiting(f"{len(strengths)} strength(s) on {len(rows):,} images"):
        solution = minimize(problem, w, tolerance, max_iterations)
    weights = back(solution.weights[:, :-1])
    bias = solution.weights[:, -1] - mean @ weights
    return Fit(weights, bias, solution.value, solution.iterations)


class Multinomial(Problem):
    """J of K strengths, one softmax over C classes each."""

    def __init__(self, rows: Rows, labels: Tensor, classes: int, strengths: Tensor) -> None:
        self.rows, self.labels, self.strengths = rows, labels, strengths
        # At equal probabilities the Hessian is (δ − 1/C)/C ⊗ covariance: its diagonal, inverted.
        spread = (1 - 1 / classes) / classes
        squares = torch.stack([block.square().sum(0) for _, block in rows.blocks()]).sum(0)
        curvature = squares / len(rows) * spread  # (P,)
        inverse = 1 / (curvature + strengths[:, None]).clamp(min=1e-12)  # (K, P)
        free = torch.full_like(strengths[:, None], 1 / spread)
        self.scale = torch.cat([inverse, free], 1)[..., None]  # (K, P + 1, 1)

    def keep(self, which: Tensor) -> "Multinomial":
        """See Problem.keep."""
        kept = object.__new__(Multinomial)
        kept.rows, kept.labels = self.rows, self.labels
        kept.strengths, kept.scale = self.strengths[which], self.scale[which]
        return kept

    def value(self, z: Tensor, w: Tensor) -> Tensor:
        """J of each strength (K,)."""
        fitted = w.new_zeros(len(w))
        for span in self.rows.spans():
            fitted += (torch.logsumexp(z[span], -1) - self._true(z, span)).sum(0)
        return fitted / len(z) + self.strengths / 2 * w[:, :-1].square().sum((1, 2))

    def gradient(self, z: Tensor, w: Tensor) -> Tensor:
        """Of w (K, P + 1, C)."""

        def error(span: slice) -> Tensor:
            e = torch.softmax(z[span], -1)  # (B, K, C)
            e.scatter_add_(-1, self._places(span, e), -torch.ones_like(e[..., :1]))
            return e / len(z)

        found = self.back(error, w)
        found[:, :-1] += self.strengths[:, None, None] * w[:, :-1]
        return found

    def along(
        self, t: Tensor, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Slope and bend of J at z + t·dz."""
        slope, bend = torch.zeros_like(t), torch.zeros_like(t)
        for span in self.rows.spans():
            d = dz[span]
            p = torch.softmax(z[span] + t[None, :, None] * d, -1)
            first = (p * d).sum(-1)  # (B, K)
            slope += (first - self._true(dz, span)).sum(0)
            bend += ((p * d.square()).sum(-1) - first.square()).sum(0)
        inner, own = (w * dw)[:, :-1].sum((1, 2)), dw[:, :-1].square().sum((1, 2))
        return (
            slope / len(z) + self.strengths * (inner + t * own),
            bend / len(z) + self.strengths * own,
        )

    def _true(self, z: Tensor, span: slice) -> Tensor:
        """Each row's score of its own class, (B, K)."""
        return z[span].gather(-1, self._places(span, z)).squeeze(-1)

    def _places(self, span: slice, like: Tensor) -> Tensor:
        return self.labels[span, None, None].expand(-1, like.shape[1], 1)
