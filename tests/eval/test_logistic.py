"""Logistic regression against scikit-learn at the same objective."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from eval.solvers import axes
from eval.solvers.logistic import Standardizer, fit
from ssl_bench.evaluation.rows import Rows

STRENGTHS = torch.logspace(-5, 0, 6)


def problem(count, size, classes=4, seed=0):
    """Features of falling variance and labels with noise, standardised."""
    draw = torch.Generator().manual_seed(seed)
    basis = torch.randn(40, size, generator=draw) * torch.logspace(0, -2, 40)[:, None]
    rows = torch.randn(count, 40, generator=draw) @ basis
    rows += 0.05 * torch.randn(count, size, generator=draw)
    scores = rows @ torch.randn(size, classes, generator=draw) / size**0.5
    noise = torch.randn(count, classes, generator=draw) * scores.std()
    return Standardizer.fit(Rows.of(rows))(Rows.of(rows)).whole(), (scores + noise).argmax(1)


def objective(logits, weights, labels, strength):
    return float(F.cross_entropy(logits, labels) + strength / 2 * weights.square().sum())


@pytest.mark.parametrize(("count", "size"), [(300, 60), (120, 500)])
@pytest.mark.parametrize("turned", [True, False])
def test_it_reaches_scikit_learns_objective_and_predictions(count, size, turned, monkeypatch):
    monkeypatch.setattr(axes, "TURN_BELOW", 10_000 if turned else 0)
    rows, labels = problem(count, size)
    models = fit(Rows.of(rows), labels, 4, STRENGTHS)
    for k, strength in enumerate(STRENGTHS.tolist()):
        oracle = LogisticRegression(C=1 / (count * strength), tol=1e-8, max_iter=20_000)
        oracle.fit(rows.double().numpy(), labels.numpy())
        theirs = torch.from_numpy(oracle.decision_function(rows.double().numpy()))
        best = objective(theirs, torch.from_numpy(oracle.coef_), labels, strength)
        ours = models.logits(rows)[k].double()
        reached = objective(ours, models.weights[k].double(), labels, strength)
        assert reached == pytest.approx(best, rel=1e-4)
        assert float(models.objective[k]) == pytest.approx(best, rel=1e-4)
        assert (ours.argmax(1) == theirs.argmax(1)).double().mean() >= 0.999


def test_fitting_together_equals_fitting_one_by_one():
    rows, labels = problem(200, 50)
    together = fit(Rows.of(rows), labels, 4, STRENGTHS, tolerance=1e-8)
    for k in range(len(STRENGTHS)):
        alone = fit(Rows.of(rows), labels, 4, STRENGTHS[k : k + 1], tolerance=1e-8)
        assert torch.allclose(together.logits(rows)[k], alone.logits(rows)[0], atol=2e-2)


def test_dead_and_repeated_features_do_no_harm():
    """What ReLU layers give: columns of zeros and copies, which singular solvers trip over."""
    rows, labels = problem(150, 40)
    clumsy = torch.cat([rows, rows, torch.zeros(150, 300)], 1)
    models = fit(Rows.of(clumsy), labels, 4, STRENGTHS)
    plain = fit(Rows.of(rows * 2**0.5), labels, 4, STRENGTHS)  # two copies are one of √2 the length
    assert torch.allclose(models.objective, plain.objective, rtol=1e-4)


def test_standardising_is_scikit_learns_up_to_the_common_scale():
    from sklearn.preprocessing import StandardScaler

    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3 + 5
    expected = StandardScaler().fit_transform(rows.numpy()) / np.sqrt(7)
    standard = Standardizer.fit(Rows.of(rows))(Rows.of(rows)).whole()
    assert np.allclose(standard.numpy(), expected, atol=1e-5)
    assert standard.square().sum(1).mean().item() == pytest.approx(1, rel=1e-4)


def test_constant_features_become_zero_and_only_constants_are_refused():
    rows = torch.cat([torch.randn(20, 3), torch.full((20, 2), 7.0)], 1)
    given = Rows.of(rows)
    assert not Standardizer.fit(given)(given).whole()[:, 3:].any()
    with pytest.raises(ValueError, match="constant"):
        Standardizer.fit(Rows.of(torch.full((20, 2), 7.0)))


def alike(count: int, size: int) -> tuple[Rows, torch.Tensor]:
    """Features of smooth pictures: neighbours are nearly the same, as in conv1 of photographs."""
    random = torch.Generator().manual_seed(0)
    waves = torch.cos(torch.linspace(0, 9, size)[:, None] * torch.arange(1, 25) / 3)  # (D, 24)
    strength = torch.randn(count, 24, generator=random) / torch.arange(1, 25) ** 0.5
    x = strength @ waves.T + 0.02 * torch.randn(count, size, generator=random)
    labels = (strength[:, 3:6] + 0.5 * torch.randn(count, 3, generator=random)).argmax(1)
    rows = Rows.of(x)
    return Standardizer.fit(rows)(rows), labels


def test_a_fit_that_goes_on_never_gets_worse_on_features_that_are_alike():
    """The first direction is far too long there: a search that stops early climbs instead."""
    rows, labels = alike(500, 2000)
    strength = torch.tensor([1e-5])
    part = torch.arange(400)
    begun = fit(rows.part(part), labels[part], 3, strength)
    given = (rows, labels, 3, strength)
    start = float(fit(*given, (begun.weights, begun.bias), max_iterations=0).objective)
    reached = [
        float(fit(*given, (begun.weights, begun.bias), max_iterations=n).objective)
        for n in (1, 2, 5, 20)
    ]
    assert all(later <= before for before, later in zip([start, *reached], reached, strict=False))
    gone_on = fit(*given, (begun.weights, begun.bias))
    oracle = LogisticRegression(C=1 / (500 * 1e-5), tol=1e-8, max_iter=20_000)
    oracle.fit(rows.whole().double().numpy(), labels.numpy())
    theirs = torch.from_numpy(oracle.decision_function(rows.whole().double().numpy()))
    best = objective(theirs, torch.from_numpy(oracle.coef_), labels, 1e-5)
    assert float(gone_on.objective) == pytest.approx(best, rel=1e-4)
    agreed = gone_on.predict(rows)[0] == theirs.argmax(1)
    assert float(agreed.float().mean()) >= 0.999
