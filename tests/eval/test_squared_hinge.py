"""Squared-hinge SVMs against scikit-learn's LinearSVC at the same objective."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from eval.solvers import squared_hinge
from eval.solvers.axes import turn
from eval.solvers.squared_hinge import Basis, fit, path
from helpers.problems import problem
from ssl_bench.evaluation import rows as row_blocks
from ssl_bench.evaluation.rows import Rows

COSTS = (0.01, 1.0, 20.0, 1000.0)


def oracle(rows, target, cost):
    """LinearSVC to convergence, on the rows that are used: coefficients and intercept."""
    used = target != -1
    svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=1e-8, max_iter=10**7)
    svm.set_params(dual=True)
    svm.fit(rows[used].double().numpy(), np.where(target[used] == 1, 1, -1))
    return svm.coef_[0], float(np.ravel(svm.intercept_)[0])


def objective(rows, target, cost, weights, bias):
    """J as it is written, in double precision."""
    used = target != -1
    z = rows[used].double().numpy() @ weights + bias
    sign, importance = np.where(target[used] == 1, 1, -1), np.where(target[used] == 1, 2, 1)
    loss = (importance * np.maximum(0, 1 - sign * z) ** 2).sum()
    return (weights @ weights + bias**2) / 2 + cost * loss


def unturned(basis, weights):
    """Weights (D,) and intercept in the rows' own axes, of weights (R,)."""
    w = basis.back(weights[:, None].float())[:, 0].double().numpy()
    return w[:-1], float(w[-1])


@pytest.mark.parametrize(("count", "size"), [(150, 40), (100, 300), (140, 150)])
def test_it_reaches_linear_svcs_objective_and_decisions(count, size):
    rows, targets = problem(count, size)
    basis = Basis.of(Rows.of(rows))
    for cost, (solution, scores) in zip(COSTS, path(basis, targets, COSTS), strict=True):
        for c, target in enumerate(targets.T):
            coefficients, intercept = oracle(rows, target, cost)
            best = objective(rows, target, cost, coefficients, intercept)
            ours = objective(rows, target, cost, *unturned(basis, solution.weights[c]))
            assert ours == pytest.approx(best, rel=1e-4)
            assert float(solution.value[c]) == pytest.approx(best, rel=1e-4)
            theirs = rows.double().numpy() @ coefficients + intercept
            assert np.allclose(scores[:, c].numpy(), theirs, atol=0.01 * theirs.std())


def gradient(rows, target, cost, w):
    """Of J, in double precision, at weights w (R,) of rows (N, R), written without the solver."""
    sign = np.where(target == 1, 1, -1)
    importance = np.where(target == 1, 2, np.where(target == 0, 1, 0))
    missed = np.maximum(0, 1 - sign * (rows @ w))
    return w - 2 * cost * rows.T @ (importance * sign * missed)


@pytest.mark.parametrize(("count", "size"), [(150, 40), (100, 300), (140, 150)])
def test_it_ends_where_the_gradient_ends(count, size):
    """‖∇J‖ bounds how far the weights are from the optimum: L-BFGS alone leaves 0.1 of them."""
    rows, targets = problem(count, size)
    basis = Basis.of(Rows.of(rows))
    turned = basis.rows.whole().double().numpy()
    for cost, (solution, _) in zip(COSTS, path(basis, targets, COSTS), strict=True):
        for target, weights in zip(targets.T, solution.weights.numpy(), strict=True):
            left = np.linalg.norm(gradient(turned, target, cost, weights))
            assert left < 2e-5 * np.linalg.norm(weights)


@pytest.mark.parametrize("cost", COSTS)
def test_its_objective_is_not_above_linear_svcs(cost):
    """In the same axes, so that the two minimise the same J to its last digits."""
    rows, targets = problem(120, 50)
    basis = Basis.of(Rows.of(rows))
    solution = fit(basis, targets, np.full(3, cost))
    turned = basis.rows.whole()
    for target, weights in zip(targets.T, solution.weights.numpy(), strict=True):
        used = target != -1
        svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=1e-8, max_iter=10**7)
        svm.set_params(dual=True, fit_intercept=False)  # the turned rows hold the constant
        svm.fit(turned[used].double().numpy(), np.where(target[used] == 1, 1, -1))
        theirs = objective(turned, target, cost, svm.coef_[0], 0.0)
        assert objective(turned, target, cost, weights, 0.0) <= theirs * (1 + 1e-9)


def test_each_problem_may_have_a_cost_of_its_own():
    rows, targets = problem(120, 50)
    basis = Basis.of(Rows.of(rows))
    solution = fit(basis, targets, np.array([0.1, 10.0, 100.0]))
    for c, cost in enumerate((0.1, 10.0, 100.0)):
        alone = fit(basis, targets[:, c : c + 1], np.array([cost]))
        assert torch.allclose(solution.weights[c], alone.weights[0], atol=0.01)
        assert float(solution.value[c]) == pytest.approx(float(alone.value[0]), rel=1e-6)


def test_where_it_begins_makes_no_difference():
    rows, targets = problem(120, 50)
    basis = Basis.of(Rows.of(rows))
    costs = np.full(3, 10.0)
    zero = fit(basis, targets, costs)
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(zero.weights.shape, generator=draw)
    far = fit(basis, targets, costs, start)
    assert torch.allclose(zero.value, far.value, rtol=1e-6)
    assert fit(basis, targets, costs, zero.weights).iterations <= 1


def test_rows_that_are_not_used_have_no_influence():
    rows, targets = problem(120, 50)
    target = targets[:, :1]
    used = target[:, 0] != -1
    other = rows.clone()
    other[torch.from_numpy(~used)] = torch.rand(int((~used).sum()), 50)
    plain, changed, without = (
        (basis := Basis.of(Rows.of(x))).scores(fit(basis, t, np.array([10.0])).weights, Rows.of(x))
        for x, t in ((rows, target), (other, target), (rows[torch.from_numpy(used)], target[used]))
    )
    used = torch.from_numpy(used)
    assert torch.allclose(plain[used], changed[used], atol=2e-3)
    assert torch.allclose(plain[used], without, atol=2e-3)


def test_dead_and_repeated_features_do_no_harm():
    rows, targets = problem(100, 40)
    clumsy = torch.cat([rows, rows, torch.zeros(100, 200)], 1)
    costs = np.full(3, 1000.0)
    plain = fit(Basis.of(Rows.of(rows * 2**0.5)), targets, costs)  # two copies are √2 times as long
    assert torch.allclose(
        fit(Basis.of(Rows.of(clumsy)), targets, costs).value, plain.value, rtol=1e-4
    )


def test_rows_on_disk_in_blocks_give_the_same(monkeypatch):
    rows, targets = problem(150, 40)
    costs = np.full(3, 10.0)
    monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 1)  # blocks of 64 rows
    stored = Rows(150, 40, on_disk=True)
    stored.write(0, rows)
    here, there = Basis.of(Rows.of(rows)), Basis.of(stored)
    assert there.rows.on_disk
    expected, found = fit(here, targets, costs), fit(there, targets, costs)
    assert torch.allclose(found.value.cpu(), expected.value, rtol=1e-5)
    scores = there.scores(found.weights, stored).cpu()
    assert torch.allclose(scores, here.scores(expected.weights, Rows.of(rows)), atol=2e-3)


@pytest.mark.parametrize(("count", "size"), [(80, 30), (60, 200), (70, 80)])
def test_fine_axes_keep_what_has_little_variance(count, size):
    """At a cost of 1000, features of a 3000th of the others' size still count."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(count, size, generator=draw)
    rows[:, 15:] *= 3e-4
    turned, back = turn(Rows.of(rows), fine=True) or (None, None)
    assert turned is not None
    assert back is not None
    w = turned.whole().T @ torch.randn(count, 1, generator=draw)  # as an optimum is
    assert torch.allclose(turned.whole() @ turned.whole().T, rows @ rows.T, atol=1e-5)
    assert torch.allclose(rows @ back(w), turned.whole() @ w, atol=1e-4)
    assert turned.shape[1] >= min(count, size)
    coarse = turn(Rows.of(rows))
    assert coarse is not None
    assert coarse[0].shape[1] == 15


def test_memory_is_bounded_by_groups(monkeypatch):
    rows, _ = problem(150, 40)
    basis = Basis.of(Rows.of(rows))
    assert list(basis.groups(5)) == [slice(0, squared_hinge.TOGETHER // (32 * 150))]
    monkeypatch.setattr(squared_hinge, "TOGETHER", 32 * 150 * 2)
    assert list(basis.groups(5)) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert list(basis.groups(5, 3)) == [slice(i, i + 1) for i in range(5)]
