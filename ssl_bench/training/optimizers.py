"""The optimisers of self-supervised methods, by name, and which weights they let decay.

sgd lets all weights decay, as MoCo's and SimSiam's released code; lars and adamw only matrices and
kernels, as that of SimCLR, BYOL, Barlow Twins and VICReg, where LARS also leaves the step of biases
and scales as it is.
"""

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ssl_bench.errors import UsageError

OptimizerName = Literal["sgd", "lars", "adamw"]
MOMENTUM = 0.9


def check_optimizer(name: OptimizerName, encoder: nn.Module) -> None:
    """UsageError for LARS on a network with layer normalisation: transformers collapse with it."""
    if name == "lars" and any(isinstance(part, nn.LayerNorm) for part in encoder.modules()):
        raise UsageError(
            "--optimizer lars is for networks with batch normalisation: take adamw here, and a "
            "--lr for it"
        )


def build_optimizer(
    name: OptimizerName,
    modules: Iterable[nn.Module],
    lr: float,
    weight_decay: float,
    lr_vectors: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Optimizer:
    """One optimiser of all weights; biases and scales learn at `lr_vectors` if that is given.

    `betas` are AdamW's.
    """
    weights = [weight for module in modules for weight in module.parameters()]
    if name == "sgd" and lr_vectors is None:
        return SGD(weights, lr, MOMENTUM, weight_decay=weight_decay)
    vectors = [weight for weight in weights if weight.ndim < 2]
    decaying = {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay}
    rate = lr if lr_vectors is None else lr_vectors
    # timm's LARS adapts the step of a group only if its weights decay.
    fixed = weight_decay if name == "sgd" else 0.0
    groups: list[dict[str, Any]] = [
        decaying,
        {"params": vectors, "weight_decay": fixed, "lr": rate},
    ]
    if name == "sgd":
        return SGD(groups, lr, MOMENTUM)
    if name == "adamw":
        return AdamW(groups, lr, betas)
    from timm.optim.lars import Lars

    lars: Any = Lars  # typed by its default momentum, the int 0
    return lars(groups, lr, MOMENTUM)
