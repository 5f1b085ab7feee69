"""Linear support vector machines with the squared hinge, many of them fitted together.

Minimises for each problem, with rows x of X, y in {−1, +1}, importances a and a cost C (LIBLINEAR's
L2-regularised L2-loss SVM with bias 1, Fan et al., JMLR 9, 2008; scikit-learn's LinearSVC, whose
class_weight is a):

    J(w, b) = ½ ‖(w, b)‖² + C · Σ_i a_i max(0, 1 − y_i (w·x_i + b))²

Targets of 1, 0 and −1 say so: a positive row counts twice, one not to be used not at all. The
intercept is regularised, so it is the weight of a constant 1 at the end of each row, and a
rotation of the longer rows leaves J as it is. In their principal axes a diagonal preconditioner is
nearly Newton's; in the features' own axes a thousand products do not come near the optimum. All
problems share the products of a step (newton.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.solvers.axes import TURN_BELOW, Back, turn
from eval.solvers.hinge import SquaredHinge
from eval.solvers.newton import STEPS, minimize
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import waiting

LIMIT = STEPS  # iterations: steps of Newton
POSITIVE = 2.0  # what a positive row counts; a negative one counts 1
TOGETHER = 1 << 26  # numbers that all problems fitted at once may take
COPIES = 32  # of its weights and scores that a step keeps for each, twice that in double


@dataclass(frozen=True)
class Solution:
    """Weights float64 (K, R), the objectives reached (K,), and iterations run."""

    weights: Tensor
    value: Tensor
    iterations: int


@dataclass(frozen=True)
class Basis:
    """Rows (N, D) with a constant 1 behind, in their principal axes: `rows` (N, R)."""

    rows: Rows
    back: Back

    @classmethod
    def of(cls, rows: Rows) -> "Basis":
        """One decomposition, whatever number of problems is then fitted."""
        longer = rows.map(lambda block: F.pad(block, (0, 1), value=1.0), rows.shape[1] + 1)
        with waiting(f"principal axes of {len(rows):,} rows"):
            return cls(*(turn(longer, fine=True) or (longer, lambda w: w)))

    @cached_property
    def gram(self) -> Tensor | None:
        """X Xᵀ float32 (N, N) of `rows`; None where it would not be about as small as they are."""
        count, size = self.rows.shape
        if self.rows.on_disk or count > min(TURN_BELOW, 2 * size):
            return None
        x = self.rows.whole()
        return x @ x.T

    def scores(self, weights: Tensor, rows: Rows) -> Tensor:
        """w·x + b of any rows (M, D) for weights (K, R) in this basis: float32 (M, K)."""
        w = self.back(weights.T.float())  # (D + 1, K)
        return torch.cat([block @ w[:-1] + w[-1] for _, block in rows.blocks()])

    def groups(self, classes: int, each: int = 1) -> Iterator[slice]:
        """Classes, of `each` problems, to fit at once: memory is bounded whatever their number."""
        step = max(1, TOGETHER // (COPIES * max(self.rows.shape) * each))
        for start in range(0, classes, step):
            yield slice(start, start + step)


def fit(
    basis: Basis, targets: np.ndarray, costs: np.ndarray, start: Tensor | None = None
) -> Solution:
    """Fit K problems, targets int8 (N, K) of 1, 0 and −1, at a cost each (K,).

    The solution's weights are float64 (K, R); `start` (K, R) is where to begin.
    """
    problem = _problem(basis, targets).at(torch.from_numpy(costs).to(basis.rows.device).float())
    if start is None:
        start = torch.zeros(len(costs), basis.rows.shape[1], device=basis.rows.device)
    with waiting(f"{len(costs)} SVMs at their costs"):
        return _solve(problem, start)[0]


def path(
    basis: Basis, targets: np.ndarray, costs: Sequence[float]
) -> Iterator[tuple[Solution, Tensor]]:
    """Fit K problems, targets int8 (N, K) of 1, 0 and −1, at each of several costs in turn.

    Yields for each cost the solution, weights (K, R), and the scores (N, K) of all rows, those not
    used too. Each cost begins where the last one ended: half the time, if costs rise.
    """
    first, shown = _problem(basis, targets), [f"{cost:g}" for cost in costs]
    weights = first.pull.new_zeros(len(first.costs), basis.rows.shape[1])
    for cost in costs:
        problem = first.at(torch.full_like(first.costs, cost))
        with waiting(f"{len(first.costs)} SVMs at cost {cost:g} of {', '.join(shown)}"):
            solution, scores = _solve(problem, weights)
        weights = solution.weights
        yield solution, scores


def _problem(basis: Basis, targets: np.ndarray) -> SquaredHinge:
    """One for each column of targets, at costs of 1."""
    pull = np.where(targets == 1, POSITIVE, np.where(targets == 0, -1.0, 0.0))
    given = torch.from_numpy(pull.astype(np.float32)).to(basis.rows.device)
    return SquaredHinge(basis.rows, given, given.new_ones(given.shape[1]), basis.gram)


def _solve(problem: SquaredHinge, start: Tensor) -> tuple[Solution, Tensor]:
    """The solution, and the scores of all rows, float32 (N, K)."""
    weights, scores, steps = minimize(problem, start)
    return Solution(weights, problem.value(scores, weights), steps), scores.float()
