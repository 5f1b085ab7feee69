"""What the training loop is handed by evaluations that train: a network, a loss and the truth."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_bench.training.pretext import Step

Truth = Mapping[str, Any]  # by name a tensor or sequence, with a row for each image
Loss = Tensor | Mapping[str, Tensor]  # a scalar, or its parts by name, which are summed


class Learner(nn.Module):
    """One network, one optimiser, and a loss on images and what is true of them.

    `loss(network, images, truth, step)` is handed the rows of `truth` that belong to the batch.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[nn.Module], Optimizer],
        loss: Callable[[nn.Module, Tensor, Truth, Step], Loss],
        truth: Truth,
        clip: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.new_optimizer, self.loss = network, optimizer, loss
        self.truth, self.clip = dict(truth), clip

    def optimizers(self) -> list[Optimizer]:
        self.optimizer = self.new_optimizer(self.network)
        return [self.optimizer]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One update; returns the loss, and its parts where it has some."""
        found = self.loss(self.network, images, self._rows(step.indices), step)
        parts = found if isinstance(found, Mapping) else {"loss": found}
        total = torch.stack(list(parts.values())).sum()
        step.update(self.optimizer, total, clip=self.clip)
        return {"loss": total.detach(), **{name: part.detach() for name, part in parts.items()}}

    def _rows(self, indices: Tensor) -> Truth:
        """Of these images, tensors on their device."""
        found: dict[str, Any] = {}
        for name, rows in self.truth.items():
            if isinstance(rows, Tensor):
                # Not a buffer: checkpoints need not hold the labels. So it is moved here, once.
                self.truth[name] = rows = rows.to(indices.device)
                found[name] = rows[indices]
            else:
                found[name] = [rows[i] for i in indices.tolist()]
        return found


def caffe_groups(
    network: nn.Module, lr: float, *, decay: float = 5e-4, bias_decay: float = 0.0,
    biases: str = "bias",
) -> list[dict[str, Any]]:  # fmt: skip
    """The parameters that learn, in SGD's two groups: weights, and biases at twice the rate.

    Caffe's network files say so layer by layer (`lr_mult: 2`, `decay_mult: 0`), and all published
    AlexNets follow. `biases` is how the names of the second group end: some files say it of the
    last layer only.
    """
    learning = {n: p for n, p in network.named_parameters() if p.requires_grad}
    # The first group's order is that of a checkpoint's moments: weights before biases.
    return [
        {
            "params": [p for name, p in learning.items() if not name.endswith(biases)],
            "lr": lr,
            "weight_decay": decay,
        },
        {
            "params": [p for name, p in learning.items() if name.endswith(biases)],
            "lr": 2 * lr,
            "weight_decay": bias_decay,
        },
    ]
