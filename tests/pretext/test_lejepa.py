"""LeJEPA: SIGReg by NumPy and in closed form, what it prefers, directions, the step's loss."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.interrupted import assert_stopping_changes_nothing
from helpers.steps import drawn
from pretext.lejepa import LeJEPAConfig, directions, prediction_loss, sigreg
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import Step

VIEWS, COUNT, WIDTH, SLICES = 3, 20, 4, 6
TOY: dict[str, Any] = {
    "recipe": "small", "arch": "timm:test_efficientnet", "image_size": 32, "projector": (8, 5),
    "batch_size": 4, "small_crops": 1, "slices": 7, "steps": 4, "warmup": 0,
}  # fmt: skip


def normal(seed: int, *shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def alone(means: Tensor) -> Tensor:
    """What `step.gather` is on one device."""
    return means


OUTPUTS = 1.5 * normal(1, VIEWS, COUNT, WIDTH) + 0.3
ALONG = directions(drawn(0), WIDTH, SLICES)
KNOTS = np.linspace(-3, 3, 33)  # 17 from 0 on


# ---- SIGReg
def numpy_statistic(x: np.ndarray, points: np.ndarray) -> float:
    """Of coordinates (N,): the integral by the trapezoidal rule, in complex numbers."""
    found = np.exp(1j * x[:, None] * points).mean(0)
    wanted = np.exp(-(points**2) / 2)
    return len(x) * np.trapezoid(np.abs(found - wanted) ** 2 * wanted, points)


def closed_statistic(x: np.ndarray) -> float:
    """The same integral over all t: Gaussians of differences, of coordinates, and a constant."""
    pairs = np.sqrt(2 * np.pi) * np.exp(-((x[:, None] - x) ** 2) / 2).mean()
    return len(x) * (
        pairs - 2 * np.sqrt(np.pi) * np.exp(-(x**2) / 4).mean() + np.sqrt(2 * np.pi / 3)
    )


def numpy_sigreg(outputs: np.ndarray, along: np.ndarray, points: np.ndarray) -> float:
    """View by view, direction by direction."""
    return float(
        np.mean([numpy_statistic(view @ one, points) for view in outputs for one in along.T])
    )


def test_it_is_the_papers_algorithm_on_both_sides_of_0() -> None:
    found, along = float(sigreg(OUTPUTS, ALONG, alone)), ALONG.double().numpy()
    assert found == pytest.approx(numpy_sigreg(OUTPUTS.numpy(), along, KNOTS), rel=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_17_points_are_the_integral_but_for_its_ends(scale: float) -> None:
    """By 4,001 points, and by no points at all; beyond 3 there is at most 0.007 N of it."""
    rows, along = scale * normal(1, VIEWS, COUNT, WIDTH), ALONG.double().numpy()
    found = float(sigreg(rows, ALONG, alone))
    fine, whole = (
        numpy_sigreg(rows.numpy(), along, np.linspace(-end, end, 4001)) for end in (3, 10)
    )
    assert found == pytest.approx(fine, rel=1e-3)
    coordinates = [view @ one for view in rows.numpy() for one in along.T]
    assert np.mean(list(map(closed_statistic, coordinates))) == pytest.approx(whole, rel=1e-12)
    assert 0 < whole - fine < 0.007 * COUNT


def test_value_and_gradient_are_lightlys(monkeypatch) -> None:
    """Its points and weights are of 32 bit."""
    loss = pytest.importorskip("lightly.loss.lejepa_loss", reason="an oracle, and not installed")
    criterion = loss.LeJEPALoss(lambda_param=0.3, sigreg_num_vectors=SLICES).double()
    monkeypatch.setattr(criterion.sigreg, "_generate_unit_vectors", lambda *_: ALONG.double())
    one, two = (OUTPUTS.clone().requires_grad_() for _ in range(2))
    ours = 0.7 * prediction_loss(one) + 0.3 * sigreg(one, ALONG, alone)
    theirs = criterion(global_proj=two[:2], local_proj=two[2:])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    (found,), (expected,) = torch.autograd.grad(ours, one), torch.autograd.grad(theirs, two)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_gradients() -> None:
    learning = OUTPUTS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: sigreg(rows, ALONG, alone), (learning,))
    assert torch.autograd.gradcheck(prediction_loss, (learning,))


def test_it_prefers_the_standard_normal_distribution() -> None:
    """To others of mean 0 and variance 1, to other means and scales, and to a collapse."""
    standard, uniform = normal(2, 1, 4000, 2), torch.rand(1, 4000, 2, dtype=torch.float64)
    others = {
        "uniform": (uniform - 0.5) * 12**0.5,
        "two points": standard.sign(),
        "moved": standard + 0.3,
        "wide": 1.3 * standard,
        "narrow": 0.7 * standard,
        "on a line": standard[..., :1].expand(1, 4000, 2),
        "collapsed": torch.zeros(1, 4000, 2, dtype=torch.float64),
    }
    along = directions(drawn(0), 2, 64)
    best = float(sigreg(standard, along, alone))
    worse = {name: float(sigreg(rows, along, alone)) for name, rows in others.items()}
    assert min(worse.values()) > 5 * best
    assert max(worse, key=worse.__getitem__) == "collapsed"


@pytest.mark.parametrize("count", [5, 50])
def test_its_mean_under_the_standard_normal_distribution(count: int) -> None:
    """∫ (1 − exp(−t²)) exp(−t² / 2) dt, whatever the number of images: over 4,000 views of one."""
    found = float(sigreg(normal(4, 4000, count, 1), torch.ones(1, 1), alone))
    assert found == pytest.approx((2 * np.pi) ** 0.5 * (1 - 3**-0.5), rel=0.05)


def test_descending_it_makes_points_standard_normal() -> None:
    """From a small cloud far from the origin, by other directions in each step."""
    points = (0.1 * normal(3, 1, 256, 3) + 1).requires_grad_()
    adam = torch.optim.Adam([points], 0.05)
    for step in range(150):
        adam.zero_grad()
        sigreg(points, directions(drawn(step), 3, 16), alone).backward()
        adam.step()
    found = points.detach()[0]
    assert found.mean(0).abs().max() < 0.1
    torch.testing.assert_close(found.T.cov(), torch.eye(3).double(), atol=0.15, rtol=0)


def test_directions_are_of_unit_length_everywhere_and_the_same_on_all_devices() -> None:
    found = directions(drawn(0), 3, 20_000)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(20_000))
    assert found.mean(1).abs().max() < 0.02
    torch.testing.assert_close(found @ found.T / 20_000, torch.eye(3) / 3, atol=0.02, rtol=0)
    part = Randomness(0, 0, torch.tensor([2, 3]))
    assert torch.equal(directions(part, 3, 20_000), found)
    assert not torch.allclose(directions(drawn(1), 3, 20_000), found)


def test_two_devices_have_the_statistic_of_all_images() -> None:
    """The mean of what both found of their halves; each knows the other's."""
    halves, means = OUTPUTS.split(COUNT // 2, dim=1), list[Tensor]()
    for half in halves:
        sigreg(half, ALONG, lambda here: means.append(here) or here)
    whole = sigreg(OUTPUTS, ALONG, alone)
    for half in halves:
        found = sigreg(half, ALONG, lambda here: torch.cat(means))
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)


# ---- the step
def task_of(**settings: Any) -> Any:
    task: Any = build_pretext("lejepa", LeJEPAConfig.model_validate(TOY | settings), HALF)[0]
    task.train().optimizers()
    return task


def test_the_step_has_the_loss_of_all_views() -> None:
    """By NumPy, from what the head gave: the large views' mean is what all are compared with."""
    task, noted = task_of(sigreg=0.25), list[Tensor]()
    task.projector.register_forward_hook(lambda _, given, made: noted.append(made.detach()))
    pixels = torch.randint(256, (4, 3, 36, 36), generator=torch.Generator().manual_seed(0)).byte()
    random = drawn(0)
    step = Step(0, random.positions, random, lambda loss: loss.backward())
    values = task.train_step(pixels, step)
    (made,) = noted
    outputs = made.double().view(3, 4, 5).numpy()
    centres = (outputs[0] + outputs[1]) / 2
    prediction = np.mean([np.square(view - centres).mean() for view in outputs])
    along = directions(random, 5, 7).double().numpy()
    expected = 0.75 * prediction + 0.25 * numpy_sigreg(outputs, along, KNOTS)
    assert float(values["loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_released_defaults() -> None:
    config = LeJEPAConfig()
    assert (config.rate, config.weight_decay, config.sigreg) == (5e-4, 0.05, 0.05)
    assert (config.small_crops, config.crop_split, config.warmup) == (6, 0.3, 50_040)
    assert LeJEPAConfig.model_validate({"recipe": "small"}).warmup == 740


def test_a_stopped_run_ends_with_the_same_bits(tmp_path) -> None:
    assert_stopping_changes_nothing("lejepa", LeJEPAConfig.model_validate(TOY), tmp_path)


@pytest.mark.parametrize(
    "arch", [("timm:test_vit",), ("alexnet", "--width", 0.1, "--norm", "batch")]
)
def test_it_trains_from_the_command_line_and_is_measured(bench, tmp_path, arch) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--steps", 2, "--batch-size", 8, "--projector", 8, "--warmup", 0)
    bench.ok("pretrain", "lejepa", "--recipe", "small", "--arch", *arch, *toy, *where)
    assert "| lejepa " in bench.ok("knn", "--encoder", "lejepa", "--k", 5, *where).out
