"""Newton's method for many squared hinges at once, to the optimum itself.

The gradient decides, in double precision: the objective says nothing of the last thousandth of the
weights, and two ways to the same optimum then end at scores that differ. J is quadratic wherever
the same rows miss their margin, so steps end once these are found (finite Newton, Keerthi &
DeCoste, JMLR 6, 2005); and it curves by 1 or more, so

    ‖w − w*‖ ≤ ‖∇J(w)‖

is a proof of how near the weights are. A step solves H p = −∇J. Where the rows S that miss are few,
it comes from their Gram matrix K and the second derivatives h of their losses (Woodbury's formula):

    p = −∇J + X_Sᵀ (K_SS + diag(1/h))⁻¹ X_S ∇J

Otherwise from conjugate gradients, for which single precision and a diagonal preconditioner will
do: the next gradient sees what is left.
"""

import torch
from torch import Tensor

from eval.solvers.conjugate import Curvature, solve
from eval.solvers.hinge import SquaredHinge
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import reached

NEAR = 1e-5  # ‖∇J‖ of ‖w‖: how far from the optimum the weights are at most
COARSE, ROUGH = 1e-2, 6  # the same where single precision is left, and the most steps in it
STEPS = 50  # three to ten are needed
SOLVED = 0.03  # share of the residual that conjugate gradients leave
PRODUCTS = 500  # of conjugate gradients in a step; 2 to 300 are needed
WORTH = 4  # products with the rows that a decomposition may take the place of
COSTLY = 1e4  # above, what single precision leaves of K would be seen
NEWTON, SHORTER = 6, 60  # steps of the line search, and of one that has far to go
FLATTER = 0.5  # share of the slope at the start; what rises more steeply is far too long
FLAT = 0.01  # share of the slope at the start that is as good as none


def minimize(problem: SquaredHinge, w: Tensor) -> tuple[Tensor, Tensor, int]:
    """Go on from weights (K, R) until each gradient's length is no more than NEAR of theirs.

    The way to COARSE is gone in single precision, at half the cost. Returns weights and scores
    (N, K), float64, and the steps run: STEPS if some did not get there.
    """
    w, _, first = _descend(problem, w.float(), COARSE)
    w, z, second = _descend(problem, w.double(), NEAR)
    return w, z, STEPS if second == STEPS else min(first + second, STEPS - 1)


def _descend(problem: SquaredHinge, w: Tensor, near: float) -> tuple[Tensor, Tensor, int]:
    """`minimize` in the precision of w, which is written to."""
    z = problem.scores(w)
    left, part = torch.arange(len(w), device=w.device), problem
    for step in range(STEPS if near == NEAR else ROUGH):
        reached(step, STEPS, "steps of Newton", limit=True)
        gradient = part.gradient(z[:, left], w[left])
        going = gradient.norm(dim=1) > near * w[left].norm(dim=1)
        if not bool(going.any()):
            return w, z, step
        left, part, gradient = left[going], part.keep(going), gradient[going]
        here, scores = w[left], z[:, left]
        p = _newton(part, scores, gradient)
        dz = part.scores(p)
        t = step_length(part, scores, dz, here, p, -(gradient * p).sum(1))
        w[left] = here + t[:, None] * p
        z[:, left] = scores + t * dz
    return w, z, STEPS if near == NEAR else ROUGH


def _newton(problem: SquaredHinge, z: Tensor, gradient: Tensor) -> Tensor:
    """−H⁻¹ ∇J, (K, R); H is that of the rows that miss here."""
    bend = problem.bend(z)  # (N, K)
    few, p = _few(problem, bend), torch.empty_like(gradient)
    if bool(few.any()):
        p[few] = _by_gram(problem.keep(few), bend[:, few], gradient[few])
    if not bool(few.all()):
        h = _Hessian.of(problem.rows, bend[:, ~few])
        p[~few] = solve(h, -gradient[~few].float(), SOLVED, PRODUCTS).to(p)
    return p


def _few(problem: SquaredHinge, bend: Tensor) -> Tensor:
    """Whose rows that miss are so few that their Gram matrix is quickly decomposed, bool (K,)."""
    if problem.gram is None:
        return torch.zeros(bend.shape[1], dtype=torch.bool, device=bend.device)
    work = 4.0 * WORTH * problem.rows.shape[0] * problem.rows.shape[1]
    # n³/3, and double precision takes twice as long.
    return ((bend > 0).sum(0).double() ** 3 * 2 / 3 < work) & (problem.costs <= COSTLY)


def _by_gram(problem: SquaredHinge, bend: Tensor, gradient: Tensor) -> Tensor:
    """−H⁻¹ ∇J, (K, R), one problem after the other."""
    assert problem.gram is not None
    kind = gradient.dtype
    scores, betas = problem.scores(gradient), torch.zeros_like(bend, dtype=kind)
    for k, h in enumerate(bend.T):
        rows = h.nonzero()[:, 0]
        gram = problem.gram.index_select(0, rows).index_select(1, rows).to(kind)
        gram.diagonal().add_(1 / h[rows])
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:  # in single precision: the gradient's direction will do
            continue
        betas[rows, k] = torch.cholesky_solve(scores[rows, k, None], factor)[:, 0]
    total = -gradient.T
    for span, block in problem.rows.blocks():
        total = total.addmm(block.to(kind).T, betas[span])
    return total.T


class _Hessian(Curvature):
    """1 + Xᵀ diag(bend) X of K problems, with rows X (N, R) and bend (N, K)."""

    def __init__(self, rows: Rows, bend: Tensor, scale: Tensor) -> None:
        self.rows, self.bend, self.scale = rows, bend, scale

    @classmethod
    def of(cls, rows: Rows, bend: Tensor) -> "_Hessian":
        total = bend.new_ones(rows.shape[1], bend.shape[1])
        for span, block in rows.blocks():
            total.addmm_(block.square().T, bend[span])
        return cls(rows, bend, 1 / total.T)

    def keep(self, which: Tensor) -> "_Hessian":
        """See Curvature.keep."""
        return _Hessian(self.rows, self.bend[:, which], self.scale[which])

    def __call__(self, p: Tensor) -> Tensor:
        """H p, (K, R)."""
        turned = p.T.clone()
        for span, block in self.rows.blocks():
            turned.addmm_(block.T, (block @ p.T).mul_(self.bend[span]))
        return turned.T


def step_length(
    problem: SquaredHinge, z: Tensor, dz: Tensor, w: Tensor, dw: Tensor, steep: Tensor
) -> Tensor:
    """The minimiser over t >= 0 along dw, (K,), by safeguarded Newton.

    `steep` (K,) is minus the slope at 0. Scores are linear along the way, so no product is needed.
    Where every length that was tried lies far beyond the minimiser, halving goes on.
    """
    t = w.new_ones(len(w))
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    for step in range(SHORTER):
        slope, bend = problem.along(t, z, dz, w, dw)
        if bool((slope.abs() <= FLAT * steep).all()):
            break
        low, high = torch.where(slope < 0, t, low), torch.where(slope > 0, t, high)
        guess = t - slope / bend.clamp(min=1e-30)
        middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        better = torch.where((guess > low) & (guess < high), guess, middle)
        far = (low == 0) & (slope > FLATTER * steep)
        if step >= NEWTON and not bool(far.any()):
            break
        t = better if step < NEWTON else torch.where(far, better, t)
    return t
