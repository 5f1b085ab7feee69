"""Whether a method's outputs collapse: all images to one point, or to few dimensions.

Two numbers a step, logged as `spread` and `dimensions`; nothing is learnt from them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

COLLAPSED = 0.1  # a spread below it is warned of, behind the first tenth of the steps


@torch.no_grad()
def watched(outputs: Tensor, features: Tensor) -> dict[str, Tensor]:
    """The spread of what the loss compares (B, D), the dimensions of the representation (B, …).

    Nothing of a single row, which differs from none.
    """
    if len(outputs) < 2:
        return {}
    return {"spread": spread(outputs), "dimensions": dimensions(features.flatten(1))}


def spread(outputs: Tensor) -> Tensor:
    """√D times the mean over dimensions of the deviation of outputs (B, D) of unit length.

    1: they lie all over the sphere; 0: they are one (Chen and He, "SimSiam", CVPR 2021, fig. 2).
    """
    unit = F.normalize(outputs.float(), dim=1)
    return unit.std(0, correction=0).mean() * outputs.shape[1] ** 0.5


def dimensions(features: Tensor) -> Tensor:
    """(Σλ)² / Σλ² of the eigenvalues λ of the covariance of (B, D): how many directions are used.

    k equal ones give k, at most min(B − 1, D); 0 of features that do not differ. It is the
    participation ratio: unlike Roy and Vetterli's effective rank, which `bench diagnose` prints, it
    needs no decomposition, and so costs nothing beside a step.
    """
    centred = features.float() - features.float().mean(0)
    centred = centred / centred.norm().clamp(min=1e-12)  # of small features, squares would be 0
    few = centred if centred.shape[0] > centred.shape[1] else centred.T
    gram = few.T @ few  # the smaller of the two, with the same eigenvalues
    return gram.trace().square() / gram.square().sum().clamp(min=1e-12)


def collapse_warning(values: Mapping[str, float], done: float) -> str | None:
    """One line if what a step logged says so, behind the share `done` of all steps."""
    if done < 0.1 or values.get("spread", 1.0) >= COLLAPSED:
        return None
    return (
        f"warning: the outputs of all images are nearly the same (spread {values['spread']:.3f}, "
        f"below {COLLAPSED:g}; 1 is best): the method may have collapsed, lower --lr"
    )
