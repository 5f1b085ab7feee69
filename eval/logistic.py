"""Multinomial logistic regression, many regularisation strengths fitted together.

Minimises, for each strength λ, with rows x of X and classes y (scikit-learn's LogisticRegression
with C = 1 / (N·λ), the intercept free):

    J(W, b) = mean_i [ logsumexp(W x_i + b) − (W x_i + b)[y_i] ] + λ/2 ‖W‖²

All strengths share the two matrix products of an iteration, which is where the time goes. The
method is L-BFGS (Nocedal & Wright, Numerical Optimization, algorithm 7.4) with an exact line
search: along a direction the logits are linear, so a Newton search over the step length costs no
product at all. Where min(N, D) is small the data are first turned to their principal axes, in
which J is nearly separable, so a diagonal preconditioner is nearly Newton's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MEMORY = 10  # pairs that L-BFGS remembers
DOUBLE_BELOW = 2048  # two seconds; above, single precision is three times faster
TURN_BELOW = 10_000  # the eigendecomposition then costs less than the iterations it saves


@dataclass(frozen=True)
class Standardizer:
    """Zero mean and equal variance per feature, mean squared row length 1; from training rows.

    Constant features become 0. The common scale makes strengths comparable between layers of
    different sizes.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, rows: Tensor) -> "Standardizer":
        """Raises ValueError if every feature is constant."""
        std, mean = torch.std_mean(rows, 0, correction=0)
        alive = std > 1e-6 * std.max().clamp(min=1e-30)
        if not bool(alive.any()) or not bool(std.max() > 0):
            raise ValueError("all features are constant")
        scale = torch.where(alive, 1 / std, 0) / alive.sum() ** 0.5
        return cls(mean, scale)

    def __call__(self, rows: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (rows - self.mean) * self.scale


@dataclass(frozen=True)
class Fit:
    """K models: `weights` (K, D, C), `bias` (K, C), the objective reached (K,), iterations run."""

    weights: Tensor
    bias: Tensor
    objective: Tensor
    iterations: int

    def logits(self, rows: Tensor) -> Tensor:
        """(N, D) -> (K, N, C)."""
        return rows @ self.weights + self.bias[:, None]


def fit(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    strengths: Tensor,
    start: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
) -> Fit:
    """Fit all strengths λ (K,) to rows (N, D) float32 and labels int64 (N,).

    `start` is weights (K, D, C) and bias (K, C) to begin from, such as a fit to most of these rows;
    the data are then not turned. A strength is done when its Newton decrement promises no more
    than `tolerance` of its objective.
    """
    mean = rows.mean(0)
    turned = _turn(rows - mean) if start is None else None
    x, back = turned or (rows - mean, lambda w: w)  # (N, R)
    k, r = len(strengths), x.shape[1]
    if start is None:
        w, b = x.new_zeros(k, r, classes), x.new_zeros(k, classes)
    else:
        w, b = start[0], start[1] + mean @ start[0]
    w, b, objective, iterations = _minimize(
        _Problem(x, labels, classes), strengths, w, b, tolerance, max_iterations
    )
    weights = back(w)
    return Fit(weights, b - mean @ weights, objective, iterations)


Turned = tuple[Tensor, Callable[[Tensor], Tensor]]


def _turn(x: Tensor) -> Turned | None:
    """Centred rows (N, D) in their principal axes (N, R), and what takes weights back to (K, D, C).

    With X = U S Vᵀ, the rows become U S and weights w become V w = Xᵀ U S⁻¹ w, so for N < D neither
    V nor a product with it is needed. None where the decomposition would cost too much.
    """
    count, size = x.shape
    if min(count, size) > TURN_BELOW:
        return None
    values, vectors = _eigh(_gram(x.T if size <= count else x))
    kept = values > 1e-6 * values[-1]  # the rest is noise of the product
    scale, vectors = values[kept] ** 0.5, vectors[:, kept]
    if size <= count:
        return x @ vectors, lambda w: vectors @ w
    return vectors * scale, lambda w: x.T @ ((vectors / scale) @ w)


def _gram(x: Tensor) -> Tensor:
    """x xᵀ, in double precision where the decomposition will be."""
    wide = x.double() if len(x) <= DOUBLE_BELOW else x
    return wide @ wide.T


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors; LAPACK's single precision may fail on dead features."""
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        values, vectors = torch.linalg.eigh(gram.double())
    return values.float(), vectors.float()


class _Problem:
    """The data's part of the objective, for K sets of weights at once; x is (N, R)."""

    def __init__(self, x: Tensor, labels: Tensor, classes: int) -> None:
        self.x, self.classes = x, classes
        self.target = F.one_hot(labels, classes).to(x.dtype)  # (N, C)

    def products(self, w: Tensor, b: Tensor) -> Tensor:
        """Logits: (K, R, C) and (K, C) -> (N, K, C), in one product over all strengths."""
        k, r, c = w.shape
        return (self.x @ w.permute(1, 0, 2).reshape(r, k * c)).view(-1, k, c) + b

    def value(self, logits: Tensor, w: Tensor, strengths: Tensor) -> Tensor:
        """J of each strength (K,)."""
        fitted = torch.logsumexp(logits, -1) - (logits * self.target[:, None]).sum(-1)  # (N, K)
        return fitted.mean(0) + strengths / 2 * w.square().sum((1, 2))

    def gradient(self, logits: Tensor, w: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """Of w (K, R, C) and b (K, C)."""
        error = (torch.softmax(logits, -1) - self.target[:, None]) / len(self.x)  # (N, K, C)
        n, k, c = error.shape
        gw = (self.x.T @ error.view(n, k * c)).view(-1, k, c).permute(1, 0, 2)
        return gw + strengths[:, None, None] * w, error.sum(0)

    def step_length(
        self, logits: Tensor, along: Tensor, w: Tensor, dw: Tensor, strengths: Tensor
    ) -> Tensor:
        """The minimiser over t >= 0 of J at logits + t·along, (K,), by safeguarded Newton."""
        linear = (along * self.target[:, None]).sum(-1).mean(0)
        wd, dd = (w * dw).sum((1, 2)), dw.square().sum((1, 2))
        t = torch.ones_like(strengths)
        low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
        for _ in range(6):
            p = torch.softmax(logits + t[None, :, None] * along, -1)
            first = (p * along).sum(-1)  # (N, K)
            slope = first.mean(0) - linear + strengths * (wd + t * dd)
            bend = ((p * along.square()).sum(-1) - first.square()).mean(0) + strengths * dd
            low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
            guess = t - slope / bend.clamp(min=1e-30)
            middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
            t = torch.where((guess > low) & (guess < high), guess, middle)
        return t


Pair = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor
]  # steps of w and b, of gradients, their product


def _minimize(
    problem: _Problem, strengths: Tensor, w: Tensor, b: Tensor, tolerance: float, limit: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """L-BFGS on every strength at once; those that are done leave the products."""
    # At equal probabilities the Hessian is (δ − 1/C)/C ⊗ covariance: its diagonal, inverted.
    spread = (1 - 1 / problem.classes) / problem.classes
    curvature = problem.x.square().mean(0) * spread  # (R,)
    done_w, done_b, done_value = w.clone(), b.clone(), torch.empty_like(strengths)
    active = torch.arange(len(strengths), device=w.device)
    history: list[Pair] = []
    logits = problem.products(w, b)
    value = problem.value(logits, w, strengths)
    gw, gb = problem.gradient(logits, w, strengths)
    iteration = 0
    while True:
        scale = 1 / (curvature[None] + strengths[:, None]).clamp(min=1e-12)[..., None]  # (K, R, 1)
        dw, db = _direction(gw, gb, history, scale, 1 / spread)
        promised = -((gw * dw).sum((1, 2)) + (gb * db).sum(1))  # (K,), twice the decrease
        going = promised > 2 * tolerance * value
        if iteration == limit:
            going[:] = False
        if not bool(going.all()):
            done = ~going
            done_w[active[done]], done_b[active[done]] = w[done], b[done]
            done_value[active[done]] = value[done]
            if not bool(going.any()):
                return done_w, done_b, done_value, iteration
            active, strengths, value = active[going], strengths[going], value[going]
            w, b, gw, gb, dw, db = (t[going] for t in (w, b, gw, gb, dw, db))
            logits = logits[:, going]
            history = [_kept(pair, going) for pair in history]
        iteration += 1
        along = problem.products(dw, db)
        t = problem.step_length(logits, along, w, dw, strengths)
        sw, sb = t[:, None, None] * dw, t[:, None] * db
        w, b, logits = w + sw, b + sb, logits + t[None, :, None] * along
        new_gw, new_gb = problem.gradient(logits, w, strengths)
        yw, yb = new_gw - gw, new_gb - gb
        inner = (sw * yw).sum((1, 2)) + (sb * yb).sum(1)
        history = [*history[1 - MEMORY :], (sw, sb, yw, yb, inner)]
        gw, gb = new_gw, new_gb
        value = problem.value(logits, w, strengths)


def _kept(pair: Pair, going: Tensor) -> Pair:
    sw, sb, yw, yb, inner = (tensor[going] for tensor in pair)
    return sw, sb, yw, yb, inner


def _direction(
    gw: Tensor, gb: Tensor, history: list[Pair], scale_w: Tensor, scale_b: float
) -> tuple[Tensor, Tensor]:
    """The two-loop recursion, for every strength at once; pairs of no curvature are left out."""
    qw, qb = gw.clone(), gb.clone()
    taken: list[Tensor] = []
    for sw, sb, yw, yb, inner in reversed(history):
        rho = torch.where(inner > 1e-20, 1 / inner.clamp(min=1e-20), 0)
        alpha = rho * ((sw * qw).sum((1, 2)) + (sb * qb).sum(1))
        qw -= alpha[:, None, None] * yw
        qb -= alpha[:, None] * yb
        taken.append(alpha)
    qw, qb = qw * scale_w, qb * scale_b
    for (sw, sb, yw, yb, inner), alpha in zip(history, reversed(taken), strict=True):
        rho = torch.where(inner > 1e-20, 1 / inner.clamp(min=1e-20), 0)
        beta = rho * ((yw * qw).sum((1, 2)) + (yb * qb).sum(1))
        qw += (alpha - beta)[:, None, None] * sw
        qb += (alpha - beta)[:, None] * sb
    return -qw, -qb
