"""L-BFGS for many convex problems at once that share their products with the data.

Nocedal & Wright, Numerical Optimization, algorithm 7.4, with an exact line search: along a
direction the scores z = X w are linear, so a Newton search over the step length costs no product.
The time of linear probes goes into these products; K problems share each of them.

Where min(N, D) is moderate, the rows are first turned to their principal axes, in which the
problems are nearly separable, so a diagonal preconditioner is nearly Newton's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import reached

MEMORY = 10  # pairs that L-BFGS remembers
NEWTON, SHORTER = 6, 60  # steps of the line search, and of one that has far to go
FLATTER = 0.5  # share of the slope at the start; what rises more steeply is far too long
DOUBLE_BELOW = 2048  # two seconds; above, single precision is three times faster
TURN_BELOW = 10_000  # the eigendecomposition then costs less than the iterations it saves
COLUMNS = 1024  # of the features that go to double precision at once
FLOOR = 1e-6  # share of the first axis's variance below which others are noise


class Problem(ABC):
    """K problems over weights (K, P + 1, C); the last of the P + 1 rows is the intercept.

    Without an `intercept` the weights are (K, P, C): there is none, or the rows carry a constant.
    `scale` (K, P + 1, 1) is a guess of the inverse Hessian's diagonal.
    """

    intercept: ClassVar[bool] = True
    rows: Rows  # (N, P)
    scale: Tensor

    @abstractmethod
    def value(self, z: Tensor, w: Tensor) -> Tensor:
        """The objectives (K,) at scores z (N, K, C)."""

    @abstractmethod
    def gradient(self, z: Tensor, w: Tensor) -> Tensor:
        """Of w, (K, P + 1, C)."""

    @abstractmethod
    def along(
        self, t: Tensor, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """First and second derivative (K,) at w + t·dw in direction dw; t is (K,)."""

    @abstractmethod
    def keep(self, which: Tensor) -> "Problem":
        """Those of the K problems where `which` (K,) is true."""

    def scores(self, w: Tensor) -> Tensor:
        """(K, P + 1, C) -> (N, K, C), in one product for all problems."""
        k, _, c = w.shape
        inner = w[:, :-1] if self.intercept else w
        flat = inner.permute(1, 0, 2).reshape(-1, k * c)
        z = w.new_empty(len(self.rows), k * c)
        for span, block in self.rows.blocks():
            torch.mm(block.to(w.dtype), flat, out=z[span])
        z = z.view(-1, k, c)
        return z + w[:, -1] if self.intercept else z

    def back(self, error: Callable[[slice], Tensor], like: Tensor) -> Tensor:
        """Xᵀ e and its sum for the intercept, (K, P + 1, C), from errors by block (B, K, C)."""
        k, _, c = like.shape
        total, sums = like.new_zeros(self.rows.shape[1], k * c), like.new_zeros(k, c)
        for span, block in self.rows.blocks():
            e = error(span)
            total.addmm_(block.to(e.dtype).T, e.reshape(len(e), k * c))
            sums += e.sum(0)
        inner = total.view(-1, k, c).permute(1, 0, 2)
        return torch.cat([inner, sums[:, None]], 1) if self.intercept else inner


@dataclass(frozen=True)
class Solution:
    """Weights (K, P + 1, C), the objectives reached (K,), and iterations run."""

    weights: Tensor
    value: Tensor
    iterations: int


def minimize(problem: Problem, w: Tensor, tolerance: float, limit: int) -> Solution:
    """Go on until each problem's Newton decrement promises no more than `tolerance` of its value.

    Problems that are done leave the products.
    """
    done_w, done_value = w.clone(), w.new_empty(len(w))
    active = torch.arange(len(w), device=w.device)
    history: list[_Pair] = []
    z = problem.scores(w)
    value, gradient = problem.value(z, w), problem.gradient(z, w)
    iteration = 0
    while True:
        direction = _direction(gradient, history, problem.scale)
        promised = -(gradient * direction).sum((1, 2))  # (K,), twice the decrease
        going = promised > 2 * tolerance * value
        if iteration == limit:
            going[:] = False
        if not bool(going.all()):
            finished = active[~going]
            done_w[finished], done_value[finished] = w[~going], value[~going]
            if not bool(going.any()):
                return Solution(done_w, done_value, iteration)
            active, problem, z = active[going], problem.keep(going), z[:, going]
            w, gradient, direction = w[going], gradient[going], direction[going]
            history = [_Pair(*(t[going] for t in pair.tensors)) for pair in history]
        iteration += 1
        reached(iteration, limit, "iterations", limit=True)
        dz = problem.scores(direction)
        t = step_length(problem, z, dz, w, direction, promised[going])
        step = t[:, None, None] * direction
        w = w + step
        z.addcmul_(dz, t[None, :, None])
        before, gradient = gradient, problem.gradient(z, w)
        change = gradient - before
        history = [*history[1 - MEMORY :], _Pair(step, change, (step * change).sum((1, 2)))]
        value = problem.value(z, w)


@dataclass(frozen=True)
class _Pair:
    """A step, the gradient's change over it, and their product, of K problems."""

    step: Tensor
    change: Tensor
    inner: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.step, self.change, self.inner


def _direction(gradient: Tensor, history: list[_Pair], scale: Tensor) -> Tensor:
    """The two-loop recursion, for all problems at once; pairs of no curvature are left out."""
    q = gradient.clone()
    taken: list[Tensor] = []
    weights = [torch.where(p.inner > 1e-20, 1 / p.inner.clamp(min=1e-20), 0) for p in history]
    for pair, rho in zip(reversed(history), reversed(weights), strict=True):
        alpha = rho * (pair.step * q).sum((1, 2))
        q -= alpha[:, None, None] * pair.change
        taken.append(alpha)
    q = q * scale
    for pair, rho, alpha in zip(history, weights, reversed(taken), strict=True):
        beta = rho * (pair.change * q).sum((1, 2))
        q += (alpha - beta)[:, None, None] * pair.step
    return -q


def step_length(
    problem: Problem, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor, steep: Tensor
) -> Tensor:
    """The minimiser over t >= 0 along dw, (K,), by safeguarded Newton.

    `steep` (K,) is minus the slope at 0. On features that are much alike the first direction is
    too long by orders of magnitude, and Newton's steps would end far above the start: where every
    length that was tried lies beyond the minimiser, halving goes on.
    """
    t = w.new_ones(len(w))
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    for step in range(SHORTER):
        slope, bend = problem.along(t, z, dz, w, dw)
        low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
        guess = t - slope / bend.clamp(min=1e-30)
        middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        better = torch.where((guess > low) & (guess < high), guess, middle)
        far = (low == 0) & (slope > FLATTER * steep)
        if step >= NEWTON and not bool(far.any()):
            break
        t = better if step < NEWTON else torch.where(far, better, t)
    return t


# ---- principal axes
Back = Callable[[Tensor], Tensor]


def turn(rows: Rows, *, fine: bool = False) -> tuple[Rows, Back] | None:
    """Rows (N, D) in their principal axes (N, R), and what takes weights (…, R, C) to (…, D, C).

    With X = U S Vᵀ, the rows become U S and weights w become V w = Xᵀ U S⁻¹ w, so for N < D neither
    V nor a product with it is needed. The rows are not centred here. Axes with less than 1e-6 of
    the first one's variance are left out. `fine` keeps them, at more cost, for problems so little
    regularised that they put weight there. None where the decomposition would cost too much.
    """
    count, size = rows.shape
    if min(count, size) > TURN_BELOW:
        return None
    # Single precision's axes of D numbers come cheaper than double's of nearly as many rows.
    if size <= count or (fine and size <= min(TURN_BELOW, 1.3 * count)):
        # Whatever the values' errors, all of an orthonormal V together turn rows without loss.
        vectors = _axes(_gram(rows), -1.0 if fine else FLOOR)[1]
        turned = rows.map(lambda block: block @ vectors, vectors.shape[1])
        return turned, lambda w: vectors @ w
    x = rows.whole()
    if fine:  # S is a root: an error of 1e-7 in S², single precision's, would be one of 3e-4
        values, vectors = _axes(_outer(x), 1e-12)
    else:
        wide = x.double() if count <= DOUBLE_BELOW else x
        values, vectors = _axes(wide @ wide.T, FLOOR)
    scale = values**0.5

    def back(w: Tensor) -> Tensor:
        if not fine:
            return x.T @ ((vectors / scale) @ w)
        # U S⁻¹ w is long and cancels where features are alike.
        duals = (vectors.double() / scale) @ w.double()
        return torch.cat([(part.double().T @ duals).float() for part in x.split(COLUMNS, 1)], -2)

    return Rows.of(vectors * scale), back


def _gram(rows: Rows) -> Tensor:
    """Xᵀ X (D, D), in double precision where the decomposition will be."""
    size = rows.shape[1]
    kind = torch.float64 if size <= DOUBLE_BELOW else torch.float32
    gram = torch.zeros(size, size, dtype=kind, device=rows.device)
    for _, block in rows.blocks():
        block = block.to(kind)
        gram.addmm_(block.T, block)
    return gram


def _outer(x: Tensor) -> Tensor:
    """X Xᵀ (N, N) in double precision, without a copy of all of X (N, D)."""
    gram = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for part in x.split(COLUMNS, 1):
        part = part.double()
        gram.addmm_(part, part.T)
    return gram


def _axes(gram: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Eigenvalues (R,) and vectors (·, R), those above `floor` of the greatest.

    LAPACK's single precision may fail on dead features.
    """
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        values, vectors = torch.linalg.eigh(gram.double())
    kept = values > floor * values[-1]
    return values[kept].float(), vectors[:, kept].float()
