"""Conjugate gradients for many linear systems at once that share their products with the data."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Curvature(ABC):
    """Symmetric positive matrices H of K systems over unknowns (K, …), and what is near H⁻¹."""

    scale: Tensor  # (K, …): the preconditioner, a guess of the inverse's diagonal

    @abstractmethod
    def __call__(self, p: Tensor) -> Tensor:
        """H p, (K, …)."""

    @abstractmethod
    def keep(self, which: Tensor) -> "Curvature":
        """Those of the K systems where `which` (K,) is true."""


def solve(h: Curvature, target: Tensor, share: float, limit: int) -> Tensor:
    """H⁻¹ of targets (K, …) until no more than `share` of each residual is left.

    Hestenes & Stiefel (1952); residuals are measured as `scale` does. Systems that are solved leave
    the products. Whatever is found after some products leads down.
    """
    found, r = torch.zeros_like(target), target
    left, x = torch.arange(len(target), device=target.device), found
    p = r * h.scale
    inner = _dot(r, p)
    goal = share**2 * inner
    for _ in range(limit):
        going = inner > goal
        if not bool(going.all()):
            found[left[~going]] = x[~going]
            if not bool(going.any()):
                return found
            x, r, p, inner, goal, left = (v[going] for v in (x, r, p, inner, goal, left))
            h = h.keep(going)
        turned = h(p)
        t = inner / _dot(p, turned)
        x, r = x + _along(t, p), r - _along(t, turned)
        s = r * h.scale
        before, inner = inner, _dot(r, s)
        p = s + _along(inner / before, p)
    found[left] = x
    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _along(t: Tensor, p: Tensor) -> Tensor:
    return t.view(-1, *(1,) * (p.dim() - 1)) * p
