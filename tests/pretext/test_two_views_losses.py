"""Losses of methods that compare two views: against NumPy, lightly, and their own differences.

NumPy's are written from the papers' formulas; gradients are held to differences of the loss.
lightly is compared with where it is installed (no dependency: it brings two frameworks).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretext.barlow_twins import barlow_loss
from pretext.byol import regression_loss
from pretext.moco_v2 import info_nce
from pretext.simclr import nt_xent
from pretext.simsiam import negative_cosine
from pretext.vicreg import vicreg_loss

COUNT, WIDTH, QUEUED = 6, 5, 7


def outputs(name: int, rows: int = COUNT, unit: bool = False) -> Tensor:
    """float64 (rows, WIDTH), with another mean and deviation in each column."""
    draw = torch.Generator().manual_seed(name)
    made = torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
    made = made * torch.linspace(0.5, 2, WIDTH) + torch.linspace(-1, 1, WIDTH)
    return F.normalize(made, dim=1) if unit else made


ONE, TWO = outputs(1), outputs(2)
UNIT_ONE, UNIT_TWO, QUEUE = outputs(1, unit=True), outputs(2, unit=True), outputs(3, QUEUED, True)


# ---- by the papers' formulas, image by image
def numpy_nt_xent(one: np.ndarray, two: np.ndarray, temperature: float) -> float:
    views, losses = np.concatenate([one, two]), []
    for i, view in enumerate(views):
        partner = (i + len(one)) % len(views)
        scores = {k: np.exp(view @ views[k] / temperature) for k in range(len(views)) if k != i}
        losses.append(-np.log(scores[partner] / sum(scores.values())))
    return float(np.mean(losses))


def numpy_info_nce(
    queries: np.ndarray, keys: np.ndarray, queue: np.ndarray, temperature: float
) -> float:
    losses = []
    for query, key in zip(queries, keys, strict=True):
        same = np.exp(query @ key / temperature)
        others = sum(np.exp(query @ other / temperature) for other in queue)
        losses.append(-np.log(same / (same + others)))
    return float(np.mean(losses))


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(1) / lengths


def numpy_regression(one: np.ndarray, two: np.ndarray) -> float:
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, two)]
    return float(np.square(units[0] - units[1]).sum(1).mean())


def numpy_barlow(one: np.ndarray, two: np.ndarray, off_diagonal: float) -> float:
    total = 0.0
    for i in range(WIDTH):
        for j in range(WIDTH):
            a, b = one[:, i] - one[:, i].mean(), two[:, j] - two[:, j].mean()
            c = (a * b).mean() / np.sqrt(((a**2).mean() + 1e-5) * ((b**2).mean() + 1e-5))
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
    return total


def numpy_vicreg(one: np.ndarray, two: np.ndarray, *weights: float) -> float:
    invariance = np.square(one - two).sum() / one.size
    variance = covariance = 0.0
    for rows in (one, two):
        deviations = np.sqrt(rows.var(0, ddof=1) + 1e-4)
        variance += np.maximum(0, 1 - deviations).mean() / 2
        c = np.cov(rows.T)
        covariance += (np.square(c).sum() - np.square(np.diag(c)).sum()) / WIDTH
    return float(np.dot(weights, [invariance, variance, covariance]))


PLACES = torch.arange(COUNT)
BOTH = torch.cat([UNIT_ONE, UNIT_TWO])
# Ours, as a function of what learns; the arguments that learn; NumPy's of the same.
LOSSES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], float]] = {
    "simclr": (
        lambda both: nt_xent(both, both, PLACES, 0.5),
        (BOTH,),
        numpy_nt_xent(UNIT_ONE.numpy(), UNIT_TWO.numpy(), 0.5),
    ),
    "moco-v2": (
        lambda queries: info_nce(queries, UNIT_TWO, QUEUE, 0.2),
        (UNIT_ONE,),
        numpy_info_nce(UNIT_ONE.numpy(), UNIT_TWO.numpy(), QUEUE.numpy(), 0.2),
    ),
    "byol": (
        lambda one: regression_loss(one, TWO),
        (ONE,),
        numpy_regression(ONE.numpy(), TWO.numpy()),
    ),
    "barlow-twins": (
        lambda one, two: barlow_loss(one, two, 0.0051),
        (ONE, TWO),
        numpy_barlow(ONE.numpy(), TWO.numpy(), 0.0051),
    ),
    "simsiam": (
        lambda one: negative_cosine(one, TWO),
        (ONE,),
        -float(cosines(ONE.numpy(), TWO.numpy()).mean()),
    ),
    "vicreg": (
        lambda one, two: vicreg_loss(one, two, 25.0, 25.0, 1.0),
        (ONE, TWO),
        numpy_vicreg(ONE.numpy(), TWO.numpy(), 25.0, 25.0, 1.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name: str) -> None:
    loss, learning, expected = LOSSES[name]
    assert float(loss(*learning)) == pytest.approx(expected, rel=1e-12)
    asking = tuple(rows.clone().requires_grad_() for rows in learning)
    assert torch.autograd.gradcheck(loss, asking, eps=1e-6, atol=1e-7)


def lightly_losses() -> dict[str, Callable[..., Any]]:
    """The same by lightly, of what learns; the bank of MoCo's holds our queue."""
    loss = pytest.importorskip("lightly.loss", reason="lightly is an oracle, and not installed")
    cosine, moco = loss.NegativeCosineSimilarity(), loss.NTXentLoss(0.2, (QUEUED, WIDTH))
    moco.memory_bank.forward = lambda output, labels=None, update=False: (output, QUEUE.T)
    return {
        "simclr": lambda both: loss.NTXentLoss(0.5)(*both.chunk(2)),
        "moco-v2": lambda queries: moco(queries, UNIT_TWO),
        "byol": lambda one: 2 + 2 * cosine(one, TWO),
        "barlow-twins": lambda one, two: loss.BarlowTwinsLoss(0.0051)(one, two),
        "simsiam": lambda one: cosine(one, TWO),
        "vicreg": lambda one, two: loss.VICRegLoss(25.0, 25.0, 1.0)(one, two),
    }


@pytest.mark.parametrize("name", LOSSES)
def test_lightlys_value_and_gradient(name: str) -> None:
    theirs, (loss, learning, _) = lightly_losses()[name], LOSSES[name]
    # Two of theirs bring their inputs to unit length, which ours are given: it turns gradients.
    unit = name in ("simclr", "moco-v2")
    ours = (lambda rows: loss(F.normalize(rows))) if unit else loss
    asking = [tuple(rows.clone().requires_grad_() for rows in learning) for _ in range(2)]
    values = [each(*rows) for each, rows in zip((ours, theirs), asking, strict=True)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)
    found = [torch.autograd.grad(v, rows) for v, rows in zip(values, asking, strict=True)]
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-9)


# ---- properties
def test_rows_of_a_device_have_their_part_of_the_loss() -> None:
    """NT-Xent: the mean over two devices, of three images each, is the loss of all six."""
    parts = [
        nt_xent(torch.cat([UNIT_ONE[some], UNIT_TWO[some]]), BOTH, PLACES[some], 0.5)
        for some in (slice(0, 3), slice(3, 6))
    ]
    whole = LOSSES["simclr"][2]
    assert float(sum(parts)) / 2 == pytest.approx(whole, rel=1e-12)


def test_no_gradient_goes_behind_simsiams_target() -> None:
    target = TWO.clone().requires_grad_()
    negative_cosine(ONE.clone().requires_grad_(), target).backward()
    assert target.grad is None


def test_what_is_best_has_the_least_loss() -> None:
    """Equal views: 0 for BYOL, −1 for SimSiam; decorrelated ones of unit variance: 0 for two."""
    assert float(regression_loss(ONE, 3 * ONE)) == pytest.approx(0, abs=1e-12)
    assert float(negative_cosine(ONE, 3 * ONE)) == pytest.approx(-1, abs=1e-12)
    white = torch.linalg.qr(ONE - ONE.mean(0)).Q * COUNT**0.5  # zero mean, unit covariance
    assert float(barlow_loss(white, white, 0.0051)) == pytest.approx(0, abs=1e-8)
    assert float(vicreg_loss(white, white, 25, 25, 1)) == pytest.approx(0, abs=1e-12)


def test_bf16_outputs_are_compared_in_32_bit() -> None:
    """Within autocast, too: the loss is that of the rounded outputs, to float32's rounding."""
    rounded = BOTH.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = nt_xent(rounded, rounded, PLACES, 0.1)
    assert found.dtype == torch.float32
    exact = nt_xent(rounded.double(), rounded.double(), PLACES, 0.1)
    assert float(found) == pytest.approx(float(exact), rel=1e-5)
