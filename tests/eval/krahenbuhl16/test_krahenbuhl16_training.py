"""Classification by fine-tuning with fresh fc6-fc8: learning, rescaling, few labels, requests."""

import numpy as np
import pytest
import torch

from eval.krahenbuhl16 import Krahenbuhl16, Krahenbuhl16Config
from eval.networks.fc678 import Classifier
from eval.splits import few_labels
from helpers.krahenbuhl16 import PLAIN, QUICK, relabelled, tuned
from helpers.subjects import subject
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.harness import printing
from ssl_bench.runtime import Runtime


# ---- learning
@pytest.mark.parametrize(("several", "metric"), [(False, "top1"), (True, "map_uninterpolated")])
def test_labels_are_learnt_by_heart(pictures, several, metric, tmp_path):
    store, found = pictures(12, several=several), []
    for steps in (1, 100):
        config = Krahenbuhl16Config(steps=steps, batch_size=12, lr=1e-2, head=64, rescale=True)
        learnt = tuned(config, store, store, tmp_path / str(steps))
        found.append(Krahenbuhl16(config).score(learnt.predictions)[metric])
    assert found[0] < 80
    assert found[1] > 95
    assert not several or learnt.predictions["scores"].shape == (12, 3)


# ---- rescaling
def test_rescaling_levels_the_rates_and_leaves_the_encoders_function(pictures, tmp_path):
    store, tested = pictures(20, several=True), subject(PLAIN)
    made = Classifier(tested.encoder, "pool5", 64, 32, 3, 0)
    images = PLAIN.apply(torch.rand(4, 3, 64, 64) * 255)
    before = made.encoder(images, ["pool5"])["pool5"].detach()
    kept = made.fc8.weight.clone()
    harness = Krahenbuhl16(QUICK)
    found = harness.rescale(made, store, np.arange(20), tested.spec)
    rates = [value for name, value in found.items() if name.endswith("rate_after")]
    assert len(rates) == 7  # conv1-5, fc6, fc7
    assert max(rates) / min(rates) < 1.05
    after = made.encoder(images, ["pool5"])["pool5"].detach()
    factor = float((after * before).sum() / before.square().sum())
    assert torch.allclose(after, factor * before, atol=0.05 * float(after.abs().max()))
    assert torch.equal(made.fc8.weight, kept)


def test_what_cannot_be_rescaled_is_named(pictures, tmp_path):
    store = pictures(8)
    tested = subject(PLAIN, "layer2", width=1, arch="timm:resnet10t")
    harness = Krahenbuhl16(QUICK.model_copy(update={"rescale": True}))
    found = harness.evaluate(
        tested, {"train": store, "test": store}, Runtime(workers=0), {"layer2": tmp_path}
    )
    with pytest.raises(UsageError, match=r"timm:resnet10t cannot be rescaled: .*BatchNorm"):
        next(iter(found))


# ---- few labels, requests
def test_few_labels_are_as_many_with_each_class_and_follow_the_seed(pictures):
    targets = pictures(60, several=True).targets
    targets = np.hstack([targets, np.zeros((60, 1), np.int8)])  # a class that no image has
    chosen = few_labels(targets, 4, 0)
    assert ((targets[chosen] == 1).sum(0)[:3] >= 4).all()
    assert 4 <= len(chosen) <= 12
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert chosen.tolist() == few_labels(targets, 4, 0).tolist()
    assert chosen.tolist() != few_labels(targets, 4, 1).tolist()
    fewest = int((targets == 1).sum(0)[:3].argmin())
    all_of_it = np.flatnonzero(targets[:, fewest] == 1)
    assert np.isin(all_of_it, few_labels(targets, len(all_of_it) + 1, 0)).all()


def test_training_sees_the_few_only(pictures, tmp_path):
    store = pictures(30)
    outcome = tuned(QUICK.model_copy(update={"labels": 2}), store, store, tmp_path)
    assert outcome.selection["training_images"] == 6


def test_labels_that_cannot_be_measured_are_refused(pictures):
    store = pictures(12, several=True)
    harness = Krahenbuhl16(QUICK)

    def check(train, test, **settings):
        made = Krahenbuhl16(QUICK.model_copy(update=settings))
        made.check({"train": relabelled(store, train), "test": relabelled(store, test)})

    some, none = store.targets, np.zeros_like(store.targets)
    lone = none.copy()
    lone[0, 1] = 1
    with pytest.raises(DataError, match="hold 1 class"):
        check(lone, some)
    with pytest.raises(DataError, match="there is nothing to find"):
        check(some, none - 1)
    with pytest.raises(DataError, match="class 'blue' is in the test images but not in train"):
        check(some * np.array([1, 1, 0], np.int8), some * np.array([0, 0, 1], np.int8))
    with pytest.raises(DataError, match="hold 1 class"):
        check(np.zeros(12, np.int64), np.zeros(12, np.int64))
    harness.check({"train": store, "test": store})
    harness.check({"train": pictures(6), "test": pictures(6)})


def test_the_headline_follows_from_the_predictions_and_from_nothing_else():
    several = {"targets": np.ones((2, 1), np.int8), "scores": np.ones((2, 1))}
    single = {"label": np.ones(2), "predicted": np.ones(2)}
    for _ in range(2):  # in any order
        said = printing(Krahenbuhl16(QUICK), several)
        assert (said["metric"], said["shown"]) == ("map_uninterpolated", ["map_uninterpolated"])
        assert said["interval"] == "over the test images, bootstrap"
        said = printing(Krahenbuhl16(QUICK), single)
        assert (said["metric"], said["shown"]) == ("top1", ["top1"])
        assert said["interval"] == "over the test images, Wilson's"


def test_freezing_is_another_word_for_training_fc6_to_fc8():
    assert Krahenbuhl16Config(freeze=True) == Krahenbuhl16Config(train="fc6-8")
    assert Krahenbuhl16Config(freeze=True, train="fc8").train == "fc8"
    assert "freeze" not in Krahenbuhl16Config(freeze=True).model_dump()
