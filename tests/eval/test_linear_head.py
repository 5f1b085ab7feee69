"""Few-label fine-tuning: the draw of labels, what changes, what does not."""

import numpy as np
import pytest

from eval.linear_head import LinearHead, LinearHeadConfig
from eval.splits import few_labels, held_out
from helpers.subjects import subject
from ssl_bench import catalogue
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.errors import DataError
from ssl_bench.runtime import Runtime


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=60,test=30")
    return [open_store(data, split, 64, workers=0) for split in ("train", "test")]


def test_few_labels_are_as_many_of_each_class_and_follow_the_seed():
    labels = np.repeat(np.arange(4), 25)
    chosen = few_labels(labels, 5, 0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5, 5]
    assert len(set(chosen.tolist())) == 20
    assert chosen.tolist() == few_labels(labels, 5, 0).tolist()
    assert chosen.tolist() != few_labels(labels, 5, 1).tolist()
    assert len(few_labels(labels[:-20], 9, 0)) == 3 * 9 + 5  # of a class with fewer, all


def test_held_out_images_keep_the_classes_shares_and_leave_the_others():
    labels = np.repeat(np.arange(3), (60, 30, 10))
    fitted, held = held_out(labels, 0.2, 0)
    assert np.bincount(labels[held]).tolist() == [12, 6, 2]
    assert sorted([*fitted, *held]) == list(range(100))


def test_it_learns_its_training_images(stores, tmp_path):
    """Tested on what it was trained on, it is nearly always right; untrained it is at chance."""
    train = stores[0]
    tested = subject(train.normalization, "conv5", width=0.25)
    top1 = {}
    for labels, steps in ((0, 120), (3, 1)):
        harness = LinearHead(LinearHeadConfig(labels=labels, steps=steps, batch_size=20))
        place = tmp_path / str(steps)
        place.mkdir()
        both = {"train": train, "test": train}
        ((_, found),) = harness.evaluate(tested, both, Runtime(workers=0), {"conv5": place})
        assert found.selection["training_images"] == (30 if labels else 60)
        top1[steps] = harness.score(found.predictions)["top1"]
    assert top1[120] > 85
    assert top1[1] < 40


def test_what_cannot_be_learnt_is_refused_before_anything_is_computed(stores):
    train, test = stores
    one = ImageStore(train.folder, train.index.model_copy(update={"labels": [0] * 60}))
    with pytest.raises(DataError, match="hold 1 class"):
        LinearHead(LinearHeadConfig(labels=3)).check({"train": one, "test": test})
