"""The SVM probe against a loop over LinearSVC; what it must not see; what it refuses."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from eval.solvers import squared_hinge
from eval.solvers.squared_hinge import Basis
from eval.svm import SVM, SVMConfig, choose_costs, fit, folds_of, normalized, one_vs_rest
from helpers.bench import Bench
from helpers.problems import problem
from helpers.refusals import SCENES, TOY, fails
from ssl_bench.data.store.squares import ImageStore, Index
from ssl_bench.data.string_array import StringArray
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.metrics.precision import average_precision
from ssl_bench.evaluation.rows import Rows

COSTS = (0.1, 1.0, 10.0, 1000.0)
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def given():
    """Rows (N, D), not of length 1, and targets (N, 3) of train and test."""
    rows, targets = problem(360, 60, seed=3)
    rows = rows * torch.linspace(1, 9, 360)[:, None]
    return (rows[:240], targets[:240]), (rows[240:], targets[240:])


def features(part, classes=CLASSES):
    return Features(Rows.of(part[0]), part[1], classes)


def probed(train, test, **settings):
    return SVM(SVMConfig(costs=COSTS, **settings)).probe(
        "conv1", {"train": features(train), "test": features(test)}
    )


def scaled(rows):
    """Length 1, in double precision."""
    x = rows.double().numpy()
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)


def linear_svc(rows, target, cost):
    """scikit-learn's, on the images that are judged."""
    used = target != -1
    svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=1e-7, max_iter=10**7)
    svm.set_params(dual=True)
    return svm.fit(rows[used], np.where(target[used] == 1, 1, -1)).decision_function


# ---- the numbers
def test_cross_validation_is_a_loop_over_linear_svc(given):
    train, test = given
    outcome = probed(train, test, seed=5)
    x, parts = scaled(train[0]), folds_of(train[1], 3, 5)
    for c, name in enumerate(CLASSES):
        target, part = train[1][:, c], parts[:, c]
        expected = []
        for cost in COSTS:
            scores = [linear_svc(x[part != f], target[part != f], cost)(x) for f in range(3)]
            held = [np.where(part == f, target, -1) for f in range(3)]
            folds = [average_precision(t, s).area for t, s in zip(held, scores, strict=True)]
            expected.append(np.mean(folds))
        assert outcome.selection["points"][name] == pytest.approx(expected, abs=0.1)
        chosen = outcome.selection["chosen"]["cost"][name]
        assert chosen == COSTS[int(np.argmax(outcome.selection["points"][name]))]
        theirs = linear_svc(x, target, chosen)(scaled(test[0]))
        assert np.allclose(outcome.predictions["scores"][:, c], theirs, atol=0.01 * theirs.std())


def test_the_score_is_the_mean_of_the_classes(given):
    train, test = given
    outcome = probed(train, test)
    assert outcome.predictions["targets"].dtype == np.int8
    assert outcome.predictions["scores"].dtype == np.float32
    found = score_with_intervals(SVM(SVMConfig()), outcome.predictions)
    scores = outcome.predictions["scores"]
    each = [average_precision(test[1][:, c], scores[:, c]) for c in range(3)]
    assert found["map11"] == pytest.approx(np.mean([ap.eleven for ap in each]))
    assert found["map"] == pytest.approx(np.mean([ap.area for ap in each]))
    assert found["map_low"] < found["map"] < found["map_high"]


def test_of_equals_the_smallest_cost_is_chosen():
    """Classes that any cost tells apart."""
    targets = np.repeat(np.eye(2, dtype=np.int8), 20, 0)
    rows = torch.from_numpy(targets).float() + 0.01 * torch.rand(40, 2)
    choice = choose_costs(Basis.of(Rows.of(rows)), targets, COSTS, 3, 0)
    assert (choice.points == 100).all()
    assert choice.costs.tolist() == [0.1, 0.1]


def test_several_costs_for_other_rows(given):
    (rows, targets), (others, _) = given
    train, test = normalized(Rows.of(rows)), normalized(Rows.of(others))
    found = one_vs_rest(train, targets, COSTS, test)
    basis = Basis.of(train)
    for cost, scores in zip(COSTS, found, strict=True):
        weights, _ = fit(basis, targets, np.full(3, cost))
        assert np.allclose(scores, basis.scores(weights, test).numpy(), atol=5e-3)


def test_groups_of_classes_give_what_all_together_give(given, monkeypatch):
    train, test = given
    together = probed(train, test)
    monkeypatch.setattr(squared_hinge, "TOGETHER", 1)  # one class at a time
    apart = probed(train, test)
    assert together.selection["chosen"] == apart.selection["chosen"]
    assert np.allclose(together.predictions["scores"], apart.predictions["scores"], atol=5e-3)


# ---- what may decide
def test_folds_are_even_within_every_class():
    _, targets = problem(200, 30)
    parts = folds_of(targets, 3, 0)
    for c in range(3):
        for value in (1, 0):
            counts = np.bincount(parts[targets[:, c] == value, c], minlength=3)
            assert counts.max() - counts.min() <= 1
    assert np.array_equal(parts, folds_of(targets, 3, 0))
    assert not np.array_equal(parts, folds_of(targets, 3, 1))


def test_test_targets_do_not_reach_the_predictions(given):
    train, test = given
    first, second = (probed(train, (test[0], t)) for t in (test[1], test[1][::-1]))
    assert np.array_equal(first.predictions["scores"], second.predictions["scores"])
    assert first.selection == second.selection


def test_images_that_are_not_judged_do_not_influence_the_fit(given):
    """Other features where the target is −1: the same scores, but for rounding."""
    (rows, targets), test = given
    targets = np.where((targets == -1).any(1, keepdims=True), np.int8(-1), targets)
    other = rows.clone()
    other[torch.from_numpy(targets[:, 0] == -1)] = 9.0
    first, second = (probed((x, targets), test) for x in (rows, other))
    assert first.selection["chosen"] == second.selection["chosen"]
    assert np.allclose(first.predictions["scores"], second.predictions["scores"], atol=5e-3)


def test_classes_of_neither_split_are_left_out(given):
    (rows, targets), (others, asked) = given
    wide, unseen = (np.insert(t, 1, 0, axis=1) for t in (targets, asked))
    classes = ("ant", "auk", "bee", "cat")
    probe = SVM(SVMConfig(costs=COSTS))
    found = probe.probe(
        "x", {"train": features((rows, wide), classes), "test": features((others, unseen), classes)}
    )
    plain = probed((rows, targets), (others, asked))
    assert found.selection["left_out"] == ["auk"]
    assert plain.selection["left_out"] == []
    assert not found.predictions["scores"][:, 1].any()
    assert probe.score(found.predictions) == probe.score(plain.predictions)
    assert found.selection["chosen"] == plain.selection["chosen"]


def test_single_labels_are_one_against_the_rest(given):
    (rows, _), (others, _) = given
    hidden = torch.arange(240) % 3
    labels, asked = hidden.numpy(), (torch.arange(120) % 3).numpy()
    moved = rows + 5 * torch.eye(60)[hidden]
    found = probed((moved, labels), (others + 5 * torch.eye(60)[torch.arange(120) % 3], asked))
    assert (found.predictions["scores"].argmax(1) == asked).mean() > 0.9
    assert np.array_equal(found.predictions["targets"], np.eye(3, dtype=np.int8)[asked])


# ---- refusals
def store(tmp_path, targets):
    """Labels without pixels: all that `check` looks at."""
    names = StringArray.of(str(i) for i in range(len(targets)))
    labels = np.asarray(targets).tolist()
    return ImageStore(
        tmp_path,
        Index(
            size=64, classes=CLASSES, names=names, labels=labels, digests=names, skipped=[],
            mean=(0, 0, 0), std=(1, 1, 1), digest="",
        ),
    )  # fmt: skip


def targets_of(*counts, total=12):
    """int8 (12, 3): the first images of each class have it."""
    return (np.arange(total)[:, None] < np.array(counts)).astype(np.int8)


REFUSED = {
    "absent from train": (
        targets_of(6, 6, 0), targets_of(0, 0, 2), DataError,
        "class 'cat' is in the test images but not in train",
    ),
    "one class": (
        targets_of(6, 0, 0), targets_of(2, 0, 0), DataError, "hold 1 class",
    ),
    "one label": ([0] * 12, [0] * 12, DataError, "hold 1 class"),
    "an empty test": (
        targets_of(6, 6, 6), targets_of(0, 0, 0), DataError, "the test images hold no class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_cannot_be_measured_on_are_refused_at_once(tmp_path, case):
    train, test, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        SVM(SVMConfig()).check({"train": store(tmp_path, train), "test": store(tmp_path, test)})


def test_labels_that_will_do_pass(tmp_path):
    probe = SVM(SVMConfig())
    probe.check(
        {
            "train": store(tmp_path, targets_of(6, 3, 0)),
            "test": store(tmp_path, targets_of(2, 2, 0)),
        }
    )
    single = np.arange(12) % 3
    probe.check({"train": store(tmp_path, single), "test": store(tmp_path, single)})


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_constant_features_name_the_layer(given, value):
    (rows, targets), test = given
    with pytest.raises(DataError, match="layer conv1: all features are constant"):
        probed((torch.full_like(rows, value), targets), test)


def test_costs_are_put_in_order_and_must_be_positive():
    assert SVMConfig(costs=(10, 1, 10)).costs == (1, 10)
    typed = SVMConfig(costs=(0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000))
    assert typed.model_dump_json() == SVMConfig().model_dump_json()  # and so the same key
    for bad in ((0.0,), (-1.0, 1.0), (float("nan"),), ()):
        with pytest.raises(ValueError, match="cost"):
            SVMConfig(costs=bad)


# ---- the command
def test_the_command_prints_a_table(workspace, bench: Bench):
    data = ("--data", "scenes:train=120,test=40")
    bench.ok("pretrain", "random", *TOY, *data, "--workspace", workspace)
    words = ("--encoder", "random", "--layer", "pool5", "--workers", 0, "--workspace", workspace)
    result = bench.ok("svm", *words, *data, "--costs", "0.1,1,10")
    assert "svm/goyal19-voc07@1 costs=0.1,1.0,10.0" in result.out
    assert "±" in result.out
    assert "bootstrap" in result.out


def test_the_command_refuses_costs_of_nothing(finished, bench: Bench):
    words = ("--encoder", "random", "--workers", 0, "--workspace", finished, *SCENES)
    fails(bench("svm", *words, "--costs", "0,1"), 2, "--costs: every cost is a number above 0")
