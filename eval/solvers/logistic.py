"""Multinomial logistic regression along a path of regularisation strengths.

Minimises, for each strength λ, with rows x of X and classes y (scikit-learn's LogisticRegression
with C = 1 / (N·λ), the intercept free):

    J(W, b) = mean_i [ logsumexp(W x_i + b) − (W x_i + b)[y_i] ] + λ/2 ‖W‖²

Newton's method, each step by conjugate gradients: one reading of the rows is a product with the
Hessian, whose diagonal at the present probabilities is the preconditioner. In the rows' principal
axes it is nearly the Hessian. The strongest λ comes first and each begins where the last one ended,
so two to five steps are enough, and no more than one λ's scores are in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.solvers.axes import turn
from eval.solvers.conjugate import Curvature, solve
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import reached, waiting

LIMIT = 100  # steps of Newton at one strength; two to twenty are needed
SHARE = 0.1  # of the residual that conjugate gradients leave
PRODUCTS = 500  # of conjugate gradients in a step; 5 to 200 are needed
SHORTER = 30  # halvings of a step that is too long
ENOUGH = 0.25  # of what a step's slope promises: a longer one may end where all scores are extreme
ROUNDING = 1e-12  # of J
AT_ONCE = 1 << 17  # scores: half a MiB, which stays near the processor from one use to the next


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
    the data are then not turned. A strength is done when its Newton decrement
    ½ ∇Jᵀ H⁻¹ ∇J, the square of the distance to the optimum as the Hessian measures it, is no more
    than `tolerance` of its objective; the step that the decrement belongs to is taken, too.
    """
    mean = torch.stack([block.sum(0) for _, block in rows.blocks()]).sum(0) / len(rows)
    centred = rows.map(lambda block: block - mean)
    turned = None
    if start is None:
        with waiting(f"principal axes of {len(rows):,} rows"):
            turned = turn(centred)
    x, back = turned or (centred, lambda w: w)
    problem = Multinomial(x, labels, classes)
    w = mean.new_zeros(x.shape[1] + 1, classes, dtype=torch.float64)
    weights, values = mean.new_zeros(len(strengths), *w.shape), mean.new_zeros(len(strengths))
    iterations = 0
    for k in strengths.argsort(descending=True).tolist():
        if start is not None:
            w = torch.cat([start[0][k], (start[1][k] + mean @ start[0][k])[None]]).double()
        strength = float(strengths[k])
        with waiting(f"strength {strength:g} of {len(strengths)} on {len(rows):,} images"):
            w, values[k], steps = newton(problem, w, strength, tolerance, max_iterations)
        weights[k], iterations = w, max(iterations, steps)
    found = back(weights[:, :-1])
    return Fit(found, weights[:, -1] - mean @ found, values, iterations)


def newton(
    problem: "Multinomial", w: Tensor, strength: float, tolerance: float, limit: int
) -> tuple[Tensor, float, int]:
    """The optimum from weights (P + 1, C): weights, the objective there, and steps run."""
    # A class's weights side by side in memory, here and in all that is made of them: else products
    # with 10 classes take a CPU 5 times as long.
    w = w.T.contiguous().T
    here = problem.at(w, strength)
    for step in range(limit):
        reached(step, LIMIT, "steps of Newton", limit=True)
        p = solve(here, -here.gradient.float()[None], SHARE, PRODUCTS)[0].double()
        promised = -float((here.gradient * p).sum())
        if promised <= 2 * tolerance * here.value:
            return w + p, here.value - promised / 2, step
        for halvings in range(SHORTER):
            t = 0.5**halvings
            there = problem.at(w + t * p, strength)
            if there.value <= here.value * (1 + ROUNDING) - ENOUGH * t * promised:
                break
        else:  # rounding hides what is left
            return w, here.value, step
        w, here = w + t * p, there
    return w, here.value, limit


class Multinomial:
    """The mean cross-entropy of rows (N, P) with labels (N,) over C classes."""

    def __init__(self, rows: Rows, labels: Tensor, classes: int) -> None:
        self.rows, self.labels, self.classes = rows, labels, classes
        # One for all strengths: the system would have to find as many pages anew for each.
        self.p = torch.empty(len(rows), classes, device=rows.device)

    def pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows in order, in pieces of AT_ONCE scores."""
        step = max(1, AT_ONCE // self.classes)
        for span, block in self.rows.blocks():
            for start in range(0, len(block), step):
                piece = block[start : start + step]
                yield slice(span.start + start, span.start + start + len(piece)), piece

    def at(self, w: Tensor, strength: float) -> "Hessian":
        """J with its derivatives at weights float64 (P + 1, C); what was given before is void.

        Where classes are told apart, J is a small difference of large scores, so value and gradient
        are in double precision.
        """
        loss, gradient, diagonal = 0.0, torch.zeros_like(w), torch.zeros_like(w).float()
        for span, x in self.pieces():
            wide, own = x.double(), self.labels[span, None]
            z = torch.addmm(w[-1], wide, w[:-1])
            level = z.logsumexp(1, keepdim=True)
            loss += float((level - z.gather(1, own)).sum())
            error = z.sub_(level).exp_()
            p = self.p[span].copy_(error)
            _gather(gradient, wide, error.scatter_add_(1, own, -torch.ones_like(level)))
            _gather(diagonal, x.square(), p - p.square())
        n, inner = len(self.rows), w.clone()
        inner[-1] = 0  # the intercept is free
        value = loss / n + strength / 2 * float(inner.square().sum())
        curvature = diagonal / n
        curvature[:-1] += strength
        return Hessian(self, strength, value, gradient / n + strength * inner, 1 / curvature)


def _gather(total: Tensor, x: Tensor, each: Tensor) -> None:
    """Add Xᵀ e and, for the intercept, the sum of e (B, C) to a total (P + 1, C)."""
    total[:-1].addmm_(x.T, each)
    total[-1] += each.sum(0)


class Hessian(Curvature):
    """Of J at one point, with its value and gradient (P + 1, C) there; one system, K = 1."""

    def __init__(
        self, problem: Multinomial, strength: float, value: float, gradient: Tensor, scale: Tensor
    ) -> None:
        self.problem, self.strength, self.value, self.gradient = problem, strength, value, gradient
        self.scale = scale[None].clamp(max=1e12)

    def keep(self, which: Tensor) -> "Hessian":
        """See Curvature.keep; there is but one."""
        return self

    def __call__(self, p: Tensor) -> Tensor:
        """H p, (1, P + 1, C): of each row (diag π − π πᵀ) of the scores."""
        step, total = p[0], torch.zeros_like(p[0])
        for span, x in self.problem.pieces():
            pi = self.problem.p[span]
            u = torch.addmm(step[-1], x, step[:-1]).mul_(pi)
            _gather(total, x, u.addcmul_(pi, u.sum(1, keepdim=True), value=-1))
        total /= len(self.problem.rows)
        total[:-1] += self.strength * step[:-1]
        return total[None]
