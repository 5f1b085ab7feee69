"""Newton's method for many squared hinges at once: from near the optimum to the optimum itself.

L-BFGS goes by the objective, which in single precision says nothing of the last thousandth of the
weights; two ways to the same optimum then end at scores that differ. Here the gradient decides, in
double precision. J is quadratic wherever the same rows miss their margin, so steps end once these
are found (finite Newton, Keerthi & DeCoste, JMLR 6, 2005); and it curves by 1 or more, so

    ‖w − w*‖ ≤ ‖∇J(w)‖

is a proof of how near the weights are. A step solves H p = −∇J by conjugate gradients, for which
single precision and a diagonal preconditioner will do: the next gradient sees what is left.
"""

import torch
from torch import Tensor

from eval.solvers.hinge import SquaredHinge
from eval.solvers.lbfgs import step_length
from ssl_bench.progress import reached

NEAR = 1e-5  # ‖∇J‖ of ‖w‖: how far from the optimum the weights are at most
STEPS = 50  # of Newton; two to six are needed
SOLVED = 0.003  # share of the residual that conjugate gradients leave
PRODUCTS = 500  # of conjugate gradients in a step; 10 to 300 are needed


def refine(problem: SquaredHinge, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Go on from weights (K, R, 1) until each gradient's length is no more than NEAR of theirs.

    Returns weights and scores (N, K, 1), float64, and which are as near as that, bool (K,).
    """
    w = w.double()
    z = problem.scores(w)
    near = torch.zeros(len(w), dtype=torch.bool, device=w.device)
    left, part = torch.arange(len(w), device=w.device), problem
    for step in range(STEPS):
        reached(step, STEPS, "steps of Newton", limit=True)
        gradient = part.gradient(z[:, left], w[left])
        going = gradient.norm(dim=(1, 2)) > NEAR * w[left].norm(dim=(1, 2))
        near[left[~going]] = True
        if not bool(going.any()):
            break
        left, part, gradient = left[going], part.keep(going), gradient[going]
        here, scores = w[left], z[:, left]
        p = _newton(part, scores, gradient)
        dz = part.scores(p)
        steep = -(gradient * p).sum((1, 2))
        t = step_length(part, scores, dz, here, p, steep)
        w[left] = here + t[:, None, None] * p
        z[:, left] = scores + t[None, :, None] * dz
    return w, z, near


def _newton(problem: SquaredHinge, z: Tensor, gradient: Tensor) -> Tensor:
    """−H⁻¹ ∇J, float64 (K, R, 1), but for SOLVED of it; H is that of the rows that miss here."""
    bend = problem.bend(z)  # (N, K)
    total = bend.new_zeros(problem.rows.shape[1], bend.shape[1])
    for span, block in problem.rows.blocks():
        total.addmm_(block.square().T, bend[span])
    p = _conjugate_gradients(problem, bend, -gradient[..., 0].float(), 1 / (1 + total.T))
    return p.double()[..., None]


def _conjugate_gradients(
    problem: SquaredHinge, bend: Tensor, target: Tensor, scale: Tensor
) -> Tensor:
    """H⁻¹ of targets (K, R), float32, preconditioned by `scale` (K, R); H = 1 + Xᵀ diag(bend) X."""
    found = torch.zeros_like(target)
    left = torch.arange(len(target), device=target.device)
    x, r, p = found, target, target * scale
    inner, goal = (r * p).sum(1), SOLVED * target.norm(dim=1)
    for _ in range(PRODUCTS):
        going = r.norm(dim=1) > goal
        if not bool(going.all()):  # those that are solved leave the products
            found[left[~going]] = x[~going]
            if not bool(going.any()):
                return found
            x, r, p, inner, goal = (v[going] for v in (x, r, p, inner, goal))
            left, scale, bend = left[going], scale[going], bend[:, going]
        turned = p.clone().T
        for span, block in problem.rows.blocks():
            turned = turned.addmm(block.T, (block @ p.T).mul_(bend[span]))
        t = inner / (p * turned.T).sum(1)
        x, r = x + t[:, None] * p, r - t[:, None] * turned.T
        before, inner = inner, (r * r * scale).sum(1)
        p = r * scale + (inner / before)[:, None] * p
    found[left] = x
    return found
