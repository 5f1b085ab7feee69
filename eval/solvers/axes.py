"""Rows in their principal axes, in which linear problems are nearly separable.

A diagonal preconditioner is then nearly Newton's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_bench.evaluation.rows import Rows

DOUBLE_BELOW = 2048  # two seconds; above, single precision is three times faster
TURN_BELOW = 10_000  # the eigendecomposition then costs less than the iterations it saves
COLUMNS = 1024  # of the features that go to double precision at once
FLOOR = 1e-6  # share of the first axis's variance below which others are noise

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
