"""Problems for linear classifiers."""

import torch


def problem(count, size, classes=3, seed=0):
    """Rows (N, D) of length 1 as ReLU layers give, targets (N, C) with some that are not used."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.randn(30, size, generator=draw) * torch.logspace(0, -1, 30)[:, None]
    hidden = torch.randn(count, 30, generator=draw)
    rows = torch.relu(hidden @ basis + 0.3 * torch.randn(count, size, generator=draw))
    scores = hidden @ torch.randn(30, classes, generator=draw)
    scores += scores.std() * torch.randn(count, classes, generator=draw)
    targets = (scores > torch.quantile(scores, 0.8, dim=0)).to(torch.int8)
    targets[torch.rand(count, classes, generator=draw) < 0.1] = -1
    return rows / rows.norm(dim=1, keepdim=True), targets.numpy()
